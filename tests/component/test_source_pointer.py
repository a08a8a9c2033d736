"""A pointer in a store is deployed; what it may not do is refused, and said."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.formats import manifest, minisign
from agent.model.manifest import BundleRef, Compatible, Manifest
from agent.system.secret_key import SecretKey
from tests.agent_host import AgentHost
from tests.bundles import make_bundle
from tests.waiting import wait_until
from tests.web_store import WebStore, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]


class Published:
    """A store, a key, and a host whose source is the store's pointer of "service"."""

    def __init__(self, base: Path, store: WebStore) -> None:
        self.store = store
        self.keys = base / "keys.d"
        self.keys.mkdir()
        self.key = SecretKey.generate()
        self.pointer = store.root / "service" / "default" / "release.json"
        self.pointer.parent.mkdir(parents=True)
        (store.root / "service" / "bundles").mkdir()
        url = f"{store.url}/{{application}}/{{group}}/release.json"
        self.host = AgentHost(
            base,
            f"sources: [{{type: http, url: '{url}', application: service,"
            " poll_interval: 0.1s}]\n"
            f"keys_dir: {self.keys}\n",
        )

    def trust(self) -> None:
        """Put the public key before the host."""
        (self.keys / "release.pub").write_bytes(minisign.dump_public_key(self.key.public))

    def publish(self, version: str, *, serial: int, sign: bool = False, **more: Any) -> Manifest:
        """Make a bundle, upload it, and let the pointer name it."""
        bundle = make_bundle(self.host.base, version, hooks=more.pop("hooks", None))
        content = bundle.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        stored = bytearray(content)
        stored[len(stored) // 2] ^= more.pop("damaged", False)
        (self.store.root / "service" / "bundles" / f"{digest}.zip").write_bytes(stored)
        found = Manifest(
            version=version,
            application="service",
            deployment_group="default",
            bundle=BundleRef(f"../bundles/{digest}.zip", digest, len(content)),
            serial=serial,
            expires=time.time() + 3600,
        )
        found = dataclasses.replace(found, **more)
        self.flip(manifest.dump_manifest(found), sign=sign)
        return found

    def flip(self, text: bytes, *, sign: bool = False) -> None:
        if sign:
            name = f"{hashlib.sha256(text).hexdigest()}.minisig"
            signature = self.key.sign(text, trusted_comment="a test")
            (self.pointer.parent / name).write_bytes(signature)
        new = self.pointer.with_suffix(".new")
        new.write_bytes(text)
        new.rename(self.pointer)

    # what a person sees

    def source(self) -> dict[str, str]:
        found: dict[str, str] = self.host.ask("GET", "/v1/status")["agent"]["sources"][0]
        return found

    def wait_for_version(self, version: str) -> dict[str, Any]:
        def ended() -> dict[str, Any] | None:
            newest = self.host.ask("GET", "/v1/deployments?limit=1")["deployments"]
            done = newest and newest[0]["version"] == version and newest[0]["status"] == "done"
            return newest[0] if done and self.host.serving() == version else None

        return wait_until(ended, 30)

    def wait_for_problem(self, words: str) -> str:
        wait_until(lambda: words in self.source()["problem"], 30)
        return self.source()["problem"]


@pytest.fixture
def published(state_dir: Path) -> Iterator[Published]:
    with serving(state_dir / "store") as store:
        there = Published(state_dir, store)
        try:
            yield there
        finally:
            there.host.clear()


def test_pointer_is_deployed_and_flipped_back(published: Published) -> None:
    first = published.publish("1", serial=1)
    published.host.start()
    done = published.wait_for_version("1")
    assert first.bundle is not None
    assert done["digest"] == first.bundle.sha256
    published.publish("2", serial=2, commit="c0ffee")
    assert published.wait_for_version("2")["commit"] == "c0ffee"
    published.flip(manifest.dump_manifest(dataclasses.replace(first, serial=3)))
    published.wait_for_version("1")
    # nothing was asked for again but the pointer
    assert published.store.asked(f"/service/bundles/{first.bundle.sha256}.zip") == 1


def test_same_bundle_published_anew_restarts_nothing(published: Published) -> None:
    first = published.publish("1", serial=1)
    published.host.start()
    published.wait_for_version("1")
    events = published.host.events()
    renewed = dataclasses.replace(first, serial=2, expires=time.time() + 7200)
    published.flip(manifest.dump_manifest(renewed))
    asked = len(published.store.requests)
    wait_until(lambda: len(published.store.requests) > asked + 3, 30)
    assert published.source()["decision"] == "service 1 is current, as desired"
    assert published.host.events() == events


def test_older_serial_is_refused_also_by_the_next_agent(published: Published) -> None:
    first = published.publish("1", serial=7)
    published.host.start()
    published.wait_for_version("1")
    published.publish("2", serial=8)
    published.wait_for_version("2")
    published.flip(manifest.dump_manifest(first))
    assert "agentctl push" in published.wait_for_problem("serial")
    published.host.stop()
    published.host.start()
    published.wait_for_problem("serial")
    assert published.host.serving() == "2"


def test_unsigned_is_refused_once_there_is_a_key(published: Published) -> None:
    published.publish("1", serial=1)
    published.host.start()
    published.wait_for_version("1")
    published.trust()
    published.wait_for_problem("not signed")
    published.publish("2", serial=2)
    published.wait_for_problem("not signed")
    published.publish("3", serial=3, sign=True)
    done = published.wait_for_version("3")
    assert done["signed_by"] == minisign.shown_id(published.key.public.id)
    assert not published.source()["problem"]


def test_signature_of_another_text_or_key_is_refused(published: Published) -> None:
    published.trust()
    published.publish("1", serial=1, sign=True)
    published.host.start()
    published.wait_for_version("1")
    text = published.pointer.read_bytes().replace(b'"serial": 1', b'"serial": 2')
    [signature] = published.pointer.parent.glob("*.minisig")
    stolen = published.pointer.parent / f"{hashlib.sha256(text).hexdigest()}.minisig"
    stolen.write_bytes(signature.read_bytes())
    published.flip(text)
    published.wait_for_problem("is not what the owner of the key")
    published.key = SecretKey.generate()
    published.publish("2", serial=3, sign=True)
    published.wait_for_problem("it is signed with the key")
    assert published.host.serving() == "1"


def test_key_that_cannot_be_read_lets_nothing_in(published: Published) -> None:
    (published.keys / "release.pub").write_text("rubbish\n")
    published.publish("1", serial=1, sign=True)
    published.host.start()
    published.wait_for_problem("release.pub")
    assert published.host.serving() == "nothing"


def test_bundle_that_was_replaced_is_refused(published: Published) -> None:
    published.publish("1", serial=1)
    published.host.start()
    published.wait_for_version("1")
    published.publish("2", serial=2, damaged=True)

    def failed() -> dict[str, Any] | None:
        view = published.host.deployment()
        return view if (view["version"], view["status"]) == ("2", "failed") else None

    failure = wait_until(failed, 30)["failure"]
    assert failure["code"] == "bundle-damaged"
    assert "agentctl push" in failure["next"]
    assert published.host.serving() == "1"
    published.publish("3", serial=3)
    published.wait_for_version("3")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"application": "other"}, "other"),
        ({"deployment_group": "blue"}, "blue"),
        ({"expires": 1_000_000_000.0}, "expired"),
        ({"compatible": Compatible(arch=("s390x",))}, "s390x"),
        ({"compatible": Compatible(os=("plan9",))}, "plan9"),
    ],
)
def test_manifest_for_others_is_refused(
    published: Published, more: dict[str, Any], words: str
) -> None:
    published.publish("1", serial=1, **more)
    published.host.start()
    published.wait_for_problem(words)
    assert published.host.serving() == "nothing"
    assert published.host.ask("GET", "/v1/deployments")["deployments"] == []


