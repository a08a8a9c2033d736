"""Measures the agent against plain shell tools: see bench/README.md."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.client import Client
from agent.model.errors import AgentError, Code
from agent.model.settings import POINTER_POLL_SECONDS
from bench import bundles, herd, idle, keys, store

ROOT = Path(__file__).resolve().parent.parent
MEMORY_TARGET_MB = 60.0
IDLE_SECONDS = 60.0
POLL_SECONDS = 2.0  # the default of poll_interval


@dataclass
class Case:
    """One job and its best figures: seconds, and MB of the agent at its peak."""

    name: str
    target: str
    shell: float = float("inf")
    ours: float = float("inf")
    peak: float = 0.0
    notes: list[str] = field(default_factory=list)


class Bench:
    """Runs cases on fresh loop-mounted file systems below `work`."""

    def __init__(self, work: Path, rounds: int) -> None:
        self.work = work
        self.rounds = rounds
        self.mount = work / "disk"
        self.destination = self.mount / "target"

    @contextlib.contextmanager
    def fresh_disk(self) -> Iterator[None]:
        """An empty ext4 with a journal, unmounted at the end."""
        image = self.work / "image"
        with image.open("wb") as file:
            file.truncate(12 * 2**30)
        run("mkfs.ext4", "-q", "-E", "lazy_itable_init=0", str(image))
        self.mount.mkdir(exist_ok=True)
        run("mount", "-o", "loop,noatime", str(image), str(self.mount))
        try:
            yield
        finally:
            run("umount", str(self.mount))
            image.unlink()

    def bundle(self, suffix: str, members: bundles.Members, name: str) -> Path:
        """Make a bundle once; it lies outside the disk until a round copies it in."""
        path = self.work / f"service-{name}.{suffix}"
        if not path.exists():
            (bundles.write_zip if suffix == "zip" else bundles.write_tgz)(path, members)
        return path

    def bring(self, bundle: Path) -> Path:
        """Copy a bundle onto the disk, as an upload would have done before the job begins."""
        target = self.mount / bundle.name
        shutil.copyfile(bundle, target)
        run("sync", "-f", str(target))
        return target

    def time_shell(self, bundle: Path) -> float:
        """sha256sum, unzip or tar, cp -a, sync -f."""
        with self.fresh_disk():
            local = self.bring(bundle)
            folder = self.mount / "unpacked"
            folder.mkdir()
            unpack = ["unzip", "-q", str(local), "-d", str(folder)]
            if bundle.suffix == ".tgz":
                unpack = ["tar", "xzf", str(local), "-C", str(folder)]
            begun = time.perf_counter()
            run("sha256sum", str(local))
            run(*unpack)
            run("cp", "-a", str(folder / "app"), str(self.destination))
            run("sync", "-f", str(self.destination))
            return time.perf_counter() - begun

    def measure(self, case: Case, bundle: Path, *, after: Path | None = None) -> None:
        """Fill a case; `after`: a bundle that is deployed before, and not measured."""
        for _ in range(self.rounds):
            case.shell = min(case.shell, self.time_shell(bundle))
            with self.fresh_disk(), self.agent() as (client, pid):
                if after is not None:
                    deploy(client, self.bring(after))
                view = deploy(client, self.bring(bundle))
                assert view["outcome"] == "succeeded", view
                case.ours = min(case.ours, until_commit(view))
                case.peak = max(case.peak, peak_mb(pid))
                case.notes = [shown_steps(view)]

    def measure_undo(self, case: Case, bundle: Path) -> None:
        """A deployment whose validation fails: seconds of install, and of its undo."""
        best = float("inf")
        for _ in range(self.rounds):
            with self.fresh_disk(), self.agent() as (client, pid):
                view = deploy(client, self.bring(bundle))
                assert view["outcome"] == "rolled_back", view
                step = next(each for each in view["steps"] if each["name"] == "install")
                if step["undo_seconds"] / step["seconds"] < best:
                    best = step["undo_seconds"] / step["seconds"]
                    case.shell, case.ours = step["seconds"], step["undo_seconds"]
                case.peak = max(case.peak, peak_mb(pid))

    def measure_status(self, case: Case, bundle: Path) -> None:
        """`agentctl status` of a host with an application, and the idle interpreter, in turn."""
        with self.fresh_disk(), self.agent() as (client, pid):
            deploy(client, self.bring(bundle))
            agentctl = str(Path(sys.executable).with_name("agentctl"))
            status = [agentctl, "--socket", client.socket_path, "status"]
            idle_times, status_times = [], []
            for _ in range(20):
                idle_times.append(seconds_of(sys.executable, "-c", "pass"))
                status_times.append(seconds_of(*status))
            case.shell = statistics.median(idle_times)
            case.ours = statistics.median(status_times)
            case.peak = peak_mb(pid)

    def measure_idle(self, bundle: Path) -> None:
        """Print what an agent costs whose source desires what is deployed."""
        with self.fresh_disk():
            drop = self.mount / "drop"
            drop.mkdir()
            self.bring(bundle).rename(drop / bundle.name)
            source = f"{{type: directory, path: {drop}, application: service}}"
            with self.agent(f"sources: [{source}]\n") as (client, pid):
                wait_for(lambda: deployed(client), 60.0)
                time.sleep(3 * POLL_SECONDS)
                figures = idle.measure(pid, IDLE_SECONDS, POLL_SECONDS)
        print("i  idle, a directory as source, one application deployed:")
        for name, figure in figures.items():
            print(f"   {figure:8.1f} {name}")

    def measure_fetch(self, case: Case, bundle: Path) -> None:
        """Fetch of a bundle from S3 against curl and sha256sum of the same object."""
        with store.filled(bundle) as (there, key):
            for _ in range(self.rounds):
                with self.fresh_disk():
                    target = self.mount / "fetched"
                    begun = time.perf_counter()
                    run(*store.curl(there, key, target))
                    run("sha256sum", str(target))
                    case.shell = min(case.shell, time.perf_counter() - begun)
                with self.fresh_disk(), self.agent(store.config(there.endpoint)) as (client, pid):
                    wait_for(lambda client=client: deployed(client), 120.0)  # type: ignore[misc]
                    view = client.call("GET", "/v1/deployments/last")["deployment"]
                    step = next(each for each in view["steps"] if each["name"] == "fetch")
                    case.ours = min(case.ours, step["seconds"])
                    case.peak = max(case.peak, peak_mb(pid))

    def measure_polling(self, bundle: Path) -> None:
        """Print what an agent costs that asks a pointer in S3 which does not change."""
        with (
            store.counting(bundle) as (counted, url),
            self.fresh_disk(),
            self.agent(store.config(url)) as (client, pid),
        ):
            wait_for(lambda: deployed(client), 60.0)
            requests = store.count(counted, 2 * IDLE_SECONDS)
            figures = idle.measure(pid, IDLE_SECONDS, POINTER_POLL_SECONDS)
        print("p  idle, a pointer in S3 as source, one application deployed:")
        print(f"   {requests:8.0f} requests an hour")
        for name, figure in figures.items():
            print(f"   {figure:8.1f} {name}")

    @contextlib.contextmanager
    def agent(self, more: str = "") -> Iterator[tuple[Client, int]]:
        """A fresh agent whose state is on the disk. more: lines of its agent.yaml."""
        config = self.work / "agent.yaml"
        config.write_text(f"state_dir: {self.mount}/state\nrun_dir: {self.mount}/run\n{more}")
        argv = [sys.executable, "-m", "agent", "--config", str(config)]
        with (self.work / "agent.log").open("ab") as log:
            process = subprocess.Popen(argv, cwd=ROOT, stdout=log, stderr=log)
        client = Client(f"{self.mount}/run/agent.sock", 30.0)
        try:
            wait_for(lambda: client.request("GET", "/v1/version"), 30.0)
            yield client, process.pid
        finally:
            process.terminate()
            process.wait(60)


def seconds_of(*argv: str) -> float:
    """Wall time of a command."""
    begun = time.perf_counter()
    run(*argv)
    return time.perf_counter() - begun


def run(*argv: str) -> None:
    """Run a command that has to work."""
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)


def wait_for(ask: Callable[[], object], seconds: float) -> None:
    """Ask until there is an answer."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            ask()
        except AgentError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def deployed(client: Client) -> None:
    """Whether the last deployment has ended well; raises AgentError while there is none."""
    view = client.call("GET", "/v1/deployments/last")["deployment"]
    if view["status"] != "done":
        raise AgentError("not yet", code=Code.NOT_FOUND)


