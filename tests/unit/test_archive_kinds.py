"""A bundle's kind is told by its bytes; what is no bundle is named."""

from __future__ import annotations

import gzip
import lzma
import os
import socket
from pathlib import Path

import pytest

from agent.archive import kinds
from agent.archive.kinds import Kind
from agent.model.errors import AgentError, Code
from tests import archives
from tests.archives import ZipEntry, make_tar, make_zip, tar_entry

ENTRY = tar_entry(b"f", b"x")
OLD_ENTRY = tar_entry(b"f", b"x", magic=bytes(8))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (make_zip(ZipEntry(b"f")), Kind.ZIP),
        (make_zip(), Kind.ZIP),
        (archives.make_zip64(ZipEntry(b"f")), Kind.ZIP),
        (make_tar(ENTRY), Kind.TAR),
        (make_tar(OLD_ENTRY), Kind.TAR),
        (gzip.compress(b"", mtime=0), Kind.TGZ),
    ],
)
def test_kind_by_content_whatever_the_name(content: bytes, kind: Kind, tmp_path: Path) -> None:
    for name in ("bundle", "bundle.zip", "bundle.tar.gz"):
        (tmp_path / name).write_bytes(content)
        assert kinds.detect(tmp_path / name) is kind


def test_a_folder(tmp_path: Path) -> None:
    assert kinds.detect(tmp_path) is Kind.DIRECTORY
    (tmp_path / "link").symlink_to(tmp_path)
    assert kinds.detect(tmp_path / "link") is Kind.DIRECTORY


@pytest.mark.parametrize(
    ("content", "code", "words"),
    [
        (b"", Code.BUNDLE_DAMAGED, "empty"),
        (bytes(2000), Code.BUNDLE_DAMAGED, "zeros"),
        (b"\n <!DOCTYPE html><html>not found", Code.BUNDLE_DAMAGED, "web page"),
        (b"<html>", Code.BUNDLE_DAMAGED, "web page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', Code.BUNDLE_DAMAGED, "XML"),
        (lzma.compress(b"x"), Code.BUNDLE_REFUSED, "xz"),
        (b"BZh91AY&SY", Code.BUNDLE_REFUSED, "bzip2"),
        (b"\x28\xb5\x2f\xfd....", Code.BUNDLE_REFUSED, "zstd"),
        (b"7z\xbc\xaf\x27\x1c", Code.BUNDLE_REFUSED, "7z"),
        (b"Rar!\x1a\x07\x00", Code.BUNDLE_REFUSED, "rar"),
        (b"PK\x07\x08", Code.BUNDLE_REFUSED, "several parts"),
        (b"#!/bin/sh\n", Code.BUNDLE_REFUSED, "script"),
        (b"hello", Code.BUNDLE_REFUSED, "neither a zip nor a tar"),
        (OLD_ENTRY[:300], Code.BUNDLE_REFUSED, "neither a zip nor a tar"),
    ],
)
def test_what_it_is_instead(content: bytes, code: Code, words: str, tmp_path: Path) -> None:
    (tmp_path / "bundle.zip").write_bytes(content)
    with pytest.raises(AgentError) as caught:
        kinds.detect(tmp_path / "bundle.zip")
    assert caught.value.code is code
    assert words in caught.value.message
    assert caught.value.remedy


def test_a_missing_bundle(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        kinds.detect(tmp_path / "none")
    assert caught.value.code is Code.BUNDLE_MISSING


def test_fifos_sockets_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # opening it would wait for a writer
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for path, words in [
            (tmp_path / "fifo", "a fifo"),
            (tmp_path / "socket", "a socket"),
            (Path("/dev/zero"), "a device"),
        ]:
            with pytest.raises(AgentError, match=words) as caught:
                kinds.detect(path)
            assert caught.value.code is Code.BUNDLE_REFUSED
