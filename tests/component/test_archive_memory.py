"""Memory does not grow with the count of entries or with their size."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from agent.model.errors import Code
from tests.archives import ZipEntry, make_tar, make_zip, tar_entry
from tests.lint.source import ROOT

pytestmark = pytest.mark.slow

ENTRIES = 40_000
BIG = b"".join(number.to_bytes(4, "big") * 2**18 for number in range(48))

# In a process of its own, whose highest mark is its own.
_UNPACK = r"""
import json, re, sys
from pathlib import Path
from agent.archive import unpack
from agent.model.errors import AgentError
from agent.model.settings import Limits
from agent.system.cancel import Cancel

def peak():
    # not ru_maxrss, which begins with that of the process that started this one
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

if sys.argv[2] == "zlib":
    sys.modules["isal"] = None  # as where it is not there
before, code = peak(), ""
where = Path(sys.argv[1])
try:
    unpack.unpack(where / "bundle", tree=where / "tree", index=where / "index", limits=Limits(),
                  cancel=Cancel(), progress=lambda done, total: None)
except AgentError as error:
    code = error.code
print(json.dumps([code, peak() - before]))
"""


def growth(bundle: bytes, where: Path, library: str = "isal") -> tuple[str, int]:
    """The error's code and the growth in KiB when `bundle` is unpacked."""
    (where / "bundle").write_bytes(bundle)
    command = [sys.executable, "-c", _UNPACK, str(where), library]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    code, kilobytes = json.loads(done.stdout)
    return code, kilobytes


def entry_names() -> list[bytes]:
    """Many, and one at the end that is refused, so that all are read and none is written."""
    names = [b"app/library-%03d/module-%06d.py" % (n // 100, n) for n in range(ENTRIES)]
    return [*names, b"../evil"]


def test_many_entries_of_a_zip(tmp_path: Path) -> None:
    bundle = make_zip(*(ZipEntry(name, method=0) for name in entry_names()))
    code, kilobytes = growth(bundle, tmp_path)
    assert code == Code.BUNDLE_REFUSED
    assert kilobytes < 4 * 1024


def test_many_entries_of_a_tar(tmp_path: Path) -> None:
    code, kilobytes = growth(make_tar(*map(tar_entry, entry_names())), tmp_path)
    assert code == Code.BUNDLE_REFUSED
    assert kilobytes < 4 * 1024


@pytest.mark.parametrize("kind", ["stored", "deflated", "tar", "tgz", "tgz by zlib"])
def test_a_big_file(kind: str, tmp_path: Path) -> None:
    kind, _, library = kind.partition(" by ")
    if kind in ("stored", "deflated"):
        bundle = make_zip(ZipEntry(b"big", BIG, method=0 if kind == "stored" else 8))
    else:
        bundle = make_tar(tar_entry(b"big", BIG))
        bundle = gzip.compress(bundle, 1) if kind == "tgz" else bundle
    code, kilobytes = growth(bundle, tmp_path, library or "isal")
    assert code == ""
    assert kilobytes < 6 * 1024
    assert (tmp_path / "tree/big").stat().st_size == len(BIG)


def test_a_small_entry_that_lies_about_its_size(tmp_path: Path) -> None:
    entry = ZipEntry(b"evil", bytes(64 * 2**20), size=10)
    code, kilobytes = growth(make_zip(entry), tmp_path)
    assert code == Code.BUNDLE_REFUSED
    assert kilobytes < 6 * 1024
