"""agentctl key as people and CI use it."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
from pathlib import Path

import pytest

from tests.component import cli_server
from tests.component.cli_server import agentctl


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the keys ci.key and ci.pub, and a bundle."""
    assert agentctl("key", "generate", "--no-password", "--output", f"{tmp_path}/ci").stderr == ""
    (tmp_path / "shop-1.zip").write_bytes(b"zip" * 1_000_000)
    keys = tmp_path / "keys.d"
    keys.mkdir(mode=0o755)
    (keys / "ci.pub").write_bytes((tmp_path / "ci.pub").read_bytes())
    return tmp_path


def test_generate(tmp_path: Path) -> None:
    done = agentctl("key", "generate", "--no-password", "--output", f"{tmp_path}/ci")
    assert done.returncode == 0
    assert f"install -D -m 0644 {tmp_path}/ci.pub /etc/deploy-agent/keys.d/ci.pub" in done.stdout
    secret = tmp_path / "ci.key"
    assert secret.stat().st_mode & 0o777 == 0o600
    shown = [agentctl("key", "show", f"{tmp_path}/ci.{each}").stdout for each in ("key", "pub")]
    assert shown[0] == shown[1]
    assert "public key: RW" in shown[0]


@pytest.mark.parametrize("left", ["ci.key", "ci.pub"])
def test_a_key_is_never_overwritten(folder: Path, left: str) -> None:
    for name in {"ci.key", "ci.pub"} - {left}:
        (folder / name).unlink()
    before = (folder / left).read_bytes()
    done = agentctl("key", "generate", "--no-password", "--output", f"{folder}/ci.key")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot write {folder}/{left}: it is there already" in done.stderr
    assert (folder / left).read_bytes() == before
    assert len(list(folder.glob("ci.*"))) == 1


def test_sign_and_verify(folder: Path) -> None:
    bundle, keys = f"{folder}/shop-1.zip", f"{folder}/keys.d"
    key_id = json.loads(agentctl("key", "show", f"{folder}/ci.pub", "--json").stdout)["id"]
    done = agentctl("key", "sign", bundle, "--key", f"{folder}/ci.key", "--json")
    assert json.loads(done.stdout) == {
        "schema": 1,
        "id": key_id,
        "signature_path": f"{bundle}.minisig",
    }
    argv = ["minisign", "-Vm", bundle, "-p", f"{folder}/ci.pub"]
    said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=9).stdout
    assert "file:shop-1.zip\thashed" in said
    done = agentctl("key", "verify", bundle, "--keys", keys)
    assert (done.returncode, key_id in done.stdout) == (0, True)

    with Path(bundle).open("ab") as file:
        file.write(b" ")
    done = agentctl("key", "verify", bundle, "--keys", keys)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot trust {bundle}: it is not what the owner of the key {key_id} signed" in (
        done.stderr
    )


@pytest.mark.slow
def test_a_legacy_signature_of_a_huge_file(folder: Path) -> None:
    bundle, keys = folder / "shop-1.zip", f"{folder}/keys.d"
    argv = ["minisign", "-S", "-l", "-s", f"{folder}/ci.key", "-m", str(bundle)]
    subprocess.run(argv, capture_output=True, check=True, timeout=9)
    assert agentctl("key", "verify", str(bundle), "--keys", keys).returncode == 0
    os.truncate(bundle, 2**40)  # a hole: nothing is written
    done = agentctl("key", "verify", str(bundle), "--keys", keys)
    assert done.returncode == 1
    assert "it has more than 64 MiB, and its signature is a legacy one" in done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["show"], "cannot show: it needs a FILE"),
        (["generate", "x"], "cannot generate: it takes no FILE"),
        (["sign", "/etc/hostname"], "cannot sign: --key FILE, the secret key, is missing"),
        (["generate"], "cannot ask for the password of the secret key: this is no terminal"),
        (["generate", "--password-env", "NO_SUCH"], "from the variable NO_SUCH: it is empty"),
        (["show", "/nowhere"], "cannot read the key /nowhere: No such file or directory"),
        (["show", "/etc/hostname"], "cannot use /etc/hostname: it must have 2 lines, and has 1"),
        (["verify", "/etc/hostname"], "cannot read the key /etc/hostname.minisig: No such file"),
    ],
)
def test_wrong_usage(args: list[str], said: str) -> None:
    done = agentctl("key", *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@pytest.mark.slow  # scrypt with 1 GiB: 4 s each time, on a machine that is not busy
@pytest.mark.timeout(200)
def test_passwords(tmp_path: Path) -> None:
    made = subprocess.run(
        cli_server.command(
            "key", "generate", "--output", f"{tmp_path}/ci", "--password-env", "KEY_PASSWORD"
        ),
        env=cli_server.environment(KEY_PASSWORD="secret words"),
        timeout=80,
        check=False,
    )
    assert made.returncode == 0
    refused = agentctl("key", "show", f"{tmp_path}/ci.key")
    assert (refused.returncode, refused.stdout) == (2, "")
    prompt = f"Password of {tmp_path}/ci.key: "
    code, shown = at_terminal("show", f"{tmp_path}/ci.key", typed={prompt: "secret words"})
    assert code == 0
    public = agentctl("key", "show", f"{tmp_path}/ci.pub").stdout
    assert "".join(shown.split()).endswith("".join(public.split()))
    assert "secret words" not in shown


def test_a_mistyped_password_is_noticed(tmp_path: Path) -> None:
    typed = {"Password for the new secret key: ": "one", "The same again: ": "another"}
    code, shown = at_terminal("generate", "--output", f"{tmp_path}/ci", typed=typed)
    assert code == 2
    assert "the two passwords differ" in shown
    assert "another" not in shown
    assert list(tmp_path.iterdir()) == []


def at_terminal(*args: str, typed: dict[str, str]) -> tuple[int, str]:
    """Run agentctl key at a terminal of its own, where each prompt is answered; code and output."""
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        ["setsid", "--ctty", "--wait", *cli_server.command("key", *args)],
        env=cli_server.environment(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = ""
    try:
        for prompt, answer in typed.items():
            shown += read_until(ours, prompt)
            os.write(ours, f"{answer}\n".encode())
        shown += read_until(ours, None)
        return child.wait(timeout=9), shown
    finally:
        child.kill()
        child.wait()
        os.close(ours)


def read_until(descriptor: int, words: str | None) -> str:
    """What a terminal shows up to these words, or to its end; waits 80 s at most for more."""
    shown = ""
    while words is None or words not in shown:
        assert select.select([descriptor], [], [], 80)[0], shown
        try:
            shown += os.read(descriptor, 4096).decode()
        except OSError:  # nobody has the terminal open any more
            assert words is None, shown
            return shown
    return shown
