"""Memory does not grow with the count of files or with their size."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.lint.source import ROOT

FILES = 10_000
BIG_BYTES = 48 * 2**20

# In a process of its own, whose highest mark is its own.
_UNPACK = r"""
import json, re, sys
from pathlib import Path
from agent.archive import releases, unpack
from agent.model.settings import Limits
from agent.system.cancel import Cancel

def peak():
    # not ru_maxrss, which begins with that of the process that started this one
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])

bundle, where = Path(sys.argv[1]), Path(sys.argv[2])
before = peak()
reuse = None
for name in ("old", "new"):
    tree, index = where / name, where / (name + ".index")
    result = unpack.unpack(bundle, tree=tree, index=index, limits=Limits(), cancel=Cancel(),
                           progress=lambda done, total: None, reuse=reuse)
    reuse = (tree, index)
assert releases.check_release(tree, index, thorough=True, cancel=Cancel()) == []
print(json.dumps([result.files, result.reused, peak() - before]))
"""


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        for number in range(FILES):
            file.writestr(f"app/lib{number // 100:04}/module_{number:06}.py", b"x" * 20)
        with file.open("app/big.bin", "w") as big:
            for number in range(BIG_BYTES // 2**20):
                big.write(number.to_bytes(4, "big") * 2**18)


def write_tgz(path: Path) -> None:
    plain = path.with_name("plain.tar")
    with path.with_name("big.bin").open("wb") as big:
        for number in range(BIG_BYTES // 2**20):
            big.write(number.to_bytes(4, "big") * 2**18)
    with plain.open("wb") as file:
        for number in range(FILES):
            info = tarfile.TarInfo(f"app/lib{number // 100:04}/module_{number:06}.py")
            info.size = 20
            file.write(info.tobuf() + b"x" * 20 + bytes(492))
        info = tarfile.TarInfo("app/big.bin")
        info.size = BIG_BYTES
        file.write(info.tobuf() + path.with_name("big.bin").read_bytes() + bytes(1024))
    path.write_bytes(gzip.compress(plain.read_bytes(), 1))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("write", [write_zip, write_tgz])
def test_memory_is_flat(write: object, state_dir: Path) -> None:
    write(state_dir / "bundle")  # type: ignore[operator]
    command = [sys.executable, "-c", _UNPACK, str(state_dir / "bundle"), str(state_dir)]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True)
    files, reused, kilobytes = json.loads(done.stdout)
    assert files == reused == FILES + 1
    assert 0 < kilobytes < 10 * 1024
