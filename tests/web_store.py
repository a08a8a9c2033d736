"""A folder served over HTTP as a store: ETags and 304, counted requests, and outages on demand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.web_server import Request, answer, file_answer, web_server


class WebStore:
    """What a test looks at and changes. answer_with: a status instead of the files, 0 for none."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.answer_with = 0
        self.url = ""

    def __call__(self, request: Request) -> bytes:
        self.requests.append(request.target)
        file = self.root / request.target.lstrip("/")
        if self.answer_with:
            return answer(self.answer_with)
        return file_answer(request, file.read_bytes()) if file.is_file() else answer(404)

    def asked(self, path: str) -> int:
        """How often a path was asked for."""
        return self.requests.count(path)


@contextmanager
def serving(root: Path) -> Iterator[WebStore]:
    """Serve a folder on loopback until the block ends."""
    store = WebStore(root)
    root.mkdir(parents=True, exist_ok=True)
    with web_server(store) as server:
        store.url = server.url
        yield store
