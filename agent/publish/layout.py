"""Where things lie in a store: the keys of an application's objects.

<application>/bundles/<sha256>.zip                    never changes
<application>/<group>/release.json                    the pointer: the manifest that is desired
<application>/<group>/<sha256 of it>.minisig          its signature, there before the pointer is
<application>/<group>/release.json.minisig            the same, where minisign looks for it
<application>/releases/<version>.json                 the last manifest of a version
"""

from __future__ import annotations

import hashlib

MANIFEST = "release.json"
MOST_VERSIONS = 10_000
"""So many are listed; they come by name, so the newest could be among those left out."""


def bundle_key(application: str, digest: str) -> str:
    """Of the bundle with this SHA-256."""
    return f"{application}/bundles/{digest}.zip"


def bundle_url(digest: str) -> str:
    """Of the bundle, as a pointer has it: relative to its own URL."""
    return f"../bundles/{digest}.zip"


def pointer_key(application: str, group: str) -> str:
    """Of what a deployment group follows."""
    return f"{application}/{group}/{MANIFEST}"


def signature_key(application: str, group: str, text: bytes) -> str:
    """Of the signature of exactly this text of a pointer."""
    return f"{application}/{group}/{hashlib.sha256(text).hexdigest()}.minisig"


def index_prefix(application: str) -> str:
    """Of everything that index_key gives."""
    return f"{application}/releases/"


def index_key(application: str, version: str) -> str:
    """Of what is remembered of a version."""
    return f"{index_prefix(application)}{version}.json"


def indexed_version(key: str) -> str:
    """The version of an index_key; "" of another key."""
    name = key.rpartition("/")[2]
    return name.removesuffix(".json") if name.endswith(".json") else ""
