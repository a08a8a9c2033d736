"""Keys that envconsul renamed get the names of their variables, as docs/environment.md says."""

from __future__ import annotations

import base64
import os
import subprocess
from pathlib import Path

import pytest

from tests import consul_server, doc_blocks

pytestmark = [pytest.mark.slow, pytest.mark.timeout(60)]


def test_keys_get_the_names_of_their_variables(tmp_path: Path) -> None:
    kept = 'two\nlines "quoted" $HOME \\ ü\n'.encode()
    consul = consul_server.server(tmp_path / "server")
    with consul_server.running(consul):
        consul.put_kv("config/go-service/", b"")
        consul.put_kv("config/go-service/db/host-name", b"db2.example")
        consul.put_kv("config/go-service/odd", kept)
        consul.put_kv("config/go-service-eu/odd", b"another service's")
        places = [os.environ["PATH"], str(Path(consul_server.consul_command()).parent)]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", doc_blocks.read("environment.md", "kv export")],
            env={"PATH": ":".join(places), "CONSUL_HTTP_ADDR": consul.url},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        found = consul.ask("GET", "/v1/kv/env?recurse")
        values = {each["Key"]: base64.b64decode(each["Value"]) for each in found}
    assert values == {"env/go-service/DB_HOST_NAME": b"db2.example", "env/go-service/ODD": kept}
