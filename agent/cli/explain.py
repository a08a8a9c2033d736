"""How a deployment is told to people: its outcome, its failure in full, where its time went."""

from __future__ import annotations

from agent.cli import text

TYPE_CHECKING = False  # typing costs 3 ms of start-up
if TYPE_CHECKING:
    from agent.client import Body

_SHOWN_STEPS = 4  # in "where the time went": the longest ones
_SHOWN_EVIDENCE = 20  # lines; `agentctl logs` has them all


def name(deployment: Body) -> str:
    """What it brings: "go-service 1.215"."""
    return f"{deployment['application']} {deployment['version'] or '(version not known yet)'}"


def outcome(deployment: Body, style: text.Style) -> str:
    """How it ended, in one coloured word or two."""
    word = str(deployment["outcome"])
    colour = {"succeeded": "green", "superseded": "yellow", "aborted": "yellow"}.get(word, "red")
    return style(colour, word.replace("_", " "))


def serving(deployment: Body) -> str:
    """What serves after it did not succeed."""
    before = deployment["previous_version"]
    return f"{before} serves" if before else "no revision was here before"


def ending(deployment: Body, style: text.Style) -> str:
    """The closing sentence of a deployment that ended."""
    what = style("bold", name(deployment))
    took = f"after {text.seconds(deployment['seconds'])}"
    match deployment["outcome"]:
        case "succeeded":
            before = deployment["previous_version"]
            was = f" (before: {before})" if before else ""
            return f"{what} {outcome(deployment, style)} {took}{was}"
        case "rolled_back":
            return f"{what} was {outcome(deployment, style)} {took}: {serving(deployment)}"
        case "failed":
            end = outcome(deployment, style)
            return f"{what} {end} {took}, nothing was touched: {serving(deployment)}"
        case "aborted":
            when = (
                f"{took}: {serving(deployment)}" if deployment["started_at"] else "while it waited"
            )
            return f"{what} was {outcome(deployment, style)} {when}"
        case "superseded":
            return f"{what} was {outcome(deployment, style)} by a newer revision"
        case "inconsistent":
            end = outcome(deployment, style)
            return f"{what} ended {end} {took}: its undo failed, look at this host"
        case other:
            return f"{what} ended: {other}"


def doing(deployment: Body, now: float) -> str:
    """What a deployment that has not ended does now: "install 40%, for 4.00 s"."""
    if deployment["status"] == "pending":
        return "waiting"
    words = "aborting" if deployment.get("aborting") else deployment["status"]
    step = deployment["step"]
    if step:
        words += f" {step}"
    done = percent(deployment)
    if done is not None:
        words += f" {done}%"
    begun = next((row["started_at"] for row in deployment["steps"] if row["name"] == step), 0)
    return f"{words}, for {text.seconds(now - begun)}" if begun else words


def percent(deployment: Body) -> int | None:
    """How much of the running step is done, None where it does not say."""
    progress = deployment.get("progress")
    if not progress or not progress["total"]:
        return None
    return int(min(100, 100 * progress["done"] // progress["total"]))


def times(deployment: Body) -> str:
    """Where the time went: "4.20 s: start 3.10 s, validate 0.80 s", "" where nothing ran."""
    spent: list[tuple[float, str]] = []
    for row in deployment["steps"]:
        spent.append((row["seconds"], str(row["name"])))
        spent.append((row["undo_seconds"], f"undo of {row['name']}"))
    longest = sorted((pair for pair in spent if pair[0] >= 0.01), reverse=True)[:_SHOWN_STEPS]
    if not longest:
        return ""
    parts = ", ".join(f"{what} {text.seconds(took)}" for took, what in longest)
    return f"{text.seconds(deployment['seconds'])}: {parts}"


def failure_lines(deployment: Body, style: text.Style, *, prefix: str = "  ") -> list[str]:
    """The whole explained failure, and that of each undo that failed; [] without one."""
    failure = deployment["failure"]
    lines = _failure(failure, style, prefix) if failure else []
    for row in deployment["steps"]:
        if row["failure"] and row["failure"] != failure:
            lines.append(f"{prefix}{row['name']} failed too:")
            lines += _failure(row["failure"], style, prefix + "  ")
    return lines


def _failure(failure: Body, style: text.Style, prefix: str) -> list[str]:
    lines = text.indent(f"{style('red', failure['message'])} [{failure['code']}]", prefix)
    if failure["where"]:
        lines += text.indent(f"where: {failure['where']}", prefix)
    evidence = failure["evidence"][-_SHOWN_EVIDENCE:]
    for line in evidence:
        lines += text.indent(line, f"{prefix}  | ") or [f"{prefix}  |"]
    if failure["next"]:
        lines += text.indent(f"next:  {style('bold', failure['next'])}", prefix)
    return lines
