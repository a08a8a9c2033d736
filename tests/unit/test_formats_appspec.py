"""Appspecs to the model; every broken one of the corpus with exactly the expected messages."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from agent.formats import appspec, yamldoc
from agent.model.appspec import (
    AclEntry,
    AppSpec,
    ConsulCheck,
    ConsulService,
    EnvironmentFile,
    FileExistsBehavior,
    FileMapping,
    Hook,
    LifecycleEvent,
    Match,
    OnChange,
    Permission,
    ServedBy,
    Service,
    Severity,
    StatusCheck,
)
from agent.model.errors import AgentError, Code

CORPUS = Path(__file__).parent / "appspec_corpus"
HEADER = "version: 0.0\nos: linux\n"


def parse(text: str) -> appspec.ParsedAppSpec:
    return appspec.parse_appspec(text.encode(), "appspec.yml")


def parsed(text: str) -> AppSpec:
    result = parse(HEADER + text)
    assert result.appspec, result.problems
    return result.appspec


def messages(text: str) -> list[str]:
    return [str(problem) for problem in parse(HEADER + text).problems]


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.yml")), ids=lambda path: path.stem)
def test_corpus(path: Path) -> None:
    result = appspec.parse_appspec(path.read_bytes(), "appspec.yml")
    expected = path.with_suffix(".expected").read_text()
    assert "".join(f"{problem}\n" for problem in result.problems) == expected
    has_error = any(problem.severity is Severity.ERROR for problem in result.problems)
    assert (result.appspec is None) == has_error
    assert expected == "" if path.stem.startswith("ok-") else expected != ""


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*.yml")), ids=lambda path: path.stem)
def test_corpus_without_the_c_parser(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yamldoc, "_LOADER", yaml.SafeLoader)
    result = appspec.parse_appspec(path.read_bytes(), "appspec.yml")
    lines = [line.split(": ")[1] for line in path.with_suffix(".expected").read_text().splitlines()]
    assert [problem.severity for problem in result.problems] == lines


@pytest.mark.parametrize("path", sorted(CORPUS.glob("ok-*.yml")), ids=lambda path: path.stem)
def test_line_ends_and_byte_order_mark_do_not_matter(path: Path) -> None:
    text = path.read_bytes()
    plain = appspec.parse_appspec(text, "appspec.yml").appspec
    assert plain
    crlf = text.replace(b"\n", b"\r\n")
    assert appspec.parse_appspec(crlf, "appspec.yml").appspec == plain
    marked = appspec.parse_appspec(b"\xef\xbb\xbf" + text.rstrip(b"\n"), "appspec.yml")
    assert marked.appspec == plain
    plainly = appspec.parse_appspec(text, "appspec.yml").problems
    assert [p.severity for p in marked.problems] == [Severity.WARNING] * (1 + len(plainly))


def test_files() -> None:
    spec = parsed("""
