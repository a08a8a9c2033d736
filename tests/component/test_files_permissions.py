"""The appspec's permissions on what is installed: every rule of AWS's, and clear refusals."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from agent.files import plan
from agent.model.appspec import AclEntry, Permission
from agent.model.errors import AgentError
from agent.system.process import Captured
from tests.file_host import File, FileHost, Link, Tools
from tests.trees import fingerprint

TREE = {"a.txt": "a", "b.sh": "b", "d/c.txt": "c", "d/e/f": "f", "l": Link("a.txt")}
BOB = AclEntry(default=False, kind="user", name="nobody", perms="rw-")
needs_setfacl = pytest.mark.skipif(shutil.which("setfacl") is None, reason="no setfacl here")


@pytest.fixture
def host(state_dir: Path) -> FileHost:
    return FileHost(state_dir)


def modes(host: FileHost) -> dict[str, int]:
    """By path below host/app, of what was given mode 0700 by a permission."""
    app = host.host / "app"
    found = {str(p.relative_to(app)): stat.S_IMODE(p.lstat().st_mode) for p in app.rglob("*")}
    return {name: mode for name, mode in found.items() if mode == 0o700}


@pytest.mark.parametrize(
    ("rule", "meant"),
    [
        ({"object": "app"}, {"a.txt", "b.sh", "d", "d/c.txt", "d/e", "d/e/f"}),
        ({"object": "app", "types": ("file",)}, {"a.txt", "b.sh", "d/c.txt", "d/e/f"}),
        ({"object": "app", "types": ("directory",)}, {"d", "d/e"}),
        ({"object": "app", "pattern": "*.txt"}, {"a.txt"}),
        ({"object": "app", "pattern": "*"}, {"a.txt", "b.sh", "d"}),
        ({"object": "app", "pattern": "[ab].txt"}, set()),
        ({"object": "app", "pattern": "?.txt"}, set()),
        ({"object": "app", "pattern": "*", "excludes": ("*.sh", "d")}, {"a.txt"}),
        ({"object": "app", "excludes": ("*.txt",)}, {"b.sh", "d", "d/c.txt", "d/e", "d/e/f"}),
        ({"object": "app/d/"}, {"d/c.txt", "d/e", "d/e/f"}),
        ({"object": "app/a.txt"}, {"a.txt"}),
        ({"object": "app/a.txt", "types": ("directory",)}, set()),
        ({"object": "app/l"}, set()),
    ],
)
def test_what_is_meant(host: FileHost, rule: dict[str, object], meant: set[str]) -> None:
    permission = Permission(**{**rule, "object": f"{host.host}/{rule['object']}", "mode": 0o700})
    host.deploy("d-1", host.release("v1", TREE), permissions=(permission,))
    assert modes(host).keys() == meant


def test_only_what_the_deployment_installs_is_meant(host: FileHost) -> None:
    (host.host / "app/d").mkdir(parents=True)
    (host.host / "app/theirs").write_text("")
    rule = Permission(object=str(host.host), mode=0o700)
    host.deploy("d-1", host.release("v1", TREE), permissions=(rule,))
    assert modes(host).keys() == {"a.txt", "b.sh", "d/c.txt", "d/e", "d/e/f"}


def test_an_object_below_a_symlink_is_meant_by_its_name(host: FileHost) -> None:
    (host.host / "real").mkdir()
    (host.host / "app").symlink_to("real")
    rule = Permission(object=str(host.host / "app"), mode=0o700)
    host.deploy("d-1", host.release("v1", {"d/a": "a"}), permissions=(rule,))
    assert modes(host).keys() == {"d", "d/a"}


def test_one_path_meant_twice_is_refused(host: FileHost) -> None:
    rules = (
        Permission(object=str(host.host), mode=0o700),
        Permission(object=str(host.host / "app"), pattern="*.txt", mode=0o600),
    )
    deployed = host.deployment("d-1", host.release("v1", TREE), permissions=rules)
    assert [p for p, _, _ in deployed.findings("problem")] == [str(host.host / "app/a.txt")]


@pytest.mark.parametrize("extra", [{"pattern": "*"}, {"excludes": ("x",)}])
def test_a_file_has_no_pattern(host: FileHost, extra: dict[str, object]) -> None:
    rule = Permission(object=str(host.host / "app/a.txt"), mode=0o700, **extra)
    deployed = host.deployment("d-1", host.release("v1", TREE), permissions=(rule,))
    assert len(deployed.findings("problem")) == 1


def test_a_permission_that_meets_nothing_is_warned_of(host: FileHost) -> None:
    rule = Permission(object=str(host.host / "elsewhere"), mode=0o700)
    deployed = host.deployment("d-1", host.release("v1", TREE), permissions=(rule,))
    assert [p for p, _, _ in deployed.findings("warning")] == [str(host.host / "elsewhere")]


def test_users_and_groups_that_do_not_exist(host: FileHost) -> None:
    rules = (
        Permission(object=str(host.host / "app/a.txt"), owner="no-such-user"),
        Permission(object=str(host.host / "app/b.sh"), group="no-such-group"),
    )
    deployed = host.deployment("d-1", host.release("v1", TREE), permissions=rules)
    with pytest.raises(AgentError) as caught:
        plan.refuse(deployed.path)
    assert ["no-such-user" in d or "no-such-group" in d for d in caught.value.details] == [True] * 2


@pytest.mark.root
def test_owner_group_and_set_id_bits(host: FileHost) -> None:
    rule = Permission(object=str(host.host / "app"), owner="nobody", group="daemon", mode=0o4750)
    release = host.release("v1", {"a": "a", "d/b": "b"})
    before = fingerprint(host.host)
    deployed = host.deployment("d-1", release, permissions=(rule,))
    deployed.install()
    for name in ("a", "d", "d/b"):
        path = host.host / "app" / name
        assert (path.owner(), path.group()) == ("nobody", "daemon")
        assert stat.S_IMODE(path.stat().st_mode) == 0o4750
    assert (host.host / "app").owner() == "root"
    deployed.undo()
    assert fingerprint(host.host) == before


def test_a_new_permission_of_the_same_files_is_applied(host: FileHost) -> None:
    one = host.release("v1", {"d/a": "a"})
    host.deploy("d-1", one)
    rule = Permission(object=str(host.host / "app"), mode=0o750)
    deployed = host.deploy("d-2", one, current=one, permissions=(rule,))
    assert deployed.actions()["app/d/a"] == "replace"
    assert stat.S_IMODE((host.host / "app/d").stat().st_mode) == 0o750
    again = host.deploy("d-3", one, current=one, permissions=(rule,))
    assert set(again.actions().values()) == {"keep"}


@needs_setfacl
def test_acls(host: FileHost) -> None:
    default = AclEntry(default=True, kind="group", name="daemon", perms="r-x")
    rules = (
        Permission(object=str(host.host / "app"), types=("file",), mode=0o640, acls=(BOB,)),
        Permission(object=str(host.host / "app"), types=("directory",), acls=(default,)),
    )
    release = host.release("v1", {"a": "a", "d/b": File("b", 0o755)})
    deployed = host.deployment("d-1", release, permissions=rules)
    plan.refuse(deployed.path)
    deployed.install()
    for name in ("a", "d/b"):
        shown = getfacl(host.host / "app" / name)
        assert "user:nobody:rw-" in shown
        assert "group::r--" in shown
        assert "mask::r--" in shown
    assert "default:group:daemon:r-x" in getfacl(host.host / "app/d")
    deployed.commit()
    again = host.deploy("d-2", release, current=release, permissions=rules)
    assert set(again.actions().values()) == {"keep"}
    plain = host.deployment("d-3", release, current=release)
    before = fingerprint(host.host)
    plain.install()
    assert "nobody" not in getfacl(host.host / "app/a")
    plain.undo()
    assert fingerprint(host.host) == before


def getfacl(path: Path) -> str:
    argv = ["getfacl", "-cp", path]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


@needs_setfacl
def test_an_acl_for_nobody_known_is_refused(host: FileHost) -> None:
    entry = AclEntry(default=False, kind="user", name="no-such-user", perms="r--")
    rule = Permission(object=str(host.host / "app"), acls=(entry,))
    deployed = host.deployment("d-1", host.release("v1", TREE), permissions=(rule,))
    assert "no-such-user" in deployed.findings("problem")[0][2]


def test_a_default_acl_for_a_file_is_refused(host: FileHost) -> None:
    entry = AclEntry(default=True, kind="user", name="nobody", perms="r--")
    rule = Permission(object=str(host.host / "app"), acls=(entry,))
    deployed = host.deployment("d-1", host.release("v1", TREE), permissions=(rule,))
    assert any("for folders" in text for _, _, text in deployed.findings("problem"))


def test_a_host_without_setfacl_is_told_how_to_get_it(host: FileHost) -> None:
    rule = Permission(object=str(host.host / "app"), acls=(BOB,))
    release = host.release("v1", TREE)
    deployed = host.deployment("d-1", release, permissions=(rule,), capture=Tools())
    [(_, _, text)] = deployed.findings("problem")
    assert "apt install acl" in text


@needs_setfacl
def test_files_in_a_folder_with_a_default_acl_inherit_it(host: FileHost) -> None:
    (host.host / "app").mkdir()
    subprocess.run(["setfacl", "-d", "-m", "u:nobody:r", host.host / "app"], check=True)
    release = host.release("v1", {"a": "a", "d/b": "b"})
    host.deploy("d-1", release)
    for name in ("a", "d/b"):
        assert "user:nobody:r--" in getfacl(host.host / "app" / name)
        assert "user:nobody" not in getfacl(release.tree / name)


def test_a_host_without_semanage_is_told_how_to_get_it(host: FileHost) -> None:
    rule = Permission(object=str(host.host / "app"), context=(("type", "bin_t"),))
    release = host.release("v1", TREE)
    deployed = host.deployment("d-1", release, permissions=(rule,), capture=Tools())
    assert len(deployed.findings("problem")) == 2
    assert "semanage" in deployed.findings("problem")[0][2]


def test_contexts_are_set_and_taken_back(host: FileHost) -> None:
    context = (("name", "system_u"), ("type", "bin_t"), ("range", "s0"))
    rule = Permission(object=str(host.host / "app/a.b"), context=context)
    tools = Tools(semanage=Captured(0, "", ""), restorecon=Captured(0, "", ""))
    release = host.release("v1", {"a.b": "a"})
    deployed = host.deployment("d-1", release, permissions=(rule,), capture=tools)
    tools.asked.clear()
    path = str(host.host / "app/a.b")
    pattern = path.replace(".", "\\.").replace("-", "\\-")
    deployed.install(capture=tools)
    words = ("-t", "bin_t", "-s", "system_u", "-r", "s0")
    assert tools.asked == [
        ("semanage", "fcontext", "-a", *words, pattern),
        ("restorecon", "-v", path),
    ]
    deployed.undo(capture=tools)
    assert ("semanage", "fcontext", "-d", pattern) in tools.asked
    assert not os.path.lexists(path)
