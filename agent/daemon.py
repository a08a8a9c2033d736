"""Builds everything once, runs it, and stops it in stages."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aiohttp import web

from agent import __version__, planning
from agent import equipment as equipment_module
from agent.api import Api
from agent.archive import removal
from agent.heartbeat import Heartbeat
from agent.hooks.runner import HookRunner, choose_backend
from agent.lifecycle import AFTERWARDS, LIFECYCLE, RECONFIGURE, Row
from agent.model.deployment import Deployment
from agent.model.errors import AgentError, Code
from agent.model.messages import Message
from agent.model.release import Layout
from agent.model.settings import Settings, SourceType
from agent.poller import Poller, Source
from agent.queue import DeploymentQueue
from agent.sources.bundles import Bundles, Holder
from agent.sources.directory import DirectorySource
from agent.sources.groups import HostGroup
from agent.sources.keys import Keys
from agent.status import StatusView
from agent.store.installed import InstalledFiles
from agent.store.serials import Serials
from agent.store.state import State
from agent.system import journal, memory, peer, systemd
from agent.system.cancel import Cancel
from agent.system.http import HttpClient
from agent.system.unix_socket import UnixSocket

if TYPE_CHECKING:
    from agent.consul.adapter import Consul
    from agent.upkeep.keywatch import KeyWatch
    from agent.upkeep.registrations import Registrations

logger = logging.getLogger(__name__)

_TIDY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Options:
    """How the daemon is started. polls: whether sources are asked.

    lifeline: a descriptor; when its other end is closed, what runs is aborted and the agent ends.
    """

    socket: Path
    polls: bool = True
    lifeline: int | None = None


class Daemon:
    """The agent: state, queue, pollers and API of one host."""

    def __init__(
        self,
        settings: Settings,
        options: Options,
        *,
        rows: tuple[Row, ...] = LIFECYCLE,
        afterwards: tuple[Row, ...] = AFTERWARDS,
        reconfigure: tuple[Row, ...] = RECONFIGURE,
    ) -> None:
        self._settings = settings
        self._options = options
        self._layout = Layout(settings.state_dir)
        _make_folders(self._layout, options.socket.parent)
        self._lock = _lock(settings.state_dir)
        _remove_plans(settings.state_dir)
        self._state = State(self._layout.database)
        group = HostGroup(settings)
        keys = Keys(settings.keys_dir)
        self._sources, pointers = _build_sources(settings, keys, group, Serials(self._state))
        self._http = HttpClient()
        host_systemd = _systemd()
        self._equipment = equipment_module.Equipment(
            settings=settings,
            state=self._state,
            installed=InstalledFiles(self._layout.database),
            hooks=HookRunner(
                self._layout,
                settings.hooks,
                choose_backend(settings.hooks, host_systemd),
                _commands_dir(),
                options.socket,
            ),
            http=self._http,
            keys=keys,
            group=group,
            bundles=Bundles(pointers),
            report=self._report,
            systemd=host_systemd,
            consul=_consul(settings),
            rows=rows,
            afterwards=afterwards,
            reconfigure=reconfigure,
        )
        self._stop = asyncio.Event()
        self._last_wait: asyncio.Task[None] | None = None

    async def _report(self, deployment: Deployment) -> None:
        for source in self._sources:
            await source.report(deployment)

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stop() is called, or state cannot be written any more."""
        queue = DeploymentQueue(self._equipment)
        pollers = [
            Poller(source, self._state, queue) for source in self._sources if self._options.polls
        ]
        registrations, keys = self._follow_consul(queue)
        status = StatusView(self._equipment, queue, pollers, registrations, keys)
        api = Api(self._equipment, queue, status, registrations)
        runner = web.AppRunner(api.application())
        await runner.setup()
        assert runner.server is not None
        # the lock says that no other agent listens here
        server = UnixSocket(self._options.socket, peer.Door(runner.server).protocol)
        await server.listen()
        logger.info(
            "deploy-agent %s is ready: socket %s, state %s",
            __version__,
            self._options.socket,
            self._settings.state_dir,
            extra={"fields": {"MESSAGE_ID": Message.AGENT_STARTED}},
        )
        journal.notify(READY="1")
        memory.spare_the_collector()
        loop = asyncio.get_running_loop()
        if self._options.lifeline is not None:
            loop.add_reader(self._options.lifeline, self._cut, queue)
        work = asyncio.create_task(queue.run())
        beside = [asyncio.create_task(each.run()) for each in pollers]
        beside.append(asyncio.create_task(Heartbeat(queue, pollers, server).run()))
        beside += [
            asyncio.create_task(each.run()) for each in (registrations, keys) if each is not None
        ]
        stopped = asyncio.create_task(self._stop.wait())
        try:
            # neither queue nor pollers end by themselves: without one of them there is no agent
            await asyncio.wait({work, stopped, *beside}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._say_stopping()
            died = [each for each in beside if each.done()]
            for task in (*beside, stopped):
                task.cancel()
            await asyncio.gather(*beside, stopped, return_exceptions=True)
            await self._stop_work(queue, work)
            server.close()
            await runner.cleanup()
            await self._http.close()
            if self._equipment.consul is not None:
                await self._equipment.consul.close()
            await asyncio.to_thread(self._state.close)
            await asyncio.to_thread(self._options.socket.unlink, missing_ok=True)
            os.close(self._lock)
        for task in (work, *died):
            if not task.cancelled():
                task.result()

    def _follow_consul(
        self, queue: DeploymentQueue
    ) -> tuple[Registrations | None, KeyWatch | None]:
        """What keeps Consul as it should be, and what notices changed keys; with Consul alone."""
        consul = self._equipment.consul
        if consul is None:
            return None, None
        # imported here: with what else is loaded for Consul 1 MB. What deployments need of it is
        # loaded now, as an upgrade may replace it on the disk in the middle of one
        import agent.traffic.control  # noqa: F401
        from agent.upkeep.keywatch import KeyWatch
        from agent.upkeep.registrations import Registrations

        keys = KeyWatch(self._equipment, queue, consul) if self._options.polls else None
        return Registrations(consul, self._equipment, queue), keys

    def _say_stopping(self) -> None:
        logger.info("deploy-agent stops", extra={"fields": {"MESSAGE_ID": Message.AGENT_STOPPING}})
        # TimeoutStopSec= of the unit knows nothing of agent.yaml
        seconds = self._settings.shutdown_seconds + _TIDY_SECONDS
        journal.notify(
            STOPPING="1",
            STATUS="stopping: the step that runs may end",
            EXTEND_TIMEOUT_USEC=str(int(seconds * 1e6)),
        )

    def _cut(self, queue: DeploymentQueue) -> None:
        """The command that this private agent was started for is gone: undo, and end."""
        assert self._options.lifeline is not None
        asyncio.get_running_loop().remove_reader(self._options.lifeline)
        self._last_wait = asyncio.create_task(self._end_when_idle(queue))

    async def _end_when_idle(self, queue: DeploymentQueue) -> None:
        await queue.abort_requested(by="the end of agentctl")
        while not await queue.is_idle():
            await queue.wait_for_change(1.0)
        self.stop()

    async def _stop_work(self, queue: DeploymentQueue, work: asyncio.Task[None]) -> None:
        """Stage one: the row that runs may end. Stage two: it is cut off; recovery takes over.

        A hook that outlives the agent is not waited for.
        """
        queue.stop()
        self._equipment.hooks.leave()
        idle = asyncio.create_task(self._equipment.hooks.wait_until_idle())
        await asyncio.wait(
            {work, idle},
            timeout=self._settings.shutdown_seconds,
            return_when=asyncio.FIRST_COMPLETED,
        )
        idle.cancel()
        if not work.done():
            logger.info("the step that runs is left; recovery goes on at the next start")
            work.cancel()
        await asyncio.wait({work, idle})


def _commands_dir() -> Path:
    """Where the commands for bundles' scripts lie: of the .deb, or of the checkout."""
    installed = Path("/usr/lib/deploy-agent/hooks")
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "hooks"


def _systemd() -> systemd.Systemd | None:
    """The host's systemd, where there is one that this process may command."""
    return systemd.Systemd() if systemd.is_booted() and os.geteuid() == 0 else None


def _consul(settings: Settings) -> Consul | None:
    """The host's Consul agent, where the configuration names one; it is not asked yet."""
    if settings.consul is None:
        return None
    from agent.consul.adapter import Consul  # imported here: 0.5 MB, only where it is used

    return Consul(settings.consul)


def _build_sources(
    settings: Settings, keys: Keys, group: HostGroup, serials: Serials
) -> tuple[list[Source], list[Holder]]:
    """The sources, and those of them whose bundles lie in a store."""
    sources: list[Source] = []
    holders: list[Holder] = []
    for each in settings.sources:
        if each.type is SourceType.DIRECTORY:
            sources.append(DirectorySource(each, keys, group))
            continue
        # imported here: 1 MB that hosts with folders do without
        from agent.sources.gate import Gate
        from agent.sources.pointer import PointerSource

        gate = Gate(keys, seen=serials.seen, remember=serials.remember)
        pointer = PointerSource(each, gate, group)
        sources.append(pointer)
        holders.append(pointer)
    return sources, holders


def _make_folders(layout: Layout, socket_dir: Path) -> None:
    try:
        # hooks of other users must be able to reach their scripts: x, but no r
        for folder, mode in (
            (layout.state_dir, 0o711),
            (layout.bundles, 0o700),
            (layout.releases, 0o711),
            (layout.state_dir / "deployments", 0o711),
            (socket_dir, 0o755),
        ):
            folder.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise AgentError(
            f"cannot make {error.filename}: {error.strerror}",
            code=Code.CONFIG_INVALID,
            remedy="Run as root, or set state_dir and run_dir in agent.yaml to folders of your own",
        ) from error


def _remove_plans(state_dir: Path) -> None:
    """What an agent before this one left of its plans; only who holds the lock may do that."""
    try:
        removal.remove_tree(planning.plans_dir(state_dir), Cancel())
    except OSError as error:
        raise _unwritable(state_dir, error) from error


def _lock(state_dir: Path) -> int:
    """Hold the state folder for this process: two agents on one state would undo each other."""
    try:
        descriptor = os.open(state_dir / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(state_dir, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise AgentError(
            f"cannot use {state_dir}: the agent with pid {owner or '?'} uses it",
            code=Code.STATE_IN_USE,
            remedy="Ask that agent (agentctl without --foreground), or stop it first",
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _unwritable(state_dir: Path, error: OSError) -> AgentError:
    return AgentError(
        f"cannot write to {error.filename or state_dir}: {error.strerror}",
        code=Code.CONFIG_INVALID,
        remedy=f"Make {state_dir} a folder that the agent may write to: agentctl doctor",
    )


async def serve(daemon: Daemon) -> None:
    """Run a daemon until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, daemon.stop)
    await daemon.run()
