"""A private agent for one command: a child without sources, on a socket of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from types import FrameType, TracebackType

from agent.cli import child as child_command
from agent.client import Client
from agent.model.errors import AgentError, Code, from_os_error

_START_SECONDS = 30.0
_ASK_SECONDS = 5.0
_QUIET_SECONDS = 3.0
_UNDO_SECONDS = 900.0
_END_SECONDS = 30.0
_SOCKET_PATH_BYTES = 90  # sun_path holds 108, a long TMPDIR would not fit


class PrivateAgent:
    """Starts the agent on entry, gives its Client, and ends it on exit.

    The child holds the read end of a pipe, its lifeline. It ends on its own when that closes,
    after the undo of what it was doing: so nothing is left over, also where we are killed.
    """

    def __init__(self, config: str | None) -> None:
        self._config = config
        self._dir = ""
        self._lifeline = -1
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Client:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _leave)
        try:
            self._dir = _private_dir()
            child = self._child = self._start()
        except OSError as error:
            self._clear()
            raise from_os_error(error, "start a private agent", code=Code.INTERNAL) from error
        client = Client(self._socket_path)
        try:
            self._wait_for_answer(client, child)
        except BaseException:
            child.terminate()
            self._clear()
            raise
        return client

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        child = self._child
        assert child is not None
        try:
            if child.poll() is None:
                self._end(child, patient=error is None or isinstance(error, AgentError))
            if isinstance(error, AgentError) and error.code is Code.AGENT_UNREACHABLE:
                raise self._ended(child) from error  # its own words say more
        finally:
            self._clear()

    @property
    def _socket_path(self) -> str:
        return os.path.join(self._dir, "agent.sock")

    @property
    def _log_path(self) -> str:
        return os.path.join(self._dir, "agent.log")

    def _start(self) -> subprocess.Popen[bytes]:
        lifeline, self._lifeline = os.pipe()
        argv = [*child_command.argv("agent.__main__"), "--foreground"]
        if self._config is not None:
            argv += ["--config", os.path.abspath(self._config)]
        argv += ["--socket", self._socket_path, "--lifeline", str(lifeline)]
        try:
            with open(self._log_path, "wb", opener=_private) as log:
                return subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lifeline,),
                    start_new_session=True,  # Ctrl-C is ours to tell it
                )
        finally:
            os.close(lifeline)

    def _wait_for_answer(self, client: Client, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            if child.poll() is not None:
                raise self._ended(child)
            try:
                client.call("GET", "/v1/version", timeout=_ASK_SECONDS)
                return
            except AgentError as error:
                if error.code is not Code.AGENT_UNREACHABLE or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)

    def _ended(self, child: subprocess.Popen[bytes]) -> AgentError:
        with open(self._log_path, encoding="utf-8", errors="replace") as log:
            said = log.read().splitlines()
        return _parse_error(said[-1] if said else "") or AgentError(
            f"cannot run without a daemon: the private agent ended with {child.returncode}",
            code=Code.INTERNAL,
            details=tuple(said[-20:]),
        )

    def _end(self, child: subprocess.Popen[bytes], *, patient: bool) -> None:
        """Cut the lifeline, and wait for the end: at once, or after the undo of what runs."""
        self._close_lifeline()
        if _has_ended(child, _QUIET_SECONDS):
            return
        if patient:
            print("waiting for the private agent to end its work", file=sys.stderr)
            if _has_ended(child, _UNDO_SECONDS):
                return
            child.terminate()
            if _has_ended(child, _END_SECONDS):
                return
        print(f"the private agent ends its work as pid {child.pid}", file=sys.stderr)

    def _close_lifeline(self) -> None:
        if self._lifeline != -1:
            os.close(self._lifeline)
            self._lifeline = -1

    def _clear(self) -> None:
        self._close_lifeline()
        shutil.rmtree(self._dir, ignore_errors=True)


def _parse_error(line: str) -> AgentError | None:
    """The error that ended the private agent, as it prints it last; None: it was something else."""
    try:
        body = json.loads(line)
        return AgentError(
            body["message"],
            code=Code(body["code"]),
            details=tuple(body["details"]),
            remedy=body["remedy"],
        )
    except (ValueError, TypeError, KeyError):
        return None


def _leave(number: int, _frame: FrameType | None) -> None:
    """End by a signal in an orderly way, so that __exit__ tidies up."""
    sys.exit(128 + number)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _private_dir() -> str:
    """A new folder; hooks of other users reach the socket in it, and see nothing else."""
    folder = _new_dir()
    os.chmod(folder, 0o711)  # noqa: S103
    return folder


def _new_dir() -> str:
    folder = tempfile.mkdtemp(prefix="agentctl-")
    if len(os.fsencode(folder)) < _SOCKET_PATH_BYTES:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="agentctl-", dir="/tmp")


def _has_ended(child: subprocess.Popen[bytes], seconds: float) -> bool:
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True
