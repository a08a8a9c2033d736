"""Kills installs and undos at random moments, then undoes, and compares the whole tree.

Run as a program of its own (python -m tests.file_kills BASE SEED ROUNDS), so that it has one
thread and can fork. Ends with an error at the first round that did not end as it began.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from agent.model.appspec import FileExistsBehavior, Permission
from tests.file_host import Deployed, File, FileHost, Link
from tests.trees import fingerprint


def prepare(host: FileHost) -> Deployed:
    """Version 1 committed, and a plan for version 2 in which everything happens that can."""
    one = {f"same/{n}": f"s{n}" for n in range(10)} | {f"changed/{n}": "1" for n in range(10)}
    one |= {f"gone/deep/{n}": "g" for n in range(10)}
    one |= {"to-file/a": "a", "to-file/b/c": "c", "to-folder": "f", "link": Link("same/1")}
    one |= {"link-to-file": Link("same/2"), "bin/run": File("#!/bin/sh", 0o755)}
    two = {f"same/{n}": f"s{n}" for n in range(10)} | {f"changed/{n}": "2" for n in range(10)}
    two |= {f"new/{d}/{n}": "n" for d in range(4) for n in range(5)} | {"foreign": "ours"}
    two |= {"to-file": "f", "to-folder/a": "a", "link": Link("same/3"), "link-to-file": "x"}
    two |= {"bin/run": File("#!/bin/bash", 0o755), "copied/a": "a", "copied/b": "b" * 100_000}
    current = host.release("v1", one)
    host.deploy("d-1", current)
    app = host.host / "app"
    (app / "foreign").write_text("theirs")
    (app / "gone" / "not ours").write_text("stays")
    (app / "changed" / "3").write_text("edited on the host")
    os.link(app / "foreign", app / "foreign-too")
    rules = (
        Permission(object=str(app / "copied"), mode=0o666),
        Permission(object=str(app / "same"), types=("directory",), mode=0o700),
        Permission(object=str(app), pattern="same", types=("directory",), mode=0o700),
    )
    return host.deployment(
        "d-2",
        host.release("v2", two),
        current=current,
        permissions=rules,
        file_exists_behavior=FileExistsBehavior.OVERWRITE,
    )


def in_child(work: Callable[[], object], kill_after: float | None) -> None:
    """Do the work in a process of its own, and SIGKILL that after some seconds."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - a forked child must not go on
            os.write(2, f"child: {error!r} {getattr(error, 'details', ())}\n".encode())
            os._exit(1)
        os._exit(0)
    descriptor = os.pidfd_open(child)

    def kill(_signal: int, _frame: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, kill_after or 0)
    _, status = os.waitpid(child, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    # a late alarm's handler runs here at the latest, not when the descriptor is closed
    signal.signal(signal.SIGALRM, signal.SIG_IGN)
    os.close(descriptor)
    if kill_after is None and status != 0:
        raise SystemExit(f"the work failed: {status}")


def seconds(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    in_child(work, None)
    return time.monotonic() - begun


def differences(before: dict[str, object], after: dict[str, object]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [n for n in names if before.get(n) != after.get(n)]


def main() -> None:
    base, seed, rounds = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    host = FileHost(base)
    deployed = prepare(host)
    before = fingerprint(host.host)
    installing, undoing = seconds(deployed.install), seconds(deployed.undo)
    for number in range(rounds):
        in_child(deployed.install, chance.uniform(0, installing * 1.2))
        if chance.random() < 0.6:
            in_child(deployed.undo, chance.uniform(0, undoing * 1.2))
        in_child(deployed.undo, None)
        if wrong := differences(before, fingerprint(host.host)):
            raise SystemExit(f"after round {number}, not as before: {', '.join(wrong[:10])}")
    print(f"{rounds} rounds, install {installing:.3f} s, undo {undoing:.3f} s")


if __name__ == "__main__":
    main()
