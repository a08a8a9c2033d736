"""Follows one deployment to its end: what deploy, rollback and retry have in common."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator

from agent.cli import arguments, bars, connection, explain, output, reporter, text
from agent.cli.exits import BY_OUTCOME, Exit
from agent.client import SCHEMA, Client, quote
from agent.model.errors import AgentError, Code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from agent.client import Body

EXITS = """\
exit codes:
  0    succeeded
  1    failed or rolled back: the old revision serves
  2    wrong usage
  4    no permission
  5    superseded by a newer revision
  6    aborted
  7    the agent is not running
  8    inconsistent: the undo failed, a person must look
  9    deployments are held
  10   --timeout is over; the deployment goes on in the agent
  130  Ctrl-C; the deployment goes on in the agent"""

_RETURN_SECONDS = 120.0  # an agent that is upgraded or restarted is back by then
_RETRY_SECONDS = 0.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of every command that begins a deployment."""
    parser.add_argument(
        "--detach", action="store_true", help="do not wait: print the deployment's id and end"
    )
    parser.add_argument(
        "--timeout",
        metavar="D",
        type=arguments.parse_duration,
        help="wait at most that long, such as 90s or 10m (default: until it ended)",
    )
    output.add_json_argument(parser)
    connection.add_foreground_arguments(parser)
    parser.epilog = EXITS


def run(args: argparse.Namespace, path: str, body: Body) -> int:
    """Ask for a deployment (POST `body` to `path`), follow it, and say how it ended."""
    if args.detach and args.foreground:
        raise AgentError(
            "cannot detach: with --foreground there is no agent that would go on",
            code=Code.BAD_REQUEST,
        )
    with connection.connect(args) as client:
        deployment = client.call("POST", path, body)["deployment"]
        if args.detach:
            output.show(args, {"schema": SCHEMA, "deployment": deployment}, _accepted)
            return Exit.OK
        wait = Wait(client, deployment, private=args.foreground, timeout=args.timeout)
        ended = wait.until_end(bars.reporter(as_json=args.json))
    output.show(args, {"schema": SCHEMA, "deployment": wait.deployment}, _summary)
    if not ended:
        return Exit.TIMEOUT
    return BY_OUTCOME.get(wait.deployment["outcome"], Exit.FAILED)


class Wait:
    """One deployment that is followed. `deployment` is what was last heard of it.

    private: the agent is ours and ends with us, so Ctrl-C and --timeout abort the deployment;
    else they only end the wait.
    """

    def __init__(
        self, client: Client, deployment: Body, *, private: bool, timeout: float | None
    ) -> None:
        self.deployment = deployment
        self._client = client
        self._id = str(deployment["id"])
        self._private = private
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._interrupts = 0
        self._timed_out = False
        self._abort_due = ""  # why

    def until_end(self, told: reporter.Reporter) -> bool:
        """Tell every change until the end; False where --timeout was over before.

        Raises KeyboardInterrupt on Ctrl-C where the deployment goes on without us.
        """
        try:
            while True:
                try:
                    self._abort_if_due(told)
                    self._follow(told)
                    return not self._timed_out
                except TimeoutError:
                    self._timed_out, self._deadline = True, None
                    if not self._private:
                        return False
                    self._abort_due = "--timeout is over"
                except KeyboardInterrupt:
                    self._interrupts += 1
                    if not self._private or self._interrupts > 2:
                        told.close()
                        self._say_goodbye()
                        raise
                    self._abort_due = "Ctrl-C"
        finally:
            told.close()

    def _follow(self, told: reporter.Reporter) -> None:
        for deployment in self._changes(told):
            self.deployment = deployment
            told.update(text.clean_all(deployment))

    def _changes(self, told: reporter.Reporter) -> Iterator[Body]:
        """The deployment at each change, also across a restart of the agent."""
        path = f"/v1/deployments/{quote(self._id)}/events"
        lost_at: float | None = None
        while True:
            try:
                for event in self._client.stream(path, deadline=self._deadline):
                    lost_at = None
                    yield event["deployment"]
                if self.deployment["outcome"]:
                    return
            except AgentError as error:
                if self._private or error.code is not Code.AGENT_UNREACHABLE:
                    raise
            if lost_at is None:
                lost_at = time.monotonic()
                told.say("the agent went away; waiting for it to come back")
            elif self._private or time.monotonic() - lost_at > _RETURN_SECONDS:
                raise AgentError(
                    f"cannot follow {self._id}: the agent does not come back",
                    code=Code.AGENT_UNREACHABLE,
                    remedy="See why: journalctl -u deploy-agent -n 50",
                )
            self._pause()

    def _pause(self) -> None:
        if self._deadline is not None and time.monotonic() + _RETRY_SECONDS > self._deadline:
            raise TimeoutError
        time.sleep(_RETRY_SECONDS)

    def _abort_if_due(self, told: reporter.Reporter) -> None:
        """Ask for the abort that is due; a Ctrl-C in here makes the next one due."""
        why, self._abort_due = self._abort_due, ""
        if not why:
            return
        now = self._interrupts == 2
        if now:
            told.say(f"{why}: stopping its hook, then undoing it")
        else:
            told.say(f"{why}: aborting and undoing it; Ctrl-C again stops a running hook, too")
        try:
            self._client.call("POST", f"/v1/deployments/{quote(self._id)}/abort", {"now": now})
        except AgentError as error:
            if error.code is not Code.CONFLICT:  # past the commit: it ends by itself
                raise
            told.say(text.clean(error.message))

    def _say_goodbye(self) -> None:
        if self._private:
            words = "The private agent finishes the undo on its own, then it ends."
        else:
            words = (
                f"{self._id} goes on in the agent.\n"
                f"  to follow it: agentctl logs -f {self._id}\n"
                f"  to stop it:   agentctl abort {self._id}"
            )
        print(words, file=sys.stderr)


def _accepted(body: Body, style: text.Style) -> list[str]:
    deployment = body["deployment"]
    what, where = explain.name(deployment), deployment["id"]
    return [f"{where}: {style('bold', what)} accepted; to follow it: agentctl logs -f {where}"]


def _summary(body: Body, style: text.Style) -> list[str]:
    deployment = body["deployment"]
    if not deployment["outcome"]:
        now, where = explain.doing(deployment, time.time()), deployment["id"]
        return [f"{explain.name(deployment)} is not through yet ({now}); it goes on as {where}"]
    lines = [explain.ending(deployment, style)]
    if deployment["outcome"] != "succeeded":
        lines += explain.failure_lines(deployment, style)
    took = explain.times(deployment)
    return [*lines, f"  took {took}"] if took else lines
