"""The applications: what serves, what is refused, and what needs a person."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator

from agent.doctor import finding
from agent.doctor import state as state_subject
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.formats import appspec as appspec_format
from agent.model.appspec import AppSpec
from agent.model.deployment import Current, Deployment, Outcome
from agent.model.errors import AgentError
from agent.store import inspection
from agent.store.state import State
from agent.system import systemd, users
from agent.system.process import SEARCH_PATH
from agent.system.systemd import NotAtBoot, Systemd


def look(host: Host) -> Iterator[Finding]:
    """The hold, what has not ended, then each application."""
    database = host.layout.database
    try:
        if not database.exists():
            yield finding.ok("none was deployed yet")
            return
        with inspection.open_copy(database, in_use=host.agent_pid() is not None) as state:
            yield from _look_at_deployments(host, state)
            for name in state.applications():
                yield from _look_at(host, state, name)
    except AgentError as error:
        yield state_subject.unreadable(host, error)


def _look_at_deployments(host: Host, state: State) -> Iterator[Finding]:
    hold = state.hold()
    if hold is not None:
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(hold.since))
        text = f"{hold.by} holds deployments since {since}: {hold.reason}"
        yield finding.warning(text, "Let them begin again: agentctl unhold")
    for each in state.unfinished() if host.agent_pid() is None else ():
        yield finding.problem(
            f"{_named(each)} has not ended, and no agent runs that could go on with it",
            "Start the agent, which resumes or undoes it: systemctl start deploy-agent",
        )


def _look_at(host: Host, state: State, name: str) -> Iterator[Finding]:
    current = state.current(name)
    known = state.deployments(name, 50)
    last = next((each for each in known if each.outcome is not None and each.ended_at), None)
    if last is not None and last.outcome is Outcome.INCONSISTENT:
        yield finding.problem(
            f"{name}: the undo of {_named(last)} failed, and left this host in between",
            f"See what is left: agentctl logs {last.id}; then deploy again: agentctl retry {name}",
        )
    quarantined = state.quarantined(name)
    if quarantined:
        newest = quarantined[0]
        # retry takes the newest deployment alone
        is_last = last is not None and last.revision.digest == newest.digest
        again = f"agentctl retry {name}" if is_last else "agentctl deploy --force BUNDLE"
        yield finding.warning(
            f"{name} {newest.version} is refused, as it was undone here: {newest.cause}",
            f"See why: agentctl logs {newest.deployment_id}; then try again: {again}",
        )
    if current is not None:
        yield from _look_at_current(host, name, current)
    elif last is not None and last.outcome is not Outcome.INCONSISTENT:
        yield finding.ok(f"{name}: nothing is deployed")


def _look_at_current(host: Host, name: str, current: Current) -> Iterator[Finding]:
    tree = host.layout.releases / current.release
    try:
        appspec, _ = appspec_format.load_appspec(tree)
    except AgentError as error:
        yield finding.problem(
            f"{name}: the release of {current.revision.version} is not whole: {error.message}",
            f"Deploy it anew: agentctl deploy --force {current.revision.bundle}",
        )
        return
    for off in _not_at_boot(host, appspec):
        yield finding.warning(f"{name} {current.revision.version}: {off.cause}", off.remedy)
    missing = [*_missing_users(appspec), *_missing_commands(appspec)]
    for text, remedy in missing:
        yield finding.problem(f"{name} {current.revision.version}: {text}", remedy)
    if not missing:
        yield finding.ok(f"{name} {current.revision.version} is deployed")


def _not_at_boot(host: Host, appspec: AppSpec) -> list[NotAtBoot]:
    """Which of its units the agent has enabled, and somebody has not left so."""
    units = [each.unit for each in appspec.services if each.unit]
    if not (units and host.is_system and systemd.is_booted()):
        return []

    async def enablements() -> list[str]:
        return await asyncio.gather(*map(Systemd().enablement, units))

    try:
        found = zip(units, asyncio.run(enablements()), strict=True)
    except AgentError:
        return []  # whether systemd answers is told beside
    return [off for each in found if (off := systemd.not_at_boot(*each)) is not None]


def _missing_users(appspec: AppSpec) -> Iterator[tuple[str, str]]:
    hooks = [hook for hooks in appspec.hooks.values() for hook in hooks]
    for name in dict.fromkeys(hook.runas for hook in hooks if hook.runas):
        try:
            users.find_account(name)
        except AgentError as error:
            yield f"its hooks run as {name}: {error.message}", error.remedy


def _missing_commands(appspec: AppSpec) -> Iterator[tuple[str, str]]:
    needed = []
    if any(each.acls for each in appspec.permissions):
        needed.append(("setfacl", "apt-get install acl"))
    if any(each.context for each in appspec.permissions):
        needed.append(("semanage", "apt-get install policycoreutils-python-utils"))
    for command, install in needed:
        if shutil.which(command, path=SEARCH_PATH) is None:
            yield f"its permissions need {command}, which is not here", f"Install it: {install}"


def _named(deployment: Deployment) -> str:
    revision = deployment.revision
    return f"{revision.application} {revision.version} ({deployment.id})"
