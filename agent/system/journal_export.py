"""The Journal Export Format, read piece by piece in flat memory.

https://systemd.io/JOURNAL_EXPORT_FORMATS/: a field is "NAME=text" and a line end, or, where the
value is binary, "NAME", a line end, its size in 8 bytes, the value, and a line end. An empty line
ends the entry.
"""

from __future__ import annotations

from dataclasses import dataclass, field

FIELD_BYTES = 64 * 1024
"""Kept of one field; journald cuts the lines of services at 48 KiB (LineMax=)."""

_SIZE_BYTES = 8


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry. cursor: its place in the journal. seconds: since the epoch, when it came in."""

    cursor: str
    seconds: float
    fields: dict[str, bytes] = field(default_factory=dict)

    @property
    def message(self) -> bytes:
        """MESSAGE, without a line end."""
        return self.fields.get("MESSAGE", b"")

    @property
    def text(self) -> str:
        """MESSAGE as text."""
        return self.message.decode(errors="replace")


class Parser:
    """Cuts what it is fed into entries; a field beyond FIELD_BYTES is cut short."""

    def __init__(self) -> None:
        self._held = b""
        self._fields: dict[str, bytes] = {}
        self._name = ""  # of the binary field that is being read
        self._value = bytearray()
        self._missing = 0  # bytes of it that are yet to come, its line end too
        self._is_in_long_line = False

    def feed(self, chunk: bytes) -> list[Entry]:
        """The entries that are complete now."""
        entries: list[Entry] = []
        held = self._held + chunk
        at = 0
        while at < len(held):
            if self._missing:
                at = self._read_binary(held, at)
                continue
            end = held.find(b"\n", at)
            if end < 0:
                break
            line, begins = held[at:end], end + 1
            if self._is_in_long_line:
                self._is_in_long_line = False
            elif not line:
                self._end_entry(entries)
            elif b"=" in line:
                name, _, value = line.partition(b"=")
                self._fields[name.decode("ascii", "replace")] = value[:FIELD_BYTES]
            elif len(held) - begins < _SIZE_BYTES:
                break
            else:
                size = int.from_bytes(held[begins : begins + _SIZE_BYTES], "little")
                self._name = line.decode("ascii", "replace")
                self._missing = size + 1
                begins += _SIZE_BYTES
            at = begins
        self._held = self._shortened(held[at:])
        return entries

    def _read_binary(self, held: bytes, at: int) -> int:
        """Take what is there of a binary value; where to go on."""
        piece = held[at : at + self._missing]
        self._missing -= len(piece)
        self._value += piece[: max(0, FIELD_BYTES + 1 - len(self._value))]
        if not self._missing:
            value = bytes(self._value[:FIELD_BYTES])
            is_whole = len(self._value) <= FIELD_BYTES
            self._fields[self._name] = value.removesuffix(b"\n") if is_whole else value
            self._value.clear()
        return at + len(piece)

    def _shortened(self, held: bytes) -> bytes:
        """A line that is far too long is taken as it is, and its rest is skipped."""
        if len(held) <= 2 * FIELD_BYTES:
            return held
        if not self._is_in_long_line and b"=" in held[:FIELD_BYTES]:
            name, _, value = held.partition(b"=")
            self._fields[name.decode("ascii", "replace")] = value[:FIELD_BYTES]
        self._is_in_long_line = True
        return b""

    def _end_entry(self, entries: list[Entry]) -> None:
        fields, self._fields = self._fields, {}
        if "__CURSOR" not in fields:
            return
        entries.append(
            Entry(
                cursor=fields["__CURSOR"].decode("ascii", "replace"),
                seconds=int(fields.get("__REALTIME_TIMESTAMP", b"0")) / 1e6,
                fields=fields,
            )
        )
