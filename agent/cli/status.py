"""agentctl status: what serves here, what runs, and how the last deployment went."""

from __future__ import annotations

import argparse
import time

from agent.cli import connection, explain, output, text
from agent.cli.exits import StatusExit
from agent.client import target
from agent.model.errors import AgentError, Code

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body

_ANSWER_SECONDS = 10.0  # it asks the services themselves, a second each at most
_EXITS = """\
exit codes (LSB's for status, then our own; the worst one counts):
  0    all is good
  3    the agent is not running
  4    unknown: no such application, health not known, no sensible answer
  150  a deployment runs or waits
  151  degraded: a service is unhealthy, or not passing in Consul
  152  the last deployment failed or was rolled back; the old revision serves
  153  a service reports another version than the one deployed
  154  deployments are held
  156  inconsistent: an undo failed, a person must look"""

# The worst first. A service that is being replaced says nothing about the host, so health
# counts only where no deployment runs: else every deployment would be an alarm.
_PRECEDENCE = (
    StatusExit.INCONSISTENT,
    StatusExit.VERSION_MISMATCH,
    StatusExit.DEGRADED,
    StatusExit.DEPLOYING,
    StatusExit.HELD,
    StatusExit.ROLLED_BACK,
    StatusExit.UNKNOWN,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `agentctl status`."""
    parser.add_argument("application", nargs="?", help="only this one")
    output.add_json_argument(parser)
    connection.add_foreground_arguments(parser)
    parser.epilog = _EXITS


def run(args: argparse.Namespace) -> int:
    """Print the status; the exit code sums it up."""
    with connection.connect(args) as client:
        path = target("/v1/status", application=args.application)
        body = client.call("GET", path, timeout=_ANSWER_SECONDS)
    try:
        code = exit_code(body)
        output.show(args, body, lambda shown, style: lines(shown, style, time.time()))
    except (KeyError, TypeError, AttributeError) as error:
        raise AgentError(
            f"cannot read the agent's answer: {type(error).__name__}: {error}",
            code=Code.INTERNAL,
            remedy="Compare the versions: agentctl version",
        ) from error
    return code


def exit_code(body: Body) -> StatusExit:
    """The worst of what is so."""
    found = {StatusExit.HELD} if body["hold"] else set()
    for application in body["applications"]:
        found |= _conditions(application, held=bool(body["hold"]))
    return next((code for code in _PRECEDENCE if code in found), StatusExit.OK)


def _conditions(application: Body, *, held: bool) -> set[StatusExit]:
    found = set()
    last = application["last"]
    if last and last["outcome"] == "inconsistent":
        found.add(StatusExit.INCONSISTENT)
    if last and last["outcome"] in ("failed", "rolled_back"):
        found.add(StatusExit.ROLLED_BACK)
    if application["running"] or (application["waiting"] and not held):
        found.add(StatusExit.DEPLOYING)
    elif application["current"]:
        found |= _health_conditions(application)
        if any(each["trouble"] for each in _in_consul(application)):
            found.add(StatusExit.DEGRADED)
    return found


def _in_consul(application: Body) -> list[Body]:
    consul = application.get("consul") or {"services": []}  # an older agent knows nothing of it
    found: list[Body] = consul["services"]
    return found


def _health_conditions(application: Body) -> set[StatusExit]:
    match application["health"]["state"]:
        case "unhealthy":
            wrong = _has_mismatch(application)
            return {StatusExit.VERSION_MISMATCH if wrong else StatusExit.DEGRADED}
        case "unknown":
            return {StatusExit.UNKNOWN}
        case _:
            return set()


def _has_mismatch(application: Body) -> bool:
    reported, current = application["health"]["reported_version"], application["current"]
    return bool(reported and current and reported != current["version"])


def lines(body: Body, style: text.Style, now: float) -> list[str]:
    """The status for people."""
    shown: list[str] = []
    for application in body["applications"]:
        shown += [*_application_lines(application, style, now), ""]
    if not shown:
        shown = ["Nothing was deployed here yet: agentctl deploy BUNDLE", ""]
    if body["hold"]:
        shown.append(hold_line(body["hold"], style, now))
    return shown + _agent_lines(body["agent"], style, now)


def hold_line(hold: Body, style: text.Style, now: float) -> str:
    """One line: held since 3 min ago by bob: disk swap (until 14:02:10, in 58 min)."""
    until = hold["until"]
    end = (
        f"until {text.clock(until, now)}, in {text.seconds(until - now)}" if until else "no end set"
    )
    since = text.ago(hold["since"], now)
    return f"{style('yellow', 'held')} since {since} by {hold['by']}: {hold['reason']} ({end})"


def _agent_lines(agent: Body, style: text.Style, now: float) -> list[str]:
    up = text.seconds(now - agent["started_at"])
    shown = [f"deploy-agent {agent['version']}, pid {agent['pid']}, up {up}"]
    if agent["decision"]:
        shown[0] += f": {agent['decision']}"
    for source in agent["sources"]:
        if source["problem"]:
            problem = style("yellow", source["problem"])
            shown.append(f"source {source['source']}: {problem}")
    return shown


def _application_lines(application: Body, style: text.Style, now: float) -> list[str]:
    shown = [_headline(application, style, now)]
    health = application["health"]
    is_telling = health["state"] in ("unhealthy", "unknown") and application["current"]
    if is_telling and health["detail"]:
        shown.append(_row("health", health["detail"]))
    if _has_mismatch(application):
        shown.append(_row("reports", f"version {style('red', health['reported_version'])}"))
    # an older agent knows nothing of warnings
    warnings = [unit.get("warning", "") for unit in health.get("units", ())]
    shown += [_row("unit", style("yellow", each)) for each in warnings if each]
    shown += _consul_lines(application, style, now)
    shown += _environment_lines(application, style)
    if application["previous"]:
        shown.append(_row("previous", application["previous"]["version"]))
    running = application["running"]
    if running:
        what = f"{running['version']} {explain.doing(running, now)} ({running['id']})"
        shown.append(_row("now", style("yellow", what)))
    for waiting in application["waiting"]:
        since = text.ago(waiting["created_at"], now)
        shown.append(_row("waiting", f"{waiting['version']}, asked {since} ({waiting['id']})"))
    shown += _last_lines(application["last"], style, now)
    for revision in application["quarantined"]:
        cause, again = revision["cause"], _again(application, revision)
        since = text.ago(revision["since"], now)
        words = f"{revision['version']}, {since}: {cause}; to try it again: {again}"
        shown.append(_row("refused", words))
    return shown


def _again(application: Body, revision: Body) -> str:
    """The command that deploys a refused revision: retry takes the newest deployment alone."""
    last = application["last"]
    is_newest = last and last["outcome"] != "succeeded" and last["digest"] == revision["digest"]
    if is_newest:
        return f"agentctl retry {application['application']}"
    return "agentctl deploy --force BUNDLE"


def _headline(application: Body, style: text.Style, now: float) -> str:
    current, state = application["current"], application["health"]["state"]
    title = style("bold", application["application"])
    if not current:
        return f"{title}  no revision yet"
    colour = {"healthy": "green", "unhealthy": "red"}.get(state, "dim")
    words = {"unchecked": "health not checked", "unknown": "health not known"}.get(state, state)
    since = text.ago(current["committed_at"], now)
    return f"{title}  {style('bold', current['version'])}  {style(colour, words)}, since {since}"


def _environment_lines(application: Body, style: text.Style) -> list[str]:
    """Such as "env: 12 variables of config/go-service, index 345"."""
    environment = application.get("environment") or {"files": [], "decision": ""}
    shown = []
    for file in environment["files"]:
        count = len(file["names"])
        noun = "variable" if count == 1 else "variables"
        words = f"{count} {noun} of {file['prefix']}, index {file['index']}"
        if file["problem"]:
            words += f"; {style('yellow', file['problem'])}"
        shown.append(_row("env", words))
    if environment["decision"]:
        shown.append(_row("env", style("yellow", environment["decision"])))
    return shown


def _consul_lines(application: Body, style: text.Style, now: float) -> list[str]:
    shown = []
    for service in _in_consul(application):
        words = f"{service['id']} {service['status'] or 'not known'}"
        if service["trouble"]:
            words = f"{service['id']} {style('red', service['trouble'])}"
        if service["maintenance"] is not None:
            words += f", {style('yellow', 'out of traffic')}: {service['maintenance']}"
        shown.append(_row("consul", words))
    consul = application.get("consul")
    if consul and consul["drain"]:
        drain = consul["drain"]
        end = f", until {text.clock(drain['until'], now)}" if drain["until"] else ""
        since = f"{text.ago(drain['since'], now)} by {drain['by']}"
        words = f"{since}: {drain['reason']}{end}; to end it: agentctl undrain"
        shown.append(_row("drained", style("yellow", words)))
    if consul and consul["problem"]:
        shown.append(_row("consul", style("yellow", consul["problem"])))
    return shown


def _last_lines(last: Body | None, style: text.Style, now: float) -> list[str]:
    if not last:
        return []
    when = text.ago(last["ended_at"], now)
    what = f"{last['version']} {explain.outcome(last, style)} {when} ({last['id']})"
    shown = [_row("last", what)]
    if last["outcome"] != "succeeded":
        shown += explain.failure_lines(last, style, prefix=" " * 12)
    took = explain.times(last)
    if took:
        shown.append(_row("took", took))
    return shown


def _row(label: str, words: str) -> str:
    return f"  {label + ':':10}" + words.replace("\n", " ")
