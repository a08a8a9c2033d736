"""Modules that are loaded when something of them is used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_AHEAD = """
import sys
sys.path.insert(0, {folder!r})
from agent.system import late
late.load_when_used("big_codec", "not_there")
import big_codec
import big_codec as again
"""


def run(folder: Path, then: str) -> str:
    (folder / "big_codec.py").write_text("print('loaded')\ndef decode():\n    return 'decoded'\n")
    (folder / "user.py").write_text("import big_codec\n")
    command = [sys.executable, "-c", _AHEAD.format(folder=str(folder)) + then]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    return done.stdout + "\n".join(done.stderr.splitlines()[-1:])


def test_an_import_alone_loads_nothing(tmp_path: Path) -> None:
    assert run(tmp_path, "import user") == ""


def test_its_first_use_loads_it_once(tmp_path: Path) -> None:
    then = "print(big_codec.decode(), again.decode())\nimport big_codec as third; third.decode()"
    assert run(tmp_path, then) == "loaded\ndecoded decoded\n"


def test_a_name_from_it_loads_it(tmp_path: Path) -> None:
    then = "from big_codec import decode; print(decode())"
    assert run(tmp_path, then) == "loaded\ndecoded\n"


def test_what_it_has_not_is_an_attribute_error(tmp_path: Path) -> None:
    said = run(tmp_path, "big_codec.encode")
    assert "AttributeError: module 'big_codec' has no attribute 'encode'" in said


def test_what_is_not_there_cannot_be_imported(tmp_path: Path) -> None:
    assert "ModuleNotFoundError: No module named 'not_there'" in run(tmp_path, "import not_there")
