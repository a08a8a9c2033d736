"""agentctl doctor: look whether this host is fit for deployments, also where the agent is dead."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import selectors
import subprocess
import time

from agent.cli import child, output, text
from agent.cli.exits import Exit
from agent.model.errors import AgentError, Code, from_os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body

_DOCTOR_SECONDS = 30.0  # its subjects have deadlines of their own, far below this
_END_SECONDS = 1.0
_SHOWN_LINES = 5
_REINSTALL = "Where a module is missing or broken: apt-get install --reinstall deploy-agent"
_HANGS = "See what hangs: ps -eo pid,stat,wchan:20,args | grep ' D'"
_ANSWER_BYTES = 4 * 2**20
_COLOURS = {"problem": "red", "warning": "yellow", "unknown": "yellow", "ok": "green"}
_EXITS = """\
exit codes:
  0  no problem was found; there may be warnings, and what could not be looked at
  1  there are problems
  2  wrong usage"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl doctor`."""
    parser.add_argument("--config", metavar="FILE", help="the agent's agent.yaml")
    output.add_json_argument(parser)
    parser.epilog = _EXITS


def run(args: argparse.Namespace) -> int:
    """Print a line for everything that was looked at; the exit code says if there are problems."""
    argv = child.argv("agent.doctor.__main__")
    if args.config is not None:
        argv += ["--config", os.path.abspath(args.config)]
    socket = args.socket or os.environ.get("DEPLOY_AGENT_SOCKET")
    if socket:
        argv += ["--socket", os.path.abspath(socket)]
    body = _ask(argv)
    output.show(args, body, _lines)
    return Exit.FAILED if body["problems"] else Exit.OK


def _ask(argv: list[str]) -> Body:
    """The doctor's one line. It is not waited for any longer: a thread of it may hang."""
    # memory: on a full disk there would be no temporary file
    with open(os.memfd_create("doctor", os.MFD_CLOEXEC), "rb") as said:
        try:
            doctor = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said
            )
        except OSError as error:
            raise from_os_error(error, "start the doctor", code=Code.INTERNAL) from error
        assert doctor.stdout is not None
        with doctor.stdout as answer:
            line = _read_line(answer.fileno())
        _ensure_end(doctor)
        if line.endswith(b"\n"):
            body: Body = json.loads(line)
            return body
        said.seek(0)
        details = said.read().decode(errors="replace").splitlines()[-_SHOWN_LINES:]
    cause = "the doctor itself does not work" if details else f"it took {_DOCTOR_SECONDS:g} s"
    raise AgentError(
        f"cannot look at this host: {cause}",
        code=Code.INTERNAL,
        details=tuple(details),
        remedy=_REINSTALL if details else _HANGS,
    )


def _ensure_end(doctor: subprocess.Popen[bytes]) -> None:
    """End it, or leave it behind: not even KILL ends one that waits for a disk."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        doctor.wait(_END_SECONDS)
        return
    doctor.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        doctor.wait(_END_SECONDS)


def _read_line(descriptor: int) -> bytes:
    """Up to the first line's end, the end of the output, or the deadline."""
    deadline = time.monotonic() + _DOCTOR_SECONDS
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while not line.endswith(b"\n") and len(line) < _ANSWER_BYTES:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                break
            octets = os.read(descriptor, 64 * 1024)
            if not octets:
                break
            line += octets
    return line


def _lines(body: Body, style: text.Style) -> list[str]:
    width = max(map(len, _COLOURS))
    lines = []
    for each in body["findings"]:
        level = style(_COLOURS[each["level"]], each["level"].ljust(width))
        lines.append(f"{level}  {each['subject']}: {each['text']}")
        if each["remedy"]:
            lines += text.indent(each["remedy"], f"{'':{width}}  → ")
    return [*lines, "", _summary(body)]


def _summary(body: Body) -> str:
    counts = [
        f"{body[key]} {word}{'s' if body[key] > 1 else ''}"
        for key, word in (("problems", "problem"), ("warnings", "warning"))
        if body[key]
    ]
    if body["unknown"]:
        counts.append(f"{body['unknown']} could not be looked at")
    return ", ".join(counts) or "all is well"
