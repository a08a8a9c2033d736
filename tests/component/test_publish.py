"""agentctl push and promote against a real object store: two accounts, three regions."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent.formats import admission, minisign
from agent.publish import layout
from tests import objectstore, publishing
from tests.agent_host import AgentHost
from tests.objectstore import ObjectStore
from tests.publishing import APPLICATION, PRODUCTION, Team
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def team(object_store: ObjectStore, tmp_path: Path) -> Team:
    publishing.ensure_buckets(object_store)
    return publishing.make_team(object_store, tmp_path)


def test_two_accounts_and_three_regions_in_one_command(team: Team) -> None:
    bundle = team.bundle("1.214")
    pushed = team.ok("push", str(bundle), "--to", "test")
    assert [each["bundle"] for each in pushed["targets"]] == ["uploaded"]
    promoted = team.ok(*publishing.PROMOTE)
    assert promoted["outcome"] == "done"
    assert [each["name"] for each in promoted["targets"]] == list(PRODUCTION)
    for bucket in PRODUCTION:
        found = team.desired(bucket, environment="production")
        admission.admit(
            found, application=APPLICATION, group="default", now=time.time(), highest_serial=0,
            os_id="debian-12", arch="amd64", signed=True,
        )  # fmt: skip
        assert found.bundle
        assert team.read(bucket, layout.bundle_key(APPLICATION, found.bundle.sha256)) == (
            bundle.read_bytes()
        )
        assert found.bundle.url == f"../bundles/{found.bundle.sha256}.zip"


def test_again_is_no_work(team: Team) -> None:
    bundle = str(team.bundle("1.214"))
    team.ok("push", bundle, "--to", "test")
    before = team.objects()
    again = team.ok("push", bundle, "--to", "test")
    assert again["outcome"] == "done"
    assert again["targets"][0]["bundle"] == "there"
    assert again["targets"][0]["groups"][0]["pointer"] == "right"
    assert team.objects() == before


def test_dry_run_only_reads(team: Team) -> None:
    bundle = str(team.bundle("1.214"))
    would = team.ok("push", bundle, "--to", "test", "--dry-run")
    assert would["targets"][0]["bundle"] == "would_upload"
    assert would["targets"][0]["groups"][0]["pointer"] == "would_flip"
    assert team.objects() == {}
    team.ok("push", bundle, "--to", "test")
    before = team.objects()
    assert team.promote("--dry-run").returncode == 0
    assert team.objects() == before


def test_with_one_target_down_nothing_is_flipped_unless_in_part(team: Team) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    assert team.promote().returncode == 0
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    team.target("production", "partner-us")["endpoint"] = publishing.closed_port()
    team.write()

    done = team.promote()
    assert done.returncode == 1
    assert "partner-us/" in done.stderr
    assert "connection refused" in done.stderr
    assert "where: production/partner-us" in done.stderr
    assert "no pointer was flipped (partner-us failed)" in done.stderr
    assert team.versions() == ["1.213"] * 6
    bundles = [name for name in team.objects() if "/bundles/" in name]
    assert len(bundles) == 2 + 6 + 5  # the others were uploaded all the same

    done = team.promote("--partial")
    assert done.returncode == 11
    assert "1 of 6 pointers do not follow it (partner-us failed)" in done.stderr
    assert sorted(team.versions()) == ["1.213", *["1.214"] * 5]

    team.target("production", "partner-us")["endpoint"] = team.store.endpoint
    team.write()
    resumed = team.ok(*publishing.PROMOTE)
    done_now = {each["name"]: each["groups"][0]["pointer"] for each in resumed["targets"]}
    assert done_now == dict.fromkeys(PRODUCTION, "right") | {"partner-us": "flipped"}
    assert team.versions() == ["1.214"] * 6


def test_what_one_target_cannot_tell_another_one_does(team: Team) -> None:
    second = {**team.target("test", "acme-test"), "name": "second"}
    second["url"] += "/second"
    team.environments["test"]["targets"].append(second)
    team.write()
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    team.target("test", "acme-test")["endpoint"] = publishing.closed_port()
    team.write()
    done = team.promote()
    assert done.returncode == 0
    assert "test/acme-test: not asked: cannot read s3://acme-test/" in done.stdout
    assert team.versions() == ["1.214"] * 6


def test_flip_back_is_a_new_manifest_of_the_old_bundle(team: Team) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    first = team.desired("acme-test", environment="test")
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    second = team.desired("acme-test", environment="test")
    team.ok("push", "--application", APPLICATION, "--version", "1.213", "--to", "test")
    third = team.desired("acme-test", environment="test")
    assert (third.version, third.bundle) == (first.version, first.bundle)
    assert first.serial < second.serial < third.serial


@pytest.mark.parametrize(("ahead_seconds", "is_followed"), [(3600, True), (10**6, False)])
def test_serial_grows_also_where_a_clock_is_wrong(
    team: Team, ahead_seconds: int, is_followed: bool
) -> None:
    """Hosts take no serial from more than a day ahead, so that one need not be topped."""
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    key = layout.pointer_key(APPLICATION, "default")
    ahead = json.loads(team.read("acme-test", key))
    ahead["serial"] += ahead_seconds
    team.put("acme-test", key, json.dumps(ahead).encode())
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    serial = team.desired("acme-test", environment="test").serial
    assert serial == ahead["serial"] + 1 if is_followed else serial < time.time() + 1


def test_a_manifest_is_renewed_once_half_of_its_time_is_over(team: Team) -> None:
    bundle = str(team.bundle("1.214"))
    team.ok("push", bundle, "--to", "test")
    first = team.desired("acme-test", environment="test")
    team.environments["test"]["expires"] = "59d"
    team.write()
    assert team.ok("push", bundle, "--to", "test")["targets"][0]["groups"][0]["pointer"] == "right"
    team.environments["test"]["expires"] = "61d"
    team.write()
    team.ok("push", bundle, "--to", "test")
    second = team.desired("acme-test", environment="test")
    assert second.serial > first.serial
    assert second.expires - first.expires == pytest.approx(31 * 86400, abs=60)


def test_a_target_that_is_new_is_filled_from_the_others(team: Team) -> None:
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    assert team.promote().returncode == 0
    targets = team.environments["production"]["targets"]
    new = {**targets[0], "name": "new", "url": f"s3://acme-test/{team.prefix}/new"}
    targets.append(new | {"deployment_groups": ["default", "canary"]})
    team.write()
    done = team.ok("push", "--application", APPLICATION, "--version", "1.214", "--to", "production")
    assert done["targets"][-1]["bundle"] == "uploaded"
    assert [each["pointer"] for each in done["targets"][-1]["groups"]] == ["flipped", "flipped"]
    assert {each["groups"][0]["pointer"] for each in done["targets"][:-1]} == {"right"}


def test_unsigned_where_no_key_is_named(team: Team) -> None:
    del team.environments["test"]["key"], team.environments["test"]["expires"]
    del team.keys["test"]
    team.write()
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    found = team.desired("acme-test", environment="test")
    assert found.serial
    assert found.expires == 0
    assert not any(name.endswith(".minisig") for name in team.objects())
    assert team.promote().returncode == 0  # production has a key, and signs
    assert team.versions() == ["1.214"] * 6


def test_a_few_hosts_first(team: Team) -> None:
    """Two environments in one bucket, each with deployment groups of its own."""
    canary = {**team.target("production", "acme-eu"), "deployment_groups": ["canary"]}
    team.environments["canary"] = {
        **team.environments["production"],
        "targets": [canary],
    }
    team.environments["production"]["requires"] = ["canary"]
    team.write()
    for version in ("1.213", "1.214"):
        team.ok("push", str(team.bundle(version)), "--to", "test")
        team.ok("promote", APPLICATION, "--from", "test", "--to", "canary")
        if version == "1.213":
            team.ok("promote", APPLICATION, "--from", "canary", "--to", "production")
    seen = team.desired("acme-eu", environment="production", group="canary")
    assert seen.version == "1.214"
    assert team.versions() == ["1.213"] * 6
    team.ok("push", "--application", APPLICATION, "--version", "1.213", "--to", "canary")
    seen = team.desired("acme-eu", environment="production", group="canary")
    assert seen.version == "1.213"


def test_ci_servers_are_told_where_it_failed(team: Team) -> None:
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    team.target("production", "acme-us")["endpoint"] = publishing.closed_port()
    team.write()
    summary, outputs = team.folder / "summary", team.folder / "outputs"
    done = team.agentctl(
        *publishing.PROMOTE, "--partial",
        GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(summary), GITHUB_OUTPUT=str(outputs),
    )  # fmt: skip
    assert done.returncode == 11
    assert "::error title=source-unavailable::go-service 1.214 is desired in a part" in done.stdout
    assert "| acme-us/default | failed |" in summary.read_text()
    assert "| acme-eu/default | flipped, serial" in summary.read_text()
    assert "outcome<<end\npartial\nend\n" in outputs.read_text()
    done = team.agentctl(*publishing.PROMOTE, TEAMCITY_VERSION="2026.1")
    assert done.stdout.count("##teamcity[buildProblem ") == 1
    assert "##teamcity[setParameter name='deploy.outcome' value='partial']" in done.stdout


# on a host


def test_a_host_deploys_what_is_published_and_what_is_put_back(
    object_store: ObjectStore, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publishing.ensure_buckets(object_store)
    team = publishing.make_team(object_store, state_dir)
    for name, value in objectstore.environment_of(objectstore.ACME).items():
        monkeypatch.setenv(name, value)
    keys = state_dir / "keys.d"
    keys.mkdir()
    (keys / "test.pub").write_bytes(minisign.dump_public_key(team.keys["test"].public))
    source = (
        f"{{type: s3, url: 's3://acme-test/{team.prefix}',"
        f" application: {APPLICATION}, region: us-east-1, endpoint: '{object_store.endpoint}',"
        " path_style: true, poll_interval: 0.1s}"
    )
    host = AgentHost(state_dir, f"sources: [{source}]\nkeys_dir: {keys}\n")
    try:
        host.start()
        back = ("--application", APPLICATION, "--version", "1.213")
        for what, version in (
            ([str(team.bundle("1.213"))], "1.213"),
            ([str(team.bundle("1.214"))], "1.214"),
            (back, "1.213"),
        ):
            team.ok("push", *what, "--to", "test")
            wait_until(lambda version=version: host.serving() == version, 30)
    finally:
        host.clear()


# what is where


def test_releases_and_diff(team: Team) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    assert team.promote().returncode == 0
    team.ok("push", str(team.bundle("1.214", **{"app/new": "12345"})), "--to", "test")

    shown = team.ok("releases", APPLICATION)
    assert {(each["environment"], each["version"]) for each in shown["followed"]} == {
        ("test", "1.214"), ("production", "1.213")
    }  # fmt: skip
    assert {each["version"]: sorted(each["where"]) for each in shown["versions"]} == {
        "1.213": ["production", "test"], "1.214": ["test"]
    }  # fmt: skip
    lines = team.agentctl("releases", APPLICATION).stdout.splitlines()
    cells = {line.split()[0]: line.split()[-2:] for line in lines if line.startswith("1.")}
    assert cells == {"1.214": ["desired", "-"], "1.213": ["there", "desired"]}

    found = team.ok("diff", APPLICATION, "production")
    assert (found["old"]["version"], found["new"]["version"]) == ("1.213", "1.214")
    changes = {each["name"]: (each["old_size"], each["new_size"]) for each in found["files"]}
    assert changes["app/new"] == (None, 5)
    assert changes["app/only-in-1.213"] == (2, None)
    assert changes["app/version"] == (6, 6)
    assert "app/same" not in changes
    assert team.ok("diff", APPLICATION, "test", "1.213")["new"]["version"] == "1.213"
    assert team.ok("diff", APPLICATION, "production", "1.213")["same"]


def test_releases_warns_of_what_expires_and_of_what_nobody_signed(team: Team) -> None:
    team.environments["test"]["expires"] = "1h"
    team.write()
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    assert team.promote().returncode == 0
    team.environments["test"]["expires"] = "10h"
    team.write()
    text = team.read("acme-eu", layout.pointer_key(APPLICATION, "default"))
    team.put(
        "acme-eu", layout.pointer_key(APPLICATION, "default"), text.replace(b"1.214", b"1.200")
    )
    team.target("production", "partner-us")["endpoint"] = publishing.closed_port()
    team.write()
    done = team.agentctl("releases", APPLICATION)
    assert done.returncode == 11
    again = f"agentctl push --application {APPLICATION} --version 1.214 --to test"
    assert f"1.214 expires in 60 min; renew it, by: {again}" in done.stdout
    assert "production/acme-eu default: cannot trust s3://acme-eu/" in done.stdout
    assert "connection refused" in done.stderr
