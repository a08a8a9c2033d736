"""The agent's state: whose it is, whether its database is whole and of a level that is known."""

from __future__ import annotations

from collections.abc import Iterator

from agent.doctor import finding, writers
from agent.doctor.finding import Finding
from agent.doctor.host import Host
from agent.model.errors import AgentError, Code
from agent.store import inspection


def look(host: Host) -> Iterator[Finding]:
    """The folder, then the database."""
    folder, database = host.settings.state_dir, host.layout.database
    if not folder.exists():
        yield finding.ok(f"there is no {folder} yet: the agent makes it at its first start")
        return
    found = writers.find_writers(folder, (host.agent_uid(),))
    if found:
        yield finding.problem(
            f"{' and '.join(map(str, found))} may change what lies in {folder}",
            f"Give it to the agent alone: chmod go-w {found[0].place}",
        )
    try:
        if not database.exists():
            yield finding.ok(f"there is no {database} yet")
            return
        pid = host.agent_pid()
        with inspection.open_copy(database, in_use=pid is not None) as state:
            count = len(state.deployments())
        user = "no agent uses it" if pid is None else f"pid {pid or '?'} uses it"
        yield finding.ok(f"{database} is whole, and knows {count} deployments; {user}")
    except AgentError as error:
        yield unreadable(host, error)


def unreadable(host: Host, error: AgentError) -> Finding:
    """What to say where the state cannot be looked at."""
    if not host.is_root and error.code in (Code.NOT_PERMITTED, Code.CONFIG_INVALID):
        return finding.unknown(f"{host.layout.database} may not be read")
    return finding.problem(error.message, error.remedy)