files:
  - source: /
    destination: /opt/app/
  - {source: ./conf//a.conf, destination: //etc/app/../app}
file_exists_behavior: RETAIN
""")
    assert spec.files == (FileMapping("", "/opt/app"), FileMapping("conf/a.conf", "/etc/app"))
    assert spec.file_exists_behavior is FileExistsBehavior.RETAIN
    assert spec.filename == "appspec.yml"


def test_permissions() -> None:
    spec = parsed("""
permissions:
  - object: /opt/app/
    pattern: "*.sh"
    except: [x.sh]
    type: [directory, file]
    owner: app
    group: web
    mode: 755
    acls: ["u:bob:rw", "d:g::5", "alice:x"]
    context: {name: system_u, type: httpd_t, range: s0}
  - {object: /etc/app, mode: "4755"}
""")
    first, second = spec.permissions
    assert first == Permission(
        object="/opt/app",
        pattern="*.sh",
        excludes=("x.sh",),
        owner="app",
        group="web",
        mode=0o755,
        acls=(
            AclEntry(default=False, kind="user", name="bob", perms="rw-"),
            AclEntry(default=True, kind="group", name="", perms="r-x"),
            AclEntry(default=False, kind="user", name="alice", perms="--x"),
        ),
        context=(("name", "system_u"), ("type", "httpd_t"), ("range", "s0")),
    )
    assert second == Permission(object="/etc/app", mode=0o4755)


def test_hooks() -> None:
    spec = parsed("""
hooks:
  ApplicationStop:
    - location: /scripts/stop.sh
  ApplicationStart:
    - {location: ' a.sh ', timeout: 300, runas: ' app '}
    - {location: b.sh, timeout: "30", sudo: yes}
""")
    stop, start = LifecycleEvent.APPLICATION_STOP, LifecycleEvent.APPLICATION_START
    assert spec.hooks == {
        stop: (Hook(stop, "scripts/stop.sh"),),
        start: (Hook(start, "a.sh", 300.0, "app"), Hook(start, "b.sh", 30.0, "", sudo=True)),
    }


def test_services() -> None:
    text = """
services:
  - unit: go-service.service
    stop_timeout: 1.5m
    start_timeout: 2m
    status:
      url: http://127.0.0.1:8080/status
      version: off
      match: prefix
      healthy: {/Database: Good, "/ok then": yes, /n: 1.0}
      within: 2m
      stable_for: 500ms
  - unit: two.service
    status: {url: https://localhost/s, served_by: any}
    consul: {name: go-service, port: 8080, check: {http: /status, interval: 2s}, drain: 1m}
    environment:
      {prefix: config/go/, file: /etc/go/env, on_change: "signal:HUP",
       group: go, mode: "0640", splay: 1m, slots: 2}
"""
    first, second = parsed(text).services
    assert first == Service(
        unit="go-service.service",
        stop_timeout_seconds=90.0,
        start_timeout_seconds=120.0,
        status=StatusCheck(
            url="http://127.0.0.1:8080/status",
            version="",
            match=Match.PREFIX,
            healthy=(("/Database", "Good"), ("/ok then", "yes"), ("/n", "1.0")),
            within_seconds=120.0,
            stable_for_seconds=0.5,
        ),
    )
    assert second.environment == EnvironmentFile(
        prefix="config/go",
        path="/etc/go/env",
        on_change=OnChange.SIGNAL,
        signal="HUP",
        group="go",
        mode=0o640,
        splay_seconds=60.0,
        slots=2,
    )
    assert second.status == StatusCheck(url="https://localhost/s", served_by=ServedBy.ANY)
    check = ConsulCheck(http="http://127.0.0.1:8080/status", interval_seconds=2.0)
    assert second.consul == ConsulService(
        name="go-service", id="go-service", port=8080, check=check, drain_seconds=60.0
    )


@pytest.mark.parametrize(
    ("written", "mode"),
    [("644", 0o644), ('"0644"', 0o644), ("'7'", 0o7), ("0", 0), ("1777", 0o1777), ("", None)],
)
def test_modes_that_are_as_they_are_written(written: str, mode: int | None) -> None:
    text = f"permissions: [{{object: /opt/app, owner: app, mode: {written}}}]"
    assert parsed(text).permissions[0].mode == mode


def test_all_errors_at_once_in_the_order_of_the_file() -> None:
    text = "files: [{source: /}]\nhooks: {Start: []}\nservices: [{unit: x}]\nversion: 1\nfile: 0\n"
    problems = parse(text).problems
    assert [problem.line for problem in problems] == [1, 1, 2, 3, 4, 5]
    assert [problem.severity for problem in problems].count(Severity.ERROR) == 5


def test_many_faults_are_cut_but_not_forgotten() -> None:
    unknown = "".join(f"  - {{source: a{n}, destination: /opt, k{n}: 1}}\n" for n in range(150))
    warned = parse(f"{HEADER}files:\n{unknown}")
    assert warned.appspec
    assert len(warned.problems) == 101
    assert warned.problems[-1].message == "and 50 more like this, from here on"
    refused = parse(f"{HEADER}files:\n{unknown}  - {{source: a, destination: b}}\n")
    assert refused.appspec is None
    errors = [each for each in refused.problems if each.severity is Severity.ERROR]
    assert [each.line for each in errors] == [154]


def test_nothing_of_a_terminal_escape_gets_into_a_message() -> None:
    text = 'hooks: {"\\e[31m": [], ApplicationStop: [{location: "\\e[2J", timeout: "\\e[0m"}]}\n'
    text += 'files: "\\e]0;x\\a"\n'
    assert len(messages(text)) == 4
    assert all(message.isprintable() for message in messages(text))


def test_find_appspec(tmp_path: Path) -> None:
    (tmp_path / "appspec.yml").touch()
    assert appspec.find_appspec(tmp_path) == tmp_path / "appspec.yml"
    (tmp_path / "appspec.yaml").touch()
    assert appspec.find_appspec(tmp_path) == tmp_path / "appspec.yaml"


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("AppSpec.yml", "Rename AppSpec.yml to appspec.yml"),
        ("appspec.yml.txt", "Rename appspec.yml.txt to appspec.yml"),
        ("apspec.yml", "Rename apspec.yml to appspec.yml"),
        ("main.go", "Put an appspec.yml into the root of the bundle"),
    ],
)
def test_no_appspec(tmp_path: Path, name: str, remedy: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(AgentError, match=r"no appspec\.yml") as caught:
        appspec.find_appspec(tmp_path)
    assert caught.value.code is Code.APPSPEC_INVALID
    assert remedy in caught.value.remedy


def test_load_appspec(tmp_path: Path) -> None:
    (tmp_path / "appspec.yml").write_text(f"{HEADER}hook: []\n")
    loaded, problems = appspec.load_appspec(tmp_path)
    assert loaded.filename == "appspec.yml"
    assert [problem.severity for problem in problems] == [Severity.WARNING]
    (tmp_path / "other.yml").write_text("version: 2\n")
    with pytest.raises(AgentError, match=r"cannot use other\.yml: it has 2 errors") as caught:
        appspec.load_appspec(tmp_path, filename="other.yml")
    assert caught.value.code is Code.APPSPEC_INVALID
    assert len(caught.value.details) == 2
    assert "other.yml:1:10: error: version: must be 0.0" in caught.value.details[1]
    assert "agentctl lint" in caught.value.remedy


def test_load_appspec_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "appspec.yml").mkdir()
    with pytest.raises(AgentError, match="it is no file"):
        appspec.load_appspec(tmp_path)
    with pytest.raises(AgentError, match="No such file"):
        appspec.load_appspec(tmp_path / "absent")
    with pytest.raises(AgentError, match="null"):
        appspec.load_appspec(tmp_path, filename="a\0b")
