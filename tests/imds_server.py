"""EC2's instance metadata service as AWS documents it, on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.web_server import Request, WebServer, answer, web_server

DOCUMENT = {"region": "eu-west-1", "accountId": "111111111111", "instanceId": "i-0abc"}


class Imds:
    """Version 2 only, unless allow_v1; tags: None where the host may not see them."""

    def __init__(self) -> None:
        self.tags: dict[str, str] | None = {"DeploymentGroup": "canary", "Name": "web 1"}
        self.has_v2 = True
        self.allows_v1 = False
        self.answers_token = True
        self.server: WebServer | None = None

    def __call__(self, request: Request) -> bytes | Iterable[bytes]:
        assert self.server is not None
        if request.method == "PUT":
            if not self.answers_token:
                return self.server.stall()
            if not self.has_v2:
                return answer(404)
            assert request.target == "/latest/api/token"
            assert request.headers["x-aws-ec2-metadata-token-ttl-seconds"] == "60"
            return answer(200, b"TOKEN")
        if request.headers.get("x-aws-ec2-metadata-token") != "TOKEN" and not self.allows_v1:
            return answer(401)
        return self._content(request.target)

    def _content(self, target: str) -> bytes:
        if target == "/latest/dynamic/instance-identity/document":
            return answer(200, json.dumps(DOCUMENT).encode())
        name = target.removeprefix("/latest/meta-data/tags/instance/")
        if self.tags is None or name == target:
            return answer(404)
        if not name:
            return answer(200, "\n".join(self.tags).encode())
        return answer(200, self.tags[name].encode()) if name in self.tags else answer(404)


@contextmanager
def metadata_service() -> Iterator[tuple[Imds, dict[str, str]]]:
    """One, and the environment that leads to it."""
    metadata = Imds()
    with web_server(metadata) as server:
        metadata.server = server
        # nobody answers at the proxy: a request through it would fail
        yield (
            metadata,
            {
                "AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{server.url}/",
                "http_proxy": "http://127.0.0.1:1",
            },
        )
