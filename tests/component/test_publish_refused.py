"""What push and promote refuse, and what is left where they were stopped in the middle."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from agent.publish import layout
from agent.system.secret_key import SecretKey
from tests import gate, publishing
from tests.objectstore import ObjectStore
from tests.publishing import APPLICATION, Team

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@pytest.fixture
def team(object_store: ObjectStore, tmp_path: Path) -> Team:
    publishing.ensure_buckets(object_store)
    return publishing.make_team(object_store, tmp_path)


def test_foreign_rights_are_named_with_their_target(team: Team) -> None:
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    team.target("production", "partner-ap")["profile"] = "acme"
    team.write()
    before = team.objects()
    done = team.promote()
    assert done.returncode == 1
    assert "[source-denied]" in done.stderr
    assert "where: production/partner-ap" in done.stderr
    assert not any("release.json" in name for name in team.objects().keys() - before.keys())


def test_a_missing_bucket_is_not_taken_for_an_empty_one(team: Team) -> None:
    team.target("test", "acme-test")["url"] = "s3://acme-tset/x"
    team.write()
    done = team.agentctl("push", str(team.bundle("1.214")), "--to", "test", "--dry-run")
    assert done.returncode == 1
    assert "acme-tset" in done.stderr


def test_what_another_key_signed_is_not_promoted(team: Team) -> None:
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    (team.folder / "test.key").write_bytes(SecretKey.generate().dump())
    before = team.objects()
    done = team.promote()
    assert done.returncode == 1
    assert "[manifest-refused]" in done.stderr
    assert "it is signed with the key" in done.stderr
    assert team.objects() == before


def test_what_nobody_signed_is_not_promoted_nor_put_back(team: Team) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    evil = json.loads(team.read("acme-test", layout.index_key(APPLICATION, "1.213")))
    evil["bundle"]["sha256"] = "ab" * 32
    text = json.dumps(evil).encode()
    team.put("acme-test", layout.index_key(APPLICATION, "1.213"), text)
    back = ("push", "--application", APPLICATION, "--version", "1.213", "--to", "test")
    for done in (team.promote("--version", "1.213"), team.agentctl(*back)):
        assert done.returncode == 1
        assert "it is not signed [manifest-refused]" in done.stderr
    team.put("acme-test", layout.pointer_key(APPLICATION, "default"), text)
    done = team.promote()
    assert done.returncode == 1
    assert "it is not signed [manifest-refused]" in done.stderr


def test_an_old_signed_manifest_is_not_taken_for_another_version(team: Team) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    old = team.read("acme-test", layout.index_key(APPLICATION, "1.213"))
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    team.put("acme-test", layout.index_key(APPLICATION, "1.214"), old)
    done = team.promote("--version", "1.214")
    assert done.returncode == 1
    assert "it is of 1.213 [manifest-refused]" in done.stderr


@pytest.mark.parametrize("cut", [0, 1], ids=["same size", "shorter"])
def test_a_bundle_whose_bytes_were_changed_is_refused(team: Team, cut: int) -> None:
    bundle = team.bundle("1.214")
    digest = team.ok("push", str(bundle), "--to", "test")["sha256"]
    changed = bytearray(bundle.read_bytes())[cut:]
    changed[40] ^= 1
    team.put("acme-test", layout.bundle_key(APPLICATION, digest), bytes(changed))
    before = team.objects()
    done = team.promote()
    assert done.returncode == 1
    assert "it is not what was published [bundle-damaged]" in done.stderr
    assert team.objects() == before


def test_a_version_never_changes(team: Team) -> None:
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    before = team.objects()
    done = team.agentctl("push", str(team.bundle("1.214", **{"app/new": "x"})), "--to", "test")
    assert done.returncode == 1
    assert "another bundle with this version is there [conflict]" in done.stderr
    assert team.objects() == before


def test_production_takes_only_what_was_in_test(team: Team) -> None:
    done = team.agentctl("push", str(team.bundle("1.214")), "--to", "production")
    assert done.returncode == 1
    assert f"agentctl promote {APPLICATION} --from test --to production" in done.stderr
    assert team.objects() == {}


def test_which_version_is_meant_where_targets_differ(team: Team) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    second = {**team.target("test", "acme-test"), "name": "second"}
    second["url"] += "/second"
    team.environments["test"]["targets"].append(second)
    team.write()
    done = team.promote()
    assert done.returncode == 1
    assert "it is not one version [conflict]" in done.stderr
    assert "| acme-test, default: 1.213\n    | second, default: none" in done.stderr
    assert team.promote("--version", "1.213").returncode == 0


# in the middle


@pytest.mark.parametrize(
    ("held_key", "flipped"), [("bundles/", False), ("default/release.json", True)],
    ids=["uploading", "flipping"],
)  # fmt: skip
def test_killed_in_the_middle_and_run_again(team: Team, held_key: str, flipped: bool) -> None:
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    assert team.promote().returncode == 0
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    pattern = f"PUT /acme-us/{team.prefix}/{APPLICATION}/{held_key}".encode()
    with gate.gate(team.store.endpoint, pattern) as held:
        team.target("production", "acme-us")["endpoint"] = held.endpoint
        team.write()
        with team.start_promote() as running:
            assert held.has_held.wait(30)
            running.kill()
            running.communicate(timeout=10)
    seen = team.versions()  # each of them is one or the other, and signed
    assert set(seen) <= {"1.213", "1.214"}
    assert seen[:2] == ["1.214" if flipped else "1.213", "1.213"]

    team.target("production", "acme-us")["endpoint"] = team.store.endpoint
    team.write()
    assert team.promote().returncode == 0
    assert team.versions() == ["1.214"] * 6


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_stop_it_leaves_no_file(team: Team, number: int, code: int) -> None:
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    before = {path.name for path in team.folder.iterdir()}
    pattern = f"PUT /acme-us/{team.prefix}/{APPLICATION}/bundles/".encode()
    with gate.gate(team.store.endpoint, pattern) as held:
        team.target("production", "acme-us")["endpoint"] = held.endpoint
        team.write()
        with team.start_promote() as running:
            assert held.has_held.wait(30)
            running.send_signal(number)
            said, _ = running.communicate(timeout=60)
    assert running.returncode == code
    assert "interrupted. Run the same command again" in said
    assert {path.name for path in team.folder.iterdir()} == before


def test_who_comes_second_changes_nothing(team: Team) -> None:
    """The first publisher is held just before its first pointer; a second one overtakes it."""
    team.ok("push", str(team.bundle("1.213")), "--to", "test")
    for version in ("1.214", "1.215"):
        team.bundle(version)
    assert team.promote().returncode == 0
    team.ok("push", str(team.bundle("1.214")), "--to", "test")
    pattern = f"PUT /acme-eu/{team.prefix}/go-service/default/release.json HTTP".encode()
    with gate.gate(team.store.endpoint, pattern) as held:
        team.target("production", "acme-eu")["endpoint"] = held.endpoint
        team.write()
        with team.start_promote() as slow:
            assert held.has_held.wait(60)
            team.target("production", "acme-eu")["endpoint"] = team.store.endpoint
            team.write()
            team.ok("push", str(team.bundle("1.215")), "--to", "test")
            assert team.promote().returncode == 0
            held.release()
            said, _ = slow.communicate(timeout=60)
    assert slow.returncode == 1, said
    assert "somebody else changed it meanwhile, it is 1.215" in said
    assert team.versions() == ["1.215"] * 6
