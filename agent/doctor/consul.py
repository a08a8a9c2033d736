"""Consul: whether it answers, what the token lacks, and how it sees this host's services."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.consul.adapter import Consul
from agent.doctor import finding
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.formats import appspec as appspec_format
from agent.model.appspec import ConsulService
from agent.model.consul import CheckStatus, LocalAgent, Right, ServiceHealth
from agent.model.errors import AgentError, Code, NotFound
from agent.model.settings import ConsulSettings
from agent.store import inspection
from agent.traffic import definitions, lookup, passing, servers

_CREDENTIALS = Path("/run/credentials/deploy-agent.service")  # systemd.exec(5)
_ANSWER_SECONDS = 2.0
_ALL_SECONDS = 7.0
_MOST_RIGHTS = 64  # what Consul answers at once


@dataclass(slots=True)
class Needs:
    """What the current revisions want of Consul, by application.

    defined: ids of services in files of Consul's directory. prefixes: of keys.
    """

    services: dict[str, list[ConsulService]] = field(default_factory=dict)
    defined: dict[str, tuple[str, ...]] = field(default_factory=dict)
    prefixes: dict[str, None] = field(default_factory=dict)


def look(host: Host) -> Iterator[Finding]:
    """The section of agent.yaml, its token, then what Consul says."""
    settings = host.settings.consul
    if settings is None and host.config_error is not None:
        yield finding.unknown("whether it is used cannot be known without the configuration", "")
        return
    needs = _read_needs(host)
    if settings is None:
        yield from _unused(needs, host)
        return
    if _CREDENTIALS.is_dir():  # what the agent's unit was given, for its name in token_file
        os.environ.setdefault("CREDENTIALS_DIRECTORY", str(_CREDENTIALS))
    yield from _look_at_token(settings)
    yield from asyncio.run(_collect(settings, needs))


def _unused(needs: Needs, host: Host) -> Iterator[Finding]:
    for application, services in needs.services.items():
        names = ", ".join(each.id for each in services)
        yield finding.warning(
            f"{application}: {names} is not registered, as agent.yaml has no section consul",
            f"Add the section to {host.config} (docs/consul.md), and restart the agent",
        )
    if not needs.services:
        yield finding.ok("not used: agent.yaml has no section consul")


def _read_needs(host: Host) -> Needs:
    """Of what can be looked at; of what cannot, that is said of the applications."""
    needs, database = Needs(), host.layout.database
    consul = host.settings.consul
    folder = os.path.realpath(consul.services_dir) if consul else ""
    try:
        if not database.exists():
            return needs
        with inspection.open_copy(database, in_use=host.agent_pid() is not None) as state:
            for application in state.committed():
                current = state.current(application)
                if current is None:
                    continue
                appspec, _ = appspec_format.load_appspec(host.layout.releases / current.release)
                if named := [each.consul for each in appspec.services if each.consul is not None]:
                    needs.services[application] = named
                for each in appspec.services:
                    if each.environment is not None:
                        needs.prefixes[each.environment.prefix] = None
                paths = inspection.installed_paths(state, application)
                inside = [each for each in paths if os.path.dirname(each) == folder]
                if inside:
                    needs.defined[application] = definitions.read_ids(inside)
    except (AgentError, OSError):
        return needs
    return needs


def _look_at_token(settings: ConsulSettings) -> Iterator[Finding]:
    path = settings.token_file
    try:
        is_open = "/" in path and os.stat(path).st_mode & stat.S_IROTH
    except OSError:
        return  # the first question says it
    if is_open:
        yield finding.problem(
            f"everybody may read {path}, which holds Consul's token",
            f"Let root alone read it: chmod 0600 {path}",
        )


async def _collect(settings: ConsulSettings, needs: Needs) -> list[Finding]:
    found: list[Finding] = []
    consul = Consul(settings, patience_seconds=0.1, answer_seconds=_ANSWER_SECONDS)
    try:
        async with asyncio.timeout(_ALL_SECONDS):
            async for each in _ask(consul, settings, needs):
                found.append(each)  # noqa: PERF401 - what was found before an error counts
    except AgentError as error:
        found.append(_failed(error))
    except TimeoutError:
        text = f"{settings.address}: no answer within {_ALL_SECONDS:g} s"
        found.append(finding.problem(text, "See how it is: systemctl status consul"))
    finally:
        await consul.close()
    return found


def _failed(error: AgentError) -> Finding:
    if isinstance(error.__cause__, PermissionError) and os.geteuid() != 0:
        return finding.unknown(error.message)
    said = f" ({'; '.join(error.details)})" if error.details else ""
    return finding.problem(f"{error.message}{said}", error.remedy)


async def _ask(consul: Consul, settings: ConsulSettings, needs: Needs) -> AsyncIterator[Finding]:
    try:
        agent = await consul.read_self()
    except AgentError as error:
        yield _failed(error)
        is_known = settings.token_file and "does not know the token" not in error.message
        if error.code is not Code.CONSUL_DENIED or not is_known:
            return
        agent = None
    if agent is not None:
        kind = "server" if agent.is_server else "client"
        yield finding.ok(
            f"{settings.address} answers: Consul {agent.version}, the {kind} {agent.host} of"
            f" {agent.datacenter}"
        )
        if agent.keeps is False:
            yield finding.warning(
                "it has no data_dir: a restart or a reload of it lets a service that is in"
                " maintenance into traffic",
                "Set data_dir in its configuration, and do not start it with -dev",
            )
    if not await consul.leader():
        yield finding.problem(
            "its servers have no leader: keys, locks and other hosts' health are out of reach",
            "See how they are: consul operator raft list-peers",
        )
        return
    async for each in _look_at_rights(consul, settings, needs, agent):
        yield each
    async for each in _look_at_keys(consul, settings):
        yield each
    for application in {**needs.services, **needs.defined}:
        async for each in _look_at_services(consul, needs, application, agent):
            yield each


async def _look_at_rights(
    consul: Consul, settings: ConsulSettings, needs: Needs, agent: LocalAgent | None
) -> AsyncIterator[Finding]:
    """Asked for this host; the remedies are the lines that the documentation has."""
    whose = f"the token in {settings.token_file}" if settings.token_file else "an agent without one"
    wanted = _wanted_rights(settings, needs, "" if agent is None else agent.host)
    try:
        missing = await consul.missing_rights(list(wanted)[:_MOST_RIGHTS])
    except NotFound:
        yield finding.unknown("this Consul does not say what the token may do", "")
        return
    for right in missing:
        rule, what = wanted[right]
        is_of_locks = right in (_locks(settings), _sessions(right.name))
        tell = finding.warning if is_of_locks else finding.problem
        yield tell(f"{whose} may not {what}", f"Add to the policy of its token: {rule}")
    if not missing:
        yield finding.ok(f"{whose} may do all that this host needs")


def _wanted_rights(
    settings: ConsulSettings, needs: Needs, host: str
) -> dict[Right, tuple[str, str]]:
    """Each with the rule that gives it, and what it is for."""
    wanted = {}
    for each in (service.name for named in needs.services.values() for service in named):
        rule = f'service "{each}" {{ policy = "write" }}'
        what = f"register {each} or take it out of traffic"
        wanted[Right("service", each, "write")] = (rule, what)
    wanted[Right("node", host, "read")] = (
        'node_prefix "" { policy = "read" }',
        "see the health of services",
    )
    for prefix in (each.strip("/") + "/" for each in needs.prefixes):
        rule = f'key_prefix "{prefix}" {{ policy = "read" }}'
        wanted[Right("key", prefix, "read")] = (rule, f"read the environment below {prefix}")
    own = _locks(settings)
    wanted[own] = (
        f'key_prefix "{own.name}" {{ policy = "write" }}',
        f"write the keys of locks, below {own.name}",
    )
    wanted[_sessions(host)] = (
        'session_prefix "" { policy = "write" }',
        "hold locks, which run-once needs",
    )
    if any(needs.defined.values()):
        wanted[Right("agent", host, "write")] = (
            'agent_prefix "" { policy = "write" }',
            f"reload Consul, which has to read what bundles install in {settings.services_dir}",
        )
    return wanted


def _locks(settings: ConsulSettings) -> Right:
    return Right("key", settings.prefix.strip("/") + "/", "write")


def _sessions(host: str) -> Right:
    return Right("session", host, "write")


async def _look_at_keys(consul: Consul, settings: ConsulSettings) -> AsyncIterator[Finding]:
    """The one question that is asked through python-consul, which may not be installed."""
    try:
        await consul.read_kv(f"{settings.prefix.strip('/')}/doctor")
    except AgentError as error:
        if error.code is not Code.CONSUL_DENIED:  # that is said already
            yield _failed(error)


async def _look_at_services(
    consul: Consul, needs: Needs, application: str, agent: LocalAgent | None
) -> AsyncIterator[Finding]:
    named = needs.services.get(application, [])
    ids = needs.defined.get(application, ())
    here = await lookup.find(consul, application, named, ids)
    known = {*(each.id for each in here.values()), *(each.name for each in here.values())}
    for name in (*(each.id for each in named), *ids):
        if name not in known:
            yield finding.problem(
                f"{application}: {name} is not registered",
                "See why: agentctl status, and journalctl -u deploy-agent -p warning",
            )
    for each in here.values():
        host = each.host if agent is None else agent.host
        yield _compare(application, each, await servers.seen_by(consul, each, host))


def _compare(application: str, here: ServiceHealth, there: ServiceHealth | None) -> Finding:
    """As the local agent has it, and as its servers tell everybody else."""
    if there is None or there.status is not here.status:
        seen = f"take it for {there.status}" if there else "do not know it"
        return finding.problem(
            f"{application}: {here.id} is {here.status} on this host, and Consul's servers {seen}",
            "See why: journalctl -u consul | grep -i -e acl -e sync; a definition in a file needs a"
            " token of its own",
        )
    if here.maintenance is not None:
        return finding.ok(f"{application}: {here.id} is out of traffic: {here.maintenance}")
    if here.status is CheckStatus.PASSING:
        return finding.ok(f"{application}: {here.id} is registered, and passing")
    return finding.warning(
        f"{application}: {here.id} is {here.status}: {'; '.join(passing.failing_checks(here))}",
        "See what its check asks, and whether the service answers it: agentctl status",
    )
