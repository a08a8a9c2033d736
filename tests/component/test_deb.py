"""The .deb: what is in it, what it needs, that it is the same each time, and that it runs."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from agent import __version__
from tests.lint.source import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

SOME_DATE = "1700000000"  # of everything in it; by default that of the last commit
NAME = f"deploy-agent_{__version__}_all.deb"
DEBIAN_NAMES = {
    "aiohttp": "python3-aiohttp",
    "botocore": "python3-botocore",
    "cryptography": "python3-cryptography",
    "isal": "python3-isal",
    "jsonpointer": "python3-json-pointer",
    "jsonschema": "python3-jsonschema",
    "pathspec": "python3-pathspec",
    "psutil": "python3-psutil",
    "PyYAML": "python3-yaml",
    "rich": "python3-rich",
}
EXPECTED = """
/etc/deploy-agent/agent.yaml
/etc/deploy-agent/conf.d/
/etc/deploy-agent/keys.d/
/etc/needrestart/conf.d/deploy-agent.conf
/usr/bin/agentctl
/usr/lib/deploy-agent/hooks/run-once
/usr/lib/deploy-agent/hooks/wait-for-status
/usr/lib/systemd/system/deploy-agent.service
/usr/lib/sysusers.d/deploy-agent.conf
/usr/lib/tmpfiles.d/deploy-agent.conf
/usr/sbin/deploy-agent
/usr/share/bash-completion/completions/agentctl
/usr/share/deploy-agent/agent/__main__.py
/usr/share/deploy-agent/agent/model/schema/agent.schema.json
/usr/share/doc/deploy-agent/changelog.gz
/usr/share/doc/deploy-agent/copyright
/usr/share/man/man1/agentctl.1.gz
/usr/share/man/man5/agent.yaml.5.gz
/usr/share/man/man5/deploy-agent-appspec.5.gz
/usr/share/man/man8/deploy-agent.8.gz
"""
ALLOWED = re.compile(
    r"/(etc/(deploy-agent|needrestart/conf\.d)"
    r"|usr/(bin/agentctl|sbin/deploy-agent|lib/deploy-agent/hooks|share/deploy-agent/agent"
    r"|lib/systemd/(system|catalog)|lib/(sysusers|tmpfiles)\.d|share/(doc/deploy-agent|man/man[158])"
    r"|share/bash-completion/completions|share/python3/runtime\.d))/?"
)


def run(*argv: str | Path, **options: object) -> str:
    """Run a command that has to succeed; its output."""
    done = subprocess.run(  # type: ignore[call-overload]
        argv, capture_output=True, text=True, timeout=100, check=False, **options
    )
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="session")
def deb(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """The .deb of the working tree, built once for all workers of the test run."""
    base = tmp_path_factory.getbasetemp()
    shared = (base if worker_id == "master" else base.parent) / "deb"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (shared / NAME).exists():
            environment = {**os.environ, "SOURCE_DATE_EPOCH": SOME_DATE}
            built = run(ROOT / "packaging/build-deb", "--output", shared, env=environment)
            assert built.splitlines() == [str(shared / NAME)]
    return shared / NAME


@pytest.fixture(scope="session")
def unpacked(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What it installs, in a folder. Its launchers look for the modules there."""
    folder = tmp_path_factory.mktemp("unpacked")
    run("dpkg-deb", "--extract", deb, folder)
    for launcher in (folder / "usr/bin/agentctl", folder / "usr/sbin/deploy-agent"):
        text = launcher.read_text()
        assert text.startswith("#!/usr/bin/python3 -I")
        assert '"/usr/share/deploy-agent"' in text
        launcher.write_text(text.replace('"/usr/share', f'"{folder}/usr/share'))
    return folder


def field(deb: Path, name: str) -> str:
    return run("dpkg-deb", "--field", deb, name).strip()


def test_content(deb: Path) -> None:
    lines = run("dpkg-deb", "--contents", deb).splitlines()
    rows = [line.split(maxsplit=5) for line in lines]
    paths = {row[5].removeprefix("."): row for row in rows}
    assert [path for path in EXPECTED.split() if path not in paths] == []
    assert [path for path in paths if path[-1] != "/" and not ALLOWED.match(path)] == []
    assert [path for path in paths if "__pycache__" in path or "/tests/" in path] == []
    assert {row[1] for row in rows} == {"root/root"}
    assert {row[0][1:] for row in rows} == {"rwxr-xr-x", "rw-r--r--"}
    modules = {path.relative_to(ROOT) for path in (ROOT / "agent").rglob("*.py")}
    assert {f"/usr/share/deploy-agent/{path}" for path in modules} <= set(paths)
    catalogues = {path.name for path in (ROOT / "systemd").glob("*.catalog")}
    assert {f"/usr/lib/systemd/catalog/{name}" for name in catalogues} <= set(paths)