def test_nothing_published_is_said(published: Published) -> None:
    published.host.start()
    assert "agentctl push" in published.wait_for_problem("nothing is published there")


def test_store_that_is_away_is_said_and_forgiven(published: Published) -> None:
    published.store.answer_with = 503
    published.publish("1", serial=1)
    published.host.start()
    published.wait_for_problem("503")
    published.store.answer_with = 0
    published.wait_for_version("1")


def test_bundle_that_has_no_room_is_not_begun(published: Published) -> None:
    with published.host.config.open("a") as file:
        file.write("limits: {free: 900T}\n")
    found = published.publish("1", serial=1)
    published.host.start()

    def ended() -> dict[str, Any] | None:
        views = published.host.ask("GET", "/v1/deployments")["deployments"]
        return next((each for each in views if each["status"] == "failed"), None)

    failure = wait_until(ended, 30)["failure"]
    assert failure["code"] == "disk-full"
    assert "stay free" in failure["message"]
    assert found.bundle is not None
    assert published.store.asked(f"/service/bundles/{found.bundle.sha256}.zip") == 0


def test_damaged_bundle_in_the_store_of_the_host_is_fetched_again(published: Published) -> None:
    first = published.publish("1", serial=1)
    published.host.start()
    published.wait_for_version("1")
    published.publish("2", serial=2)
    published.wait_for_version("2")
    published.host.stop()
    assert first.bundle is not None
    kept = published.host.state_dir / "bundles" / first.bundle.sha256
    kept.chmod(0o600)
    damaged = bytearray(kept.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    kept.write_bytes(damaged)
    published.host.start()
    published.flip(manifest.dump_manifest(dataclasses.replace(first, serial=3)))
    published.wait_for_version("1")
    assert published.store.asked(f"/service/bundles/{first.bundle.sha256}.zip") == 2


def test_dropped_bundle_needs_its_signature(state_dir: Path) -> None:
    drop = state_dir / "drop"
    drop.mkdir()
    keys = state_dir / "keys.d"
    keys.mkdir()
    key = SecretKey.generate()
    (keys / "release.pub").write_bytes(minisign.dump_public_key(key.public))
    source = f"{{type: directory, path: {drop}, application: service}}"
    host = AgentHost(state_dir, f"sources: [{source}]\nkeys_dir: {keys}\n")
    bundle = make_bundle(state_dir, "1")

    def problem() -> str:
        return str(host.ask("GET", "/v1/status")["agent"]["sources"][0]["problem"])

    try:
        host.start()
        status, answer = host.client.request("POST", "/v1/deployments", {"bundle": str(bundle)})
        assert (status, answer["error"]["code"]) == (400, "manifest-refused")
        assert "--unsigned REASON" in answer["error"]["remedy"]
        forced = host.deploy(bundle, unsigned="the build machine is down")
        assert forced["outcome"] == "succeeded"
        assert "unsigned: the build machine is down" in forced["requested_by"]
        better = make_bundle(state_dir, "2")
        signature = key.sign(better.read_bytes(), trusted_comment="")
        better.rename(drop / better.name)
        wait_until(lambda: "not signed" in problem(), 20)
        (drop / f"{better.name}.minisig").write_bytes(signature)
        wait_until(lambda: not problem(), 20)
        wait_until(lambda: host.serving() == "2", 20)
        assert host.wait_for_outcome()["signed_by"] == minisign.shown_id(key.public.id)
        worse = make_bundle(state_dir, "3")
        worse.rename(drop / worse.name)
        (drop / f"{worse.name}.minisig").write_bytes(signature)
        wait_until(lambda: "is not what the owner of the key" in problem(), 20)
        assert host.serving() == "2"
    finally:
        host.clear()