def deploy(client: Client, bundle: Path) -> dict[str, Any]:
    """Deploy and wait for the end, prune included."""
    body = {"bundle": str(bundle), "application": "service"}
    deployment_id = client.call("POST", "/v1/deployments", body)["deployment"]["id"]
    for _ in client.stream(f"/v1/deployments/{deployment_id}/events"):
        pass
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        view: dict[str, Any] = client.call("GET", f"/v1/deployments/{deployment_id}")["deployment"]
        if view["status"] in ("done", "failed"):
            return view
        time.sleep(0.05)
    raise TimeoutError(deployment_id)


def until_commit(view: dict[str, Any]) -> float:
    """Seconds from the beginning of fetch to the end of the commit."""
    steps = {step["name"]: step for step in view["steps"]}
    commit = steps["commit"]
    return float(commit["started_at"] + commit["seconds"] - steps["fetch"]["started_at"])


def shown_steps(view: dict[str, Any]) -> str:
    """Where the time went."""
    slow = [step for step in view["steps"] if step["seconds"] >= 0.01]
    return " ".join(f"{step['name']}={step['seconds']:.2f}" for step in slow)


def peak_mb(pid: int) -> float:
    """VmHWM, proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise LookupError("VmHWM")


def measure_printed(bench: Bench, wanted: str) -> None:
    """The cases that are printed as they are, without a ratio."""
    there = bench.destination
    if "i" in wanted:
        print("measuring idle …", file=sys.stderr)
        bench.measure_idle(bench.bundle("zip", bundles.small_service(there), "a"))
    if "h" in wanted:
        print("measuring many agents …", file=sys.stderr)
        herd.measure(bench.work)
    if "p" in wanted:
        print("measuring polling …", file=sys.stderr)
        bench.measure_polling(bench.bundle("zip", bundles.small_service(there), "a"))
    if "k" in wanted:
        print("measuring a changed key of Consul …", file=sys.stderr)
        figures = keys.measure(bench.work)
        print("key:", ", ".join(f"{figure:.0f} {name}" for name, figure in figures.items()))


def measure_all(bench: Bench, wanted: str) -> list[Case]:
    """Every case whose letter is in `wanted`."""
    there = bench.destination
    cases = []

    def case(name: str, target: str) -> Case:
        cases.append(Case(name, target))
        print(f"measuring {name} …", file=sys.stderr)
        return cases[-1]

    if "a" in wanted:
        bundle = bench.bundle("zip", bundles.small_service(there), "a")
        bench.measure(case("a  10 MB binary and hooks, zip", "+0.3 s"), bundle)
    measure_printed(bench, wanted)
    if "f" in wanted:
        big = bench.work / "service-f.zip"
        bundles.write_zip(big, bundles.one_big_file(there), kind=zipfile.ZIP_STORED)
        bench.measure_fetch(case("f  fetch of 1 GB from S3", "1.3"), big)
        big.unlink()
    if "s" in wanted:
        bundle = bench.bundle("zip", bundles.small_service(there), "a")
        bench.measure_status(case("s  agentctl status", "5"), bundle)
    for suffix in ("zip", "tgz"):
        first = bench.bundle(suffix, bundles.many_files(there), "b")
        if "b" in wanted:
            bench.measure(case(f"b  50,000 files, {suffix}", "0.9"), first)
            broken = bundles.many_files(there, hooks=("ValidateService",))
            bench.measure_undo(
                case(f"   undo of its install, {suffix}", "0.5"),
                bench.bundle(suffix, broken, "u"),
            )
        if "c" in wanted:
            big = bench.bundle(suffix, bundles.one_big_file(there), "c")
            bench.measure(case(f"c  one file of 1 GB, {suffix}", "0.9"), big)
            big.unlink()
        if "d" in wanted:
            second = bench.bundle(suffix, bundles.many_files(there, changed=True), "d")
            bench.measure(case(f"d  b with 1 % changed, {suffix}", "0.3"), second, after=first)
    return cases


def show(cases: list[Case]) -> bool:
    """Print the table; whether every target was met."""
    print(f"{'case':34} {'ratio':>7} {'target':>7} {'peak MB':>8}   where the time went")
    met = True
    for case in cases:
        if case.target.startswith("+"):
            figure, shown = case.ours - case.shell, f"{case.ours - case.shell:+.2f} s"
            good = figure <= float(case.target[1:].split()[0])
        else:
            figure = case.ours / case.shell
            shown, good = f"{figure:.2f}", figure <= float(case.target)
        good = good and case.peak <= MEMORY_TARGET_MB
        met = met and good
        verdict = "" if good else "  MISSED"
        notes = " ".join(case.notes)
        print(f"{case.name:34} {shown:>7} {case.target:>7} {case.peak:8.1f}   {notes}{verdict}")
    return met


def main() -> int:
    """Measure, print, and say by the exit code whether the targets were met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="aishpfkbcd", help="letters of the cases to measure")
    args = parser.parse_args()
    if os.geteuid() != 0:
        print("make bench needs root: it mounts loop file systems", file=sys.stderr)
        return 2
    base = "/dev/shm" if shutil.disk_usage("/dev/shm").free > 12 * 2**30 else "/var/tmp"
    work = Path(tempfile.mkdtemp(prefix="deploy-agent-bench-", dir=base))
    try:
        return 0 if show(measure_all(Bench(work, args.rounds), args.cases)) else 1
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    sys.exit(main())
