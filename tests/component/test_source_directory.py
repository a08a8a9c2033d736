"""A bundle dropped into a folder is deployed; what goes wrong there is said, and harms nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


@pytest.fixture
def host(state_dir: Path) -> Iterator[AgentHost]:
    drop = state_dir / "drop"
    drop.mkdir()
    source = f"sources: [{{type: directory, path: {drop}, application: service}}]\n"
    host = AgentHost(state_dir, source)
    try:
        host.start()
        yield host
    finally:
        host.clear()


def drop(host: AgentHost, version: str, **options: object) -> Path:
    bundle = make_bundle(host.base, version, **options)
    target = host.base / "drop" / bundle.name
    shutil.move(bundle, target)
    return target


def wait_for_version(host: AgentHost, version: str) -> None:
    """Wait until it serves, and its deployment has ended."""

    def ended() -> bool:
        newest = host.ask("GET", "/v1/deployments?limit=1")["deployments"][:1]
        done = [(each["version"], each["status"]) for each in newest]
        return done == [(version, "done")] and host.serving() == version

    wait_until(ended, 20)


def decision(host: AgentHost) -> str:
    return str(host.ask("GET", "/v1/status")["agent"]["decision"])


def history(host: AgentHost) -> list[tuple[str, str]]:
    found = host.ask("GET", "/v1/deployments")["deployments"]
    return [(each["version"], each["outcome"]) for each in reversed(found)]


def test_good_then_better_then_broken(host: AgentHost) -> None:
    drop(host, "1.214")
    wait_for_version(host, "1.214")
    drop(host, "1.215")
    wait_for_version(host, "1.215")
    before = host.files()
    drop(host, "1.216", hooks={"ValidateService": "#!/bin/sh\necho not well >&2\nexit 3\n"})
    wait_until(lambda: ("1.216", "rolled_back") in history(host), 20)
    assert host.files() == before
    assert host.serving() == "1.215"
    # and it is not tried again by itself, also not by the next agent
    host.stop()
    host.start()
    wait_until(lambda: "not tried again" in decision(host), 20)
    assert [version for version, _ in history(host)] == ["1.214", "1.215", "1.216"]


def test_link_to_nothing_hides_no_bundle(host: AgentHost) -> None:
    (host.base / "drop" / "service-9.zip").symlink_to("/nowhere/service-9.zip")
    drop(host, "1")
    wait_for_version(host, "1")


def test_current_revision_is_as_desired_again_when_a_bad_one_is_removed(host: AgentHost) -> None:
    drop(host, "1")
    wait_for_version(host, "1")
    bad = drop(host, "2", hooks={"ValidateService": "#!/bin/sh\nexit 3\n"})
    wait_until(lambda: ("2", "rolled_back") in history(host), 20)
    bad.unlink()
    wait_until(lambda: decision(host) == "service 1 is current, as desired", 20)


def test_older_build_dropped_again_is_deployed(host: AgentHost) -> None:
    first = drop(host, "1")
    os.utime(first, (1_000_000_000, 1_000_000_000))
    wait_for_version(host, "1")
    drop(host, "2")
    wait_for_version(host, "2")
    aside = host.base / "aside.zip"
    first.rename(aside)
    aside.rename(first)
    wait_for_version(host, "1")


def test_newest_bundle_that_vanishes_brings_no_older_one_back(host: AgentHost) -> None:
    drop(host, "1")
    wait_for_version(host, "1")
    newest = drop(host, "2")
    wait_for_version(host, "2")
    newest.unlink()
    wait_until(lambda: "not tried again" in decision(host), 20)
    assert host.serving() == "2"
    assert len(history(host)) == 2


def test_rollback_is_not_taken_back_by_the_source(host: AgentHost) -> None:
    drop(host, "1")
    wait_for_version(host, "1")
    drop(host, "2")
    wait_for_version(host, "2")
    shutil.rmtree(host.base / "drop")
    host.wait_for_outcome(
        host.ask("POST", "/v1/rollback", {"application": "service"})["deployment"]["id"]
    )
    assert host.serving() == "1"
    (host.base / "drop").mkdir()
    drop(host, "3")
    wait_for_version(host, "3")
    assert [version for version, _ in history(host)] == ["1", "2", "1", "3"]


def test_folder_that_vanishes_is_said_and_forgiven(host: AgentHost) -> None:
    drop(host, "1")
    wait_for_version(host, "1")
    shutil.rmtree(host.base / "drop")

    def problem() -> str:
        return str(host.ask("GET", "/v1/status")["agent"]["sources"][0]["problem"])

    wait_until(problem, 10)
    assert "drop" in problem()
    assert "mkdir" in problem()
    assert host.serving() == "1"
    (host.base / "drop").mkdir()
    wait_until(lambda: not problem(), 10)
    drop(host, "2")
    wait_for_version(host, "2")


def test_bundle_that_is_still_being_copied_is_waited_for(host: AgentHost) -> None:
    bundle = make_bundle(host.base, "1")
    content = bundle.read_bytes()
    target = host.base / "drop" / bundle.name
    with target.open("wb", buffering=0) as file:
        for start in range(0, len(content), 200):
            file.write(content[start : start + 200])
            assert host.ask("GET", "/v1/deployments")["deployments"] == []
    wait_for_version(host, "1")
    assert history(host) == [("1", "succeeded")]


def test_rubbish_is_refused_once_with_its_cause(host: AgentHost) -> None:
    drop(host, "1")
    wait_for_version(host, "1")
    rubbish = host.base / "rubbish"
    rubbish.write_text("<html>404</html>")
    rubbish.rename(host.base / "drop" / "service-2.zip")
    wait_until(lambda: ("2", "failed") in history(host), 20)
    view = host.deployment()
    assert view["failure"]["code"] in ("bundle-damaged", "bundle-refused")
    assert all(view["failure"][key] for key in ("code", "where", "message", "next"))
    assert host.serving() == "1"
    wait_until(lambda: "not tried again" in decision(host), 10)
    assert len(history(host)) == 2


def test_folders_name_applications(state_dir: Path) -> None:
    drop_dir = state_dir / "drop"
    (drop_dir / "service").mkdir(parents=True)
    host = AgentHost(state_dir, f"sources: [{{type: directory, path: {drop_dir}}}]\n")
    host.start()
    try:
        bundle = make_bundle(state_dir, "7")
        bundle.rename(drop_dir / "service" / bundle.name)
        wait_for_version(host, "7")
        status = host.ask("GET", "/v1/status")["applications"]
        assert [each["application"] for each in status] == ["service"]
    finally:
        host.clear()
