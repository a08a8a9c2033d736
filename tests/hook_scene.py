"""A release with scripts, and a HookRunner to run them; also as a program that may be killed.

As a program: python -m tests.hook_scene BACKEND BASE LOCATION… runs the scripts of BASE/tree one
after the other in one ApplicationStart, and prints the code of the error that ended it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent.hooks import cgroup
from agent.hooks.backend import HookBackend
from agent.hooks.cgroup import CgroupBackend
from agent.hooks.group import GroupBackend
from agent.hooks.runner import HookRunner
from agent.hooks.scene import BundleFacts, HookScene
from agent.hooks.transient import TransientBackend
from agent.model.appspec import Hook, LifecycleEvent
from agent.model.errors import AgentError
from agent.model.release import Layout
from agent.model.settings import HookSettings
from agent.system import systemd
from agent.system.cancel import Cancel
from agent.system.deployment_log import DeploymentLog

START = LifecycleEvent.APPLICATION_START
COMMANDS = Path(__file__).resolve().parent.parent / "hooks"
_CGROUPS = cgroup.find_parent()
_HAS_SYSTEMD = systemd.is_booted() and os.geteuid() == 0
DEFAULT_BACKEND = "transient" if _HAS_SYSTEMD else "group"
# what their lines are called in the log: the journal does not tell one from the other
STDOUT, STDERR = ("output", "output") if _HAS_SYSTEMD else ("stdout", "stderr")
BACKENDS = (
    pytest.param("cgroup", marks=pytest.mark.root),
    "group",
    *(("transient",) if _HAS_SYSTEMD else ()),  # elsewhere tests/host has real hosts for it
)

DEAF_DAEMONS = f"""#!{sys.executable}
# two daemons in sessions of their own, deaf to TERM; the second without environment or parent
import os, signal, sys, time
here = sys.argv[1] if len(sys.argv) > 1 else os.environ["RELEASE_DIR"]
def daemon(name):
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with open(f"{{here}}/{{name}}", "w") as file:
        file.write(str(os.getpid()))
    os.closerange(0, 3)
    if name == "bare":
        os.execve("/bin/sleep", ["sleep", "1000"], {{}})
    time.sleep(1000)
daemon("deaf")
daemon("bare")
"""


class Scene:
    """base: state/ and tree/ are made in it."""

    def __init__(self, base: Path, backend: str, **settings: object) -> None:
        self.tree = base / "tree"
        self.layout = Layout(base / "state")
        self.id = f"d-{base.name}"  # tests run side by side: hooks are found by it
        self.work_dir = self.layout.work_dir(self.id)
        for folder in (self.tree, self.work_dir):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        chosen = dataclasses.replace(
            HookSettings(grace_seconds=0.3, retry_seconds=0.05),
            **settings,  # type: ignore[arg-type]
        )
        self.runner = HookRunner(
            self.layout, chosen, make_backend(backend, chosen), COMMANDS, base / "agent.sock"
        )
        self.log = DeploymentLog(self.work_dir / "log")
        self.cancel = Cancel()
        self.facts = HookScene(
            deployment_id=self.id,
            application="shop",
            group="web",
            group_id="g-1",
            tree=self.tree,
            version="1.2",
            previous_version="1.1",
            bundle=BundleFacts(bucket="bundles", key="shop-1.2.zip"),
            log=self.log,
            cancel=self.cancel,
            pass_name="start",
        )

    def script(self, text: str | bytes, location: str = "run.sh", *, mode: int = 0o644) -> str:
        """Put a script into the release."""
        path = self.tree / location
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        path.chmod(mode)
        return location

    async def run(self, text: str | bytes, **options: object) -> None:
        """Run a script as an ApplicationStart hook; options of Hook."""
        await self.run_all([self.script(text)], **options)

    async def run_all(self, locations: Sequence[str], **options: object) -> None:
        """Run scripts that are in the release."""
        hooks = [Hook(START, each, **options) for each in locations]  # type: ignore[arg-type]
        await self.runner.run_event(START, hooks, self.facts)

    async def failure(self, text: str | bytes, **options: object) -> AgentError:
        """The error that a script ends with."""
        try:
            await self.run(text, **options)
        except AgentError as error:
            return error
        raise AssertionError("the hook did not fail")

    def read_log(self) -> str:
        """The deployment's log."""
        return self.log.path.read_text()

    def pid(self, name: str) -> int:
        """A pid that a script wrote into a file of the release; 0 while it has not."""
        try:
            return int((self.tree / name).read_text())
        except (FileNotFoundError, ValueError):
            return 0


def make_backend(name: str, settings: HookSettings) -> HookBackend:
    """By its name: cgroup, group or transient."""
    if name == "group":
        return GroupBackend(grace_seconds=settings.grace_seconds)
    if name == "transient":
        return TransientBackend(systemd.Systemd(), settings)
    if _CGROUPS is None:
        pytest.skip("no cgroup2 to write to: not shown is that a hook's whole cgroup ends with it")
    return CgroupBackend(_CGROUPS, grace_seconds=settings.grace_seconds)


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def main() -> None:
    """Run as a program."""
    backend, base, *locations = sys.argv[1:]
    scene = Scene(Path(base), backend)
    runas = ""
    if locations[0].startswith("--runas="):
        runas = locations.pop(0).removeprefix("--runas=")
    try:
        asyncio.run(scene.run_all(locations, runas=runas))
    except AgentError as error:
        print(error.code, error.message)


if __name__ == "__main__":
    main()
