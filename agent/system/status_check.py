"""Whether a service's status endpoint proves a revision: asked once, or until it stays so.

Fails closed: only HTTP 200 with JSON in which the version is this revision's and every
component is as expected counts, and where a unit is named, only from the unit's own processes
(see ownership). What is shown of an answer is limited to the compared fields.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from dataclasses import dataclass
from enum import StrEnum

from agent.model.appspec import Match, StatusCheck
from agent.model.errors import AgentError, Code
from agent.system import http, ownership
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.http import HttpClient, JsonAnswer
from agent.system.ownership import Owner

ASK_SECONDS = 5.0  # for one answer, from the connection to the last byte
_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.25, 1.0
_SHOWN_CHARACTERS = 100


class Verdict(StrEnum):
    """What one answer says about a revision."""

    PROVED = "proved"
    UNREACHABLE = "unreachable"
    UNHEALTHY = "unhealthy"
    OTHER_VERSION = "other-version"
    FOREIGN = "foreign"


_CODES = {
    Verdict.UNREACHABLE: Code.STATUS_UNREACHABLE,
    Verdict.UNHEALTHY: Code.STATUS_UNHEALTHY,
    Verdict.OTHER_VERSION: Code.VERSION_MISMATCH,
    Verdict.FOREIGN: Code.STATUS_FOREIGN,
}


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """One question's result. detail: a line of plain words; reported_version: "" for none."""

    verdict: Verdict
    detail: str
    reported_version: str = ""


async def ask_once(
    client: HttpClient,
    check: StatusCheck,
    version: str,
    *,
    owner: Owner | None = None,
    timeout_seconds: float = ASK_SECONDS,
) -> StatusAnswer:
    """Ask the endpoint one time whether it is this version and healthy; raises nothing for a no.

    owner: who has to answer; None lets anybody.
    """
    read = client.read_json if check.version or check.healthy else client.read_status
    try:
        answer = await read(check.url, timeout_seconds=timeout_seconds)
    except AgentError as error:
        return StatusAnswer(Verdict.UNREACHABLE, ", ".join(error.details))
    found = judge(answer, check, version)
    stranger = "" if owner is None else await ownership.find_stranger(owner, answer.peer)
    if stranger:
        detail = f"the answer came from {stranger}"
        return StatusAnswer(Verdict.FOREIGN, detail, found.reported_version)
    return found


async def check_service(
    client: HttpClient,
    check: StatusCheck,
    version: str,
    *,
    cancel: Cancel,
    log: DeploymentLog,
    owner: Owner | None = None,
) -> StatusAnswer:
    """Ask until the endpoint proves `version`, and then until it has done so for stable_for.

    The first proof has to come within `within`; a relapse begins the wait anew, to the same end.
    So this takes at most within + stable_for and the time of one answer. Raises AgentError with
    one of _CODES, and Interrupted through cancel.
    """
    began = time.monotonic()
    deadline = began + check.within_seconds
    timeout = min(ASK_SECONDS, max(1.0, check.within_seconds))
    pause, tries, relapses = _FIRST_PAUSE_SECONDS, 0, 0
    proved_since: float | None = None
    said = ""
    while True:
        cancel.check()
        answer = await ask_once(client, check, version, owner=owner, timeout_seconds=timeout)
        now, tries = time.monotonic(), tries + 1
        if answer.detail != said:
            said = answer.detail
            log.line(f"{http.without_secrets(check.url)}: {said}")
        if answer.verdict is Verdict.PROVED:
            proved_since = now if proved_since is None else proved_since
            ends = proved_since + check.stable_for_seconds
            if now >= ends:
                return answer
        else:
            relapses += proved_since is not None
            proved_since, ends = None, deadline
            if now >= deadline:
                asked = f"asked {tries} times in {now - began:.1f} s"
                unit = owner.unit if owner is not None else ""
                raise _not_proved(check, version, answer, unit=unit, asked=asked, relapses=relapses)
        await asyncio.sleep(min(pause, ends - now))
        pause = min(pause * 1.25, _LONGEST_PAUSE_SECONDS)


def judge(answer: JsonAnswer, check: StatusCheck, version: str) -> StatusAnswer:
    """What an answer says about `version`."""
    reported, wrong_version = "", ""
    if check.version and answer.value is not None:
        reported = _plain(http.resolve(answer.value, check.version)) or ""
        if not is_match(check.match, reported, version):
            wrong_version = _wrong_version(check, reported, version)
    unwell = _unwell(answer, check)
    wrong = [text for text in (*unwell[:1], wrong_version, *unwell[1:]) if text]
    if answer.status == 200 and wrong_version:
        return StatusAnswer(Verdict.OTHER_VERSION, "; ".join(wrong), reported)
    if wrong:
        return StatusAnswer(Verdict.UNHEALTHY, "; ".join(wrong), reported)
    proof = f"it reports version {_quoted(reported)}" if check.version else "it answers"
    return StatusAnswer(Verdict.PROVED, f"{proof}, healthy", reported)


