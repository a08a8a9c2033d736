"""Whether an answer came from a unit's own processes, and not from somebody else on its port.

It is asked of the listening sockets, not of the connection that was answered: a server may close
that before anybody has looked, while the sockets stay. Every socket that may have got the
connection must be held by a process of the unit; that others share it (systemd, with socket
activation) is fine. Where traffic is redirected to another port or namespace, no socket is found,
and the answer does not count.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

from agent.model.appspec import ServedBy, Service
from agent.model.errors import AgentError
from agent.system import cgroups, listeners, processes
from agent.system.processes import Process
from agent.system.systemd import Systemd

_ASK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Owner:
    """Who has to answer. pids: the unit's processes at this moment.

    since: they were started then or later, in ticks since boot; 0 for whenever.
    """

    unit: str
    pids: Callable[[], Awaitable[Collection[int]]]
    since: int = 0


def owner_of(service: Service, systemd: Systemd | None, *, since: float = 0.0) -> Owner | None:
    """Who has to answer for a service; None where that is not asked for.

    since: Unix seconds; only processes started after it count.
    """
    status = service.status
    if systemd is None or not service.unit or status is None or status.served_by is ServedBy.ANY:
        return None

    async def pids() -> list[int]:
        state = await systemd.state(service.unit)
        return await asyncio.to_thread(_group_pids, state.cgroup)

    return Owner(service.unit, pids, processes.ticks_at(since) if since else 0)


async def find_stranger(owner: Owner, peer: tuple[str, int] | None) -> str:
    """Why an answer of this address and port is not the owner's; "" where it is.

    The reason is the end of a sentence: "the answer came from …".
    """
    if peer is None:
        return "somebody unknown: the connection was gone"
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            pids = await owner.pids()
    except (AgentError, TimeoutError) as error:
        cause = error.message if isinstance(error, AgentError) else "systemd does not answer"
        return f"a process that may be of {owner.unit} or not: {cause}"
    return await asyncio.to_thread(_find_stranger, owner, frozenset(pids), *peer)


def _find_stranger(owner: Owner, pids: frozenset[int], host: str, port: int) -> str:
    address = listeners.plain(ipaddress.ip_address(host.partition("%")[0]))
    if not listeners.is_local(address):
        return f"{address}, which is no address of this host, so not from {owner.unit}"
    found = listeners.choose_answering(listeners.read_listeners(), address, port)
    inodes = {each.inode for each in found}
    if not inodes:
        return f"nobody who listens on port {port} of this host: it was passed on, or has ended"
    unheld = set(inodes)
    for process in processes.read_processes(pids):
        held = listeners.held_by(process.pid, inodes)
        if held and process.start < owner.since:
            name = _named(process)
            return f"{name} of {owner.unit}, which was not started by this deployment"
        unheld -= held
    return _strangers(unheld, owner.unit) if unheld else ""


def _strangers(inodes: Collection[int], unit: str) -> str:
    holders = processes.read_processes(listeners.find_holders(inodes))
    if not holders:
        return f"a process that is not to be found, so not from {unit}"
    names = " and ".join(_named(each) for each in holders[:3])
    return f"{names}, which is not of {unit}"


def _named(process: Process) -> str:
    return f"pid {process.pid} ({processes.command_line(process)})"


def _group_pids(path: str) -> list[int]:
    folder = cgroups.unit_folder(path)
    return [] if folder is None else cgroups.read_pids(folder)
