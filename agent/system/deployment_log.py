"""The log file of one deployment: what the agent did, and all that the hooks said."""

from __future__ import annotations

import functools
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

logger = logging.getLogger(__name__)

_PIECE_BYTES = 8 * 1024  # a line longer than this is shown in pieces
_TAIL_BYTES = 256 * 1024
_TAIL_CHUNKS = 4096
_EVIDENCE_LINES = 20
_EVIDENCE_CHARACTERS = 400
_BOTH = "output"  # the journal does not tell stdout from stderr

# ECMA-48: control sequences (colours, cursor) and operating system commands (window titles)
_ESCAPES = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)")
# what remains of C0 and C1, line separators, and what reverses the order of text on a terminal
_CONTROLS = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (
        *(code for code in range(0x20) if code != 0x09),
        *range(0x7F, 0xA0),
        *range(0x2028, 0x202F),
        *range(0x2066, 0x206A),
    )
}


def plain(text: str) -> str:
    """`text` without terminal escapes, and other control characters made visible."""
    return _ESCAPES.sub("", text).translate(_CONTROLS)


class DeploymentLog:
    """An append-only text file; it may be written from any thread, and from the event loop.

    A log that cannot be written (full disk) fails no deployment: what was lost is counted, and
    said as soon as there is room again. The file is made again when someone removed it.

    fields: what each line of it carries in the journal (agent.model.messages); where there are
    none, the agent's lines go to the file alone.
    """

    def __init__(self, path: Path, *, fields: Mapping[str, str] | None = None) -> None:
        self.path = path
        self.fields = dict(fields or {})
        self.lost_bytes = 0
        self._lock = threading.Lock()

    def line(self, text: str, *, level: int = logging.INFO, **fields: str) -> None:
        """Add what the agent has to say: "<UTC time>Z agent: text", a line for each of text's.

        The agent's own log gets it as one entry, with `fields` on top of the log's.
        """
        began = _now()
        lines = (f"{began} agent: {plain(each)}\n" for each in text.splitlines() or [""])
        self.append("".join(lines).encode(errors="replace"))
        if self.fields:
            named = {**self.fields, **fields}
            logger.log(
                level,
                "%s: %s",
                named.get("DEPLOYMENT_ID", ""),
                text,
                extra={"fields": named},
                stacklevel=2,
            )

    def hook(
        self, event: str, location: str, *, limit_bytes: int = 10 * 2**20, kept_bytes: int = 0
    ) -> HookOutput:
        """Begin the output of one hook, of which at most `limit_bytes` are kept here.

        kept_bytes: what is here of it already, before the agent was started again.
        """
        return HookOutput(self, f"{event} {location}", limit_bytes, kept_bytes)

    def append(self, lines: bytes) -> None:
        """Add whole lines as they are."""
        with self._lock:
            if self.lost_bytes:
                lines = (
                    f"\n{_now()} agent: {self.lost_bytes} bytes of this log are lost:"
                    f" it could not be written\n"
                ).encode() + lines
            written = self._write(lines)
            if written == len(lines):
                self.lost_bytes = 0
            else:
                self.lost_bytes += len(lines) - written

    def _write(self, lines: bytes) -> int:
        """Bytes written. Opened each time: a removed file comes back, and none is left open."""
        # O_NONBLOCK: a fifo put in its place must not hang the agent
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags, 0o640)
        except OSError:
            return 0
        try:
            if os.fstat(descriptor).st_size == 0:
                os.fchmod(descriptor, 0o640)  # whatever the umask is
            return os.write(descriptor, lines)
        except OSError:
            return 0
        finally:
            os.close(descriptor)


