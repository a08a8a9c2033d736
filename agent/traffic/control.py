"""One deployment's services in Consul: out of traffic, registered anew, proved, and back in.

Each of its calls may be made again. What Consul does not answer, or refuses, is a warning and no
failure: a host must not depend on it, and agent.upkeep.registrations goes on with it later. Only
what Consul says of the service itself counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from agent.model.appspec import ConsulService
from agent.model.consul import ServiceHealth
from agent.model.deployment import Deployment, Revision
from agent.model.errors import AgentError, Code
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog
from agent.system.threads import stop_with
from agent.traffic import lookup, passing, record, registration, servers
from agent.traffic.entries import Entries
from agent.traffic.record import Record

if TYPE_CHECKING:  # 0.5 MB, which only hosts with Consul load
    from agent.consul.adapter import Consul

# the last one: a token or a certificate that cannot be read
_TOLERATED = (
    Code.CONSUL_UNREACHABLE,
    Code.CONSUL_DENIED,
    Code.CONSUL_REFUSED,
    Code.CONFIG_INVALID,
)
_DEFAULT_SECONDS = 60.0  # for the checks of a service that the appspec does not name


class Traffic:
    """drained: why a person keeps the application out of traffic, "" if nobody does."""

    def __init__(
        self,
        consul: Consul,
        deployment: Deployment,
        *,
        work_dir: Path,
        log: DeploymentLog,
        cancel: Cancel,
        drained: str,
    ) -> None:
        self._consul = consul
        self._deployment = deployment
        self._application = deployment.revision.application
        self._reason = registration.deployment_reason(deployment.id, deployment.revision.version)
        self._entries = Entries(
            consul, self._application, reason=self._reason, log=log, drained=drained
        )
        self._work_dir = work_dir
        self._log = log
        self._cancel = cancel
        self._drained = drained

    # the ways of the two rows, and back

    async def leave(self, services: Sequence[ConsulService], ids: Collection[str]) -> str:
        """Take services out of traffic and let them drain; a remark.

        services: of the appspec that they are of. ids: of further ones, which a file defines.
        """
        return await self._tolerate(self._leave(services, ids, is_undo=False))

    async def enter(
        self, services: Sequence[ConsulService], ids: Collection[str], old: Collection[str]
    ) -> str:
        """Register services, wait until their checks pass, let them into traffic; a remark.

        old: ids of the revision that is replaced: what is not wanted any more is deregistered.
        Raises AgentError (CONSUL_CRITICAL) where a check does not pass in time.
        """
        return await self._tolerate(self._enter(services, ids, old))

    async def leave_again(self, services: Sequence[ConsulService], ids: Collection[str]) -> None:
        """Undo of enter: out of traffic; what was not in Consul before goes again."""
        await self._tolerate(self._leave_again(services, ids))

    async def restore(
        self,
        services: Sequence[ConsulService],
        revision: Revision | None,
        *,
        unproved: Collection[str],
        is_serving: bool,
    ) -> None:
        """Undo of leave: registered as before, and in traffic where it was.

        services: of `revision`, which serves again; None where there was none before.
        unproved: ids of those that only their checks can prove, which have to ask them anew.
        is_serving: False keeps all of them out of traffic.
        """
        await self._tolerate(self._restore(services, revision, unproved, is_serving=is_serving))

    async def reload(self) -> str:
        """Let Consul read its configuration directory again; a remark where it could not."""
        return await self._tolerate(self._reload())

    async def _tolerate(self, work: Awaitable[str]) -> str:
        try:
            return await work
        except AgentError as error:
            if error.code not in _TOLERATED:
                raise
            self._log.line(f"warning: {error.message}; it is told later")
            for line in (*error.details, error.remedy):
                self._log.line(f"  {line}")
            return f"{error.line}; going on without it, it is told later"

    # out of traffic

    async def _leave(
        self, services: Sequence[ConsulService], ids: Collection[str], *, is_undo: bool
    ) -> str:
        here = await lookup.find(self._consul, self._application, services, ids)
        out = [
            each
            for each, found in here.items()
            if found.maintenance is None or registration.is_deployments(found.maintenance)
        ]
        known = await self._load()
        if not is_undo:  # which must not depend on room on the disk
            before = known.before or {each: dict(found.meta) for each, found in here.items()}
            await self._change(known, before=before, blocked=_joined(known.blocked, out))
        for each in out:
            await self._entries.maintain(each, self._reason)
        if not out:
            return ""
        drains = known.is_open or not is_undo
        seconds = max((each.drain_seconds for each in services if drains), default=0.0)
        if seconds:
            self._log.line(f"{', '.join(out)}: out of traffic, draining for {seconds:g} s")
            await stop_with(self._cancel, asyncio.sleep(seconds))
        return f"{', '.join(out)}: out of traffic" + (f", drained {seconds:g} s" if seconds else "")

    async def _leave_again(self, services: Sequence[ConsulService], ids: Collection[str]) -> str:
        await self._leave(services, ids, is_undo=True)
        here = await self._consul.services_here()
        for each in (await self._load()).added:
            if each in here and registration.is_of(self._application, here[each]):
                await self._consul.deregister(each)
                self._log.line(f"{each}: deregistered, as it was before")
        return ""

    # into traffic

    async def _enter(
        self, services: Sequence[ConsulService], ids: Collection[str], old: Collection[str]
    ) -> str:
        here = await self._consul.services_here()
        found = await lookup.find(self._consul, self._application, services, [*ids, *old])
        notes, ours = [], []
        for service in services:
            stranger = registration.find_stranger(self._application, service, here.values())
            if stranger is None:
                ours.append(service)
            else:
                notes.append(_stranger_note(service, stranger))
        kept = {*(each.id for each in services), *ids}
        dropped = [
            each
            for each in found
            if each not in kept and registration.is_of(self._application, found[each])
        ]
        known = await self._load()
        new = [each.id for each in ours if each.id not in {*found, *known.registered}]
        known = await self._change(
            known,
            registered=_joined(known.registered, [*(each.id for each in ours), *dropped]),
            added=_joined(known.added, new),
        )
        for service in ours:
            wanted = registration.registration(
                service, self._deployment.revision, self._deployment.id
            )
            await self._entries.register_anew(wanted, here.get(service.id))
        there = await lookup.find(self._consul, self._application, services, ids)
        limits = dict.fromkeys(there, _DEFAULT_SECONDS)
        limits |= {each.id: each.within_seconds for each in services if each.id in there}
        missing = [each for each in ids if each not in there]
        notes += [f"{each}: a file defines it, and Consul does not know it" for each in missing]
        await passing.wait_for_passing(self._consul, limits, log=self._log, cancel=self._cancel)
        notes += await self._open(known, list(limits))
        for each in dropped:
            await self._consul.deregister(each)
            notes.append(f"{each}: deregistered, as this revision has it no more")
        return self._said(notes)

    async def _open(self, known: Record, ids: Iterable[str]) -> list[str]:
        """End the maintenance that deployments began; nobody else's."""
        here = await self._consul.services_here()
        closed = {each: here[each].maintenance for each in ids if each in here}
        closed = {each: reason for each, reason in closed.items() if reason is not None}
        ends = [
            each
            for each, reason in closed.items()
            if not self._drained and (each in known.blocked or registration.is_deployments(reason))
        ]
        await self._change(known, is_open=True)
        for each in ends:
            await self._entries.maintain(each, None)
        left = [each for each in closed if each not in ends]
        notes = [
            f"{each} stays out of traffic: {closed[each] or 'no reason given'}" for each in left
        ]
        taking = [each for each in here.values() if each.id in ids and each.id not in left]
        untold = await servers.find_untold(self._consul, taking, self._cancel)
        if names := ", ".join(each.id for each in taking if each.id not in untold):
            notes.insert(0, f"{names}: passing in Consul, takes traffic")
        return [*(f"warning: {each}" for each in untold.values()), *notes]

    # back

    async def _restore(
        self,
        services: Sequence[ConsulService],
        revision: Revision | None,
        unproved: Collection[str],
        *,
        is_serving: bool,
    ) -> str:
        known = await self._load()
        if revision is not None:
            await self._entries.register_before(services, revision, known, unproved)
        if self._drained:
            return ""
        here = await self._consul.services_here()
        mine = registration.deployment_reason(self._deployment.id, "")
        again = [each for each, found in here.items() if (found.maintenance or "").startswith(mine)]
        for each in _joined(known.blocked, again):
            if is_serving:
                await self._entries.maintain(each, None)
                self._log.line(f"{each}: takes traffic again")
                continue
            if each in here and here[each].maintenance is None:
                await self._entries.maintain(each, self._reason)
            self._log.line(f"{each}: stays out of traffic, as its start has failed")
        return ""

    async def _reload(self) -> str:
        await self._consul.reload_agent()
        self._log.line("Consul has read its service definitions again")
        return ""

    # what it knows

    async def _load(self) -> Record:
        return await asyncio.to_thread(record.load, self._work_dir)

    async def _change(self, known: Record, **changes: object) -> Record:
        changed = dataclasses.replace(known, **changes)  # type: ignore[arg-type]
        if changed != known:
            await asyncio.to_thread(record.save, self._work_dir, changed)
        return changed

    def _said(self, notes: Iterable[str]) -> str:
        shown = [each for each in notes if each]
        for each in shown:
            self._log.line(each)
        return "; ".join(shown)


def _joined(first: Iterable[str], second: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _stranger_note(service: ConsulService, stranger: ServiceHealth) -> str:
    owner = stranger.meta.get(registration.OWNER)
    by = f"by the application {owner}" if owner else "by somebody else, perhaps in a file"
    return f"{service.id} is registered in Consul {by} (id {stranger.id}): left as it is"
