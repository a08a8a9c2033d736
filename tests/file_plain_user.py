"""Plans and installs as the user nobody (python -m tests.file_plain_user BASE), for a test."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from agent.model.appspec import Permission
from agent.model.deployment import Revision
from tests.file_host import FileHost

NOBODY = 65534


def main() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    host = FileHost(Path(sys.argv[1]), is_new=False)
    release = host.layout.release("v1", Revision("app", "default", "v1", "", digest="v1"))
    rules = (Permission(object=str(host.host / "app"), owner="root", group="root"),)
    for_root = host.deployment("d-1", release, permissions=rules)
    print(len(for_root.findings("problem")))
    elsewhere = host.deployment("d-2", release, files=(("", host.host / "theirs"),))
    print(len(elsewhere.findings("problem")))
    deployed = host.deployment("d-3", release)
    print(len(deployed.findings("problem")))
    deployed.install()
    print((host.host / "app/a").read_text(), (host.host / "app/a").stat().st_nlink)
    deployed.undo()
    print((host.host / "app").exists())


if __name__ == "__main__":
    main()
