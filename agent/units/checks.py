"""What can be known of a revision's units before anything is touched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.files import planfile
from agent.model.appspec import AppSpec, LifecycleEvent
from agent.system.cancel import Cancel
from agent.system.systemd import Systemd, UnitState
from agent.system.threads import run_blocking
from agent.units import control, unitfiles, verify
from agent.units.unitfiles import Role, UnitFile
from agent.units.verify import Finding, Kind

_INSTALLING = (LifecycleEvent.BEFORE_INSTALL, LifecycleEvent.AFTER_INSTALL)


@dataclass(frozen=True, slots=True)
class Request:
    """What is checked. appspec: of the new revision; its plan is made.

    old_units: those of the current revision. tree: the new release. work_dir: of the deployment.
    """

    appspec: AppSpec
    old_units: tuple[str, ...]
    tree: Path
    work_dir: Path

    @property
    def units(self) -> tuple[str, ...]:
        """Those of the new revision."""
        return tuple(each.unit for each in control.with_units(self.appspec))

    @property
    def plan_path(self) -> Path:
        """Where its plan is."""
        return self.work_dir / planfile.NAME

    @property
    def has_installing_hooks(self) -> bool:
        """Whether hooks may put something in place before the units are started."""
        return any(self.appspec.hooks.get(event) for event in _INSTALLING)


async def check_units(systemd: Systemd | None, request: Request, cancel: Cancel) -> None:
    """Add to the plan what is wrong with the units: problems refuse it. Raises AgentError."""
    if systemd is None:
        named = tuple(dict.fromkeys((*request.units, *request.old_units)))
        if named:
            await run_blocking(
                cancel, _add, request, [("problem", _cannot(each)) for each in named]
            )
        return
    files = await run_blocking(cancel, unitfiles.find_unit_files, request.plan_path)
    states = await systemd.states(request.units)
    found = [("problem", text) for text in _check_places(states, files)]
    if any(file.is_wanted for file in files):
        found += await run_blocking(cancel, _verify, request, files)
    if found:
        await run_blocking(cancel, _add, request, found)


def _cannot(unit: str) -> str:
    return (
        f"cannot manage {unit}: the agent is not root, or systemd is not the init of this host;"
        " leave `unit` out, and start and stop by hooks"
    )


def _check_places(states: Mapping[str, UnitState], files: Sequence[UnitFile]) -> Iterator[str]:
    """What is wrong with the units that are to be started, before their files are looked at."""
    wanted = {file.unit for file in files if file.role is Role.UNIT and file.is_wanted}
    going = {file.path for file in files if file.role is Role.UNIT and not file.source}
    replaced = {file.path for file in files if file.is_wanted}
    for unit, state in states.items():
        is_brought = bool({unit, unitfiles.template_of(unit)} & wanted)
        if state.load == "masked":
            if not replaced & {f"{folder}/{unit}" for folder in unitfiles.FOLDERS[:2]}:
                yield f"{unit} is masked on this host: systemctl unmask {unit}"
        elif is_brought:
            continue
        elif not state.is_known:
            yield f"there is no {unit} on this host, and this revision's files do not bring it"
        elif state.fragment in going:
            yield f"{unit} is named in services, but {state.fragment} is removed by this revision"
        elif state.load != "loaded":
            yield f"systemd cannot load {unit} on this host ({state.load}): systemctl status {unit}"


def _verify(request: Request, files: Sequence[UnitFile]) -> list[tuple[str, str]]:
    scratch = request.work_dir / "verify"
    found = verify.verify(files, request.tree, scratch)
    with planfile.opened(request.plan_path) as plan:
        judged = [
            _judge(each, request, unitfiles.find_program(plan, each.subject)) for each in found
        ]
    return [each for each in judged if each is not None]


def _judge(
    finding: Finding, request: Request, program: unitfiles.Program
) -> tuple[str, str] | None:
    """Whether a finding is a problem or a warning; None: it is neither.

    A program or a unit that is not there yet may come by a hook, but a unit that systemd refuses
    and that the agent is to start is always a problem.
    """
    is_started = finding.unit in {
        name for unit in request.units for name in (unit, unitfiles.template_of(unit))
    }
    late = "warning" if request.has_installing_hooks else "problem"
    match finding.kind:
        case Kind.REFUSED:
            return "problem" if is_started else late, finding.text
        case Kind.NO_PROGRAM:
            if program.is_wanted and program.is_executable:
                return None
            if program.is_wanted:
                text = f"{finding.unit}: {finding.subject} is installed without x permission"
                return late, f"{text}; set a mode in the appspec's permissions"
            return late, f"{finding.unit}: there is no {finding.subject} that can be executed"
        case Kind.NO_UNIT:
            return late if is_started else "warning", finding.text
        case Kind.IGNORED | Kind.OTHER:
            return "warning", finding.text


def _add(request: Request, found: Sequence[tuple[str, str]]) -> None:
    with planfile.opened(request.plan_path) as plan, planfile.transaction(plan):
        for kind, text in found:
            planfile.add_finding(plan, kind, text)