def test_it_depends_on_what_it_imports_and_debian_has(deb: Path) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    imported = {DEBIAN_NAMES[re.split(r"\W", each)[0]] for each in project["dependencies"]}
    depends = set(field(deb, "Depends").split(", "))
    # agentctl shows plain lines where there is no rich, only S3 needs botocore, zlib inflates too
    may_be_missing = {"python3-rich", "python3-botocore", "python3-isal"}
    assert imported - may_be_missing <= depends
    assert may_be_missing <= set(field(deb, "Recommends").split(", "))
    systemd = "systemd | systemd-standalone-sysusers | systemd-sysusers"
    others = depends - imported - {"dbus", "python3-systemd", "python3:any", systemd}
    assert others == set()
    assert field(deb, "Architecture") == "all"
    assert field(deb, "Version") == __version__


def test_what_people_edit_is_a_conffile(deb: Path) -> None:
    conffiles = run("dpkg-deb", "--info", deb, "conffiles").split()
    assert sorted(conffiles) == [
        "/etc/deploy-agent/agent.yaml",
        "/etc/needrestart/conf.d/deploy-agent.conf",
    ]


def test_the_unit_is_enabled_and_restarted_by_the_scripts(deb: Path) -> None:
    postinst = run("dpkg-deb", "--info", deb, "postinst")
    for part in ("systemd-sysusers", "py3compile", "enable 'deploy-agent.service'", "=restart"):
        assert part in postinst


def test_the_same_source_gives_the_same_bytes(deb: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    for name in ("agent", "hooks", "systemd", "packaging", "docs"):
        shutil.copytree(ROOT / name, copy / name, copy_function=shutil.copy)  # new times
    shutil.copy(ROOT / "CHANGELOG.md", copy)
    for path in copy.rglob("*"):
        if path.is_file() and not os.access(path, os.X_OK):
            path.chmod(0o600)
    surroundings = {
        "SOURCE_DATE_EPOCH": SOME_DATE,
        "TZ": "Asia/Tokyo",
        "DEB_BUILD_OPTIONS": "nostrip",
    }
    run(
        copy / "packaging/build-deb", "--output", tmp_path,
        env={**os.environ, **surroundings}, umask=0o077,
    )  # fmt: skip
    assert (tmp_path / NAME).read_bytes() == deb.read_bytes()


def test_another_version(tmp_path: Path) -> None:
    run(ROOT / "packaging/build-deb", "--version", "9.0~test", "--output", tmp_path)
    newer = tmp_path / "deploy-agent_9.0~test_all.deb"
    assert field(newer, "Version") == "9.0~test"
    run("dpkg-deb", "--extract", newer, tmp_path)
    version = tmp_path / "usr/share/deploy-agent/agent/__init__.py"
    assert '"9.0~test"' in version.read_text()


def test_lintian_finds_no_error_and_no_warning(deb: Path) -> None:
    done = subprocess.run(
        ["lintian", "--pedantic", deb], capture_output=True, text=True, timeout=100, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


# it runs


def agentctl(unpacked: Path, *args: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [unpacked / "usr/bin/agentctl", *args],
        capture_output=True, text=True, timeout=60, check=False, **options,
    )  # fmt: skip


@pytest.fixture
def trap(tmp_path: Path) -> dict[str, object]:
    """A working directory and a PYTHONPATH with another `agent`."""
    other = tmp_path / "agent"
    other.mkdir()
    (other / "__init__.py").write_text("raise SystemExit('the wrong agent')\n")
    kept = {key: value for key, value in os.environ.items() if not key.startswith("DEPLOY_AGENT")}
    return {"cwd": tmp_path, "env": {**kept, "PYTHONPATH": str(tmp_path), "TMPDIR": str(tmp_path)}}


def test_agentctl_runs_on_the_standard_library_alone(
    unpacked: Path, trap: dict[str, object]
) -> None:
    done = agentctl(unpacked, "--version", **trap)
    assert done.stdout == f"agentctl {__version__}\n", done.stderr
    done = agentctl(unpacked, "--socket", "/nowhere", "status", **trap)
    assert done.returncode == 3, done.stderr


def test_a_deployment_by_the_debs_own_python(
    unpacked: Path, trap: dict[str, object], state_dir: Path
) -> None:
    needed = "import aiohttp, jsonpointer, jsonschema, psutil, yaml"
    found = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", needed], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip(f"/usr/bin/python3 has not all of Debian's libraries: {found.stderr[-80:]}")
    (state_dir / "agent.yaml").write_text(f"state_dir: {state_dir}/state\nrun_dir: {state_dir}/s\n")
    bundle = state_dir / "shop-1.0"
    bundle.mkdir()
    (bundle / "appspec.yml").write_text(
        f"version: 0.0\nos: linux\nfiles:\n  - {{source: shop.txt, destination: {state_dir}/app}}\n"
    )
    (bundle / "shop.txt").write_text("new\n")
    private = ("--foreground", "--config", str(state_dir / "agent.yaml"))
    done = agentctl(unpacked, "deploy", *private, str(bundle), **trap)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    assert (state_dir / "app/shop.txt").read_text() == "new\n"