def is_match(match: Match, reported: str, version: str) -> bool:
    """Whether the version that a service reports is the revision's.

    prefix: the reported text begins with it, and no number is cut in two: 1.21 is not 1.214.
    regex: the revision's version, as a regular expression, matches all of the reported text.
    """
    if not version or not reported:
        return False
    match match:
        case Match.EXACT:
            return reported == version
        case Match.PREFIX:
            rest = reported.removeprefix(version)
            cuts = rest[:1].isdigit() and re.search(r"(^|[^0-9a-z])v?\d+$", version, re.I)
            return reported.startswith(version) and not cuts
        case Match.REGEX:
            try:
                return re.fullmatch(version, reported[:_SHOWN_CHARACTERS]) is not None
            except re.error:
                return False


def _unwell(answer: JsonAnswer, check: StatusCheck) -> list[str]:
    """What is wrong besides the version; the HTTP status, or "" for 200, comes first."""
    status = "" if answer.status == 200 else f"HTTP {answer.status}"
    if 300 <= answer.status < 400:
        status += " (redirects are not followed)"
    unwell = [status]
    if answer.value is not None:
        for pointer, expected in check.healthy:
            found = _plain(http.resolve(answer.value, pointer))
            if found is None:
                unwell.append(f"there is no {pointer} in its answer")
            elif found != expected:
                unwell.append(f"{pointer} is {_quoted(found)}, not {_quoted(expected)}")
    return unwell


def _wrong_version(check: StatusCheck, reported: str, version: str) -> str:
    if not reported:
        return f"there is no version at {check.version} in its answer"
    how = "" if check.match is Match.EXACT else f" (match: {check.match})"
    return f"it reports version {_quoted(reported)}, this revision is {_quoted(version)}{how}"


def _not_proved(
    check: StatusCheck,
    version: str,
    answer: StatusAnswer,
    *,
    unit: str,
    asked: str,
    relapses: int,
) -> AgentError:
    url = http.without_secrets(check.url)
    expected = ["HTTP 200"]
    if check.version:
        expected.append(f"{check.version} {check.match} {_quoted(version)}")
    expected += [f"{pointer} {_quoted(text)}" for pointer, text in check.healthy]
    details = [f"expected: {', '.join(expected)}", f"last answer: {answer.detail}", asked]
    if relapses:
        details.append(
            f"it was right {relapses} times before, and has to stay so for"
            f" {check.stable_for_seconds:g} s"
        )
    return AgentError(
        f"cannot validate {url}: {answer.detail}",
        code=_CODES[answer.verdict],
        details=tuple(details),
        remedy=_remedy(check, version, answer, unit),
        where=url,
    )


def _remedy(check: StatusCheck, version: str, answer: StatusAnswer, unit: str) -> str:
    match answer.verdict:
        case Verdict.FOREIGN:
            return (
                f"See who listens there: ss -ltnp 'sport = :{http.port_of(check.url)}'; where a"
                " proxy is to answer for the unit, say so: `served_by: any`"
            )
        case Verdict.OTHER_VERSION:
            if not version:
                return 'Put release.json into the bundle\'s root: {"version": "1.2.3"}'
            if not answer.reported_version:
                return (
                    "Point `version:` at the field that holds it, or switch it off: `version: off`"
                )
            if unit:
                return f"See that {version} was built into the program that {unit} starts"
            return (
                f"See that ApplicationStart replaces the old process, and that {version} was built"
                " into the new one"
            )
        case Verdict.UNREACHABLE | Verdict.UNHEALTHY | Verdict.PROVED:
            url = http.without_secrets(check.url)
            log = f": journalctl -u {unit}" if unit else ""
            return f"Read the service's own log{log}, and ask the endpoint: curl -i {url}"


def _plain(value: object) -> str | None:
    """A string, number or truth value as text; None for anything else."""
    if isinstance(value, str):
        return value
    return json.dumps(value) if isinstance(value, bool | int | float) else None


def _quoted(text: str) -> str:
    """On one line, without control characters, of bounded length."""
    return repr(text[:_SHOWN_CHARACTERS])