class HookOutput:
    """What one hook writes: its head as it comes, its tail at the end, in flat memory.

    Half of the limit is written at once. After that only the newest 256 KiB are held, and written
    by close() after a line that says how many bytes were left out between the two.
    """

    def __init__(
        self, log: DeploymentLog, source: str, limit_bytes: int, kept_bytes: int = 0
    ) -> None:
        self._log = log
        self._source = plain(source)
        self._head_limit = limit_bytes // 2
        self._head_left = self._head_limit - kept_bytes
        self._tail_limit = min(limit_bytes // 2, _TAIL_BYTES)
        self._begun: dict[str, bytes] = {}  # by stream: a line that has no end yet
        self._tail: deque[tuple[str, str, bytes]] = deque()  # when, stream, bytes
        self._tail_bytes = 0
        self._left_out = 0
        self._last: deque[str] = deque(maxlen=_EVIDENCE_LINES)
        self._lock = threading.Lock()

    def write(self, stream: str, chunk: bytes) -> None:
        """Add bytes as they came from `stream` ("stdout" or "stderr")."""
        with self._lock:
            if self._head_left > 0:
                self._write_head(stream, chunk)
            else:
                self._hold(_now(), stream, chunk)

    def write_lines(self, lines: Sequence[tuple[float, bytes]]) -> int:
        """Add whole lines of both streams, each with the time when it came (since the epoch).

        How many of them, from the first one on, are in the log now; the others are held.
        """
        with self._lock:
            rendered, count = bytearray(), 0
            for seconds, line in lines:
                if len(rendered) >= self._head_left:
                    break
                for piece in _cut(line + b"\n")[0]:
                    rendered += self._render(_stamp(seconds), _BOTH, piece)
                count += 1
            self._head_left -= len(rendered)
            if rendered:
                self._log.append(bytes(rendered))
            for seconds, line in lines[count:]:
                self._hold(_stamp(seconds), _BOTH, line + b"\n")
            return count

    def note(self, text: str) -> None:
        """Add a line of the agent's about this output."""
        self._log.append(self._note(text))

    @property
    def kept_bytes(self) -> int:
        """What the log has of it, apart from what is held."""
        return self._head_limit - self._head_left

    def recall(self, lines: Sequence[bytes]) -> None:
        """Take these as its last lines: it was begun before the agent was started again."""
        with self._lock:
            self._last.clear()
            for line in lines:
                self._render("", _BOTH, line)

    def close(self) -> None:
        """Write what is held. May block for the rendering of 256 KiB."""
        with self._lock:
            newest: deque[tuple[int, bytes]] = deque()
            room = self._tail_limit
            for size, rendered in self._rendered_tail():
                newest.append((size, rendered))
                room -= len(rendered)
                while room < 0:
                    left_out, dropped = newest.popleft()
                    self._left_out += left_out
                    room += len(dropped)
            note = b""
            if self._left_out:
                note = self._note(f"… {self._left_out} bytes left out …")
            self._tail.clear()
            if newest or note:
                self._log.append(note + b"".join(rendered for _, rendered in newest))

    def last_lines(self, count: int = 10) -> tuple[str, ...]:
        """The last lines that are not blank, each of bounded length; complete after close()."""
        with self._lock:
            return tuple(self._last)[-count:]

    def _note(self, text: str) -> bytes:
        return f"{_now()} {self._source} [agent] {plain(text)}\n".encode()

    def _write_head(self, stream: str, chunk: bytes) -> None:
        pieces, self._begun[stream] = _cut(self._begun.get(stream, b"") + chunk)
        now = _now()
        rendered = bytearray()
        for number, piece in enumerate(pieces, 1):
            rendered += self._render(now, stream, piece)
            if len(rendered) >= self._head_left:
                self._begun[stream] = b"".join(pieces[number:]) + self._begun[stream]
                for other, begun in self._begun.items():
                    self._hold(now, other, begun)
                self._begun.clear()
                break
        self._head_left -= len(rendered)
        if rendered:
            self._log.append(bytes(rendered))

    def _hold(self, when: str, stream: str, chunk: bytes) -> None:
        """Hold the newest bytes; the oldest ones make room."""
        if not chunk:
            return
        self._tail.append((when, stream, chunk))
        self._tail_bytes += len(chunk)
        while self._tail_bytes > self._tail_limit or len(self._tail) > _TAIL_CHUNKS:
            when, whose, oldest = self._tail.popleft()
            excess = self._tail_bytes - self._tail_limit
            dropped = min(len(oldest), excess) if excess > 0 else len(oldest)
            if dropped < len(oldest):
                self._tail.appendleft((when, whose, oldest[dropped:]))
            self._tail_bytes -= dropped
            self._left_out += dropped

    def _rendered_tail(self) -> Iterator[tuple[int, bytes]]:
        """Of each line that is held or has no end yet: its size as it came, and as written."""
        for when, stream, chunk in self._tail:
            pieces, self._begun[stream] = _cut(self._begun.get(stream, b"") + chunk)
            for piece in pieces:
                yield len(piece), self._render(when, stream, piece)
        for stream, begun in self._begun.items():
            if begun:
                yield len(begun), self._render(_now(), stream, begun)
        self._begun.clear()

    def _render(self, when: str, stream: str, piece: bytes) -> bytes:
        text = plain(piece.rstrip(b"\r\n").decode(errors="replace"))
        if text.strip():
            self._last.append(text[:_EVIDENCE_CHARACTERS])
        return f"{when} {self._source} [{stream}] {text}\n".encode()


def _cut(text: bytes) -> tuple[list[bytes], bytes]:
    """Lines with their end, long ones in pieces; and the beginning of a line at the end."""
    pieces: list[bytes] = []
    start = 0
    while True:
        end = text.find(b"\n", start, start + _PIECE_BYTES)
        if end < 0 and len(text) - start < _PIECE_BYTES:
            return pieces, text[start:]
        stop = end + 1 if end >= 0 else start + _PIECE_BYTES
        pieces.append(text[start:stop])
        start = stop


def _now() -> str:
    return _stamp(time.time())


def _stamp(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_date(whole)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=4)
def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
