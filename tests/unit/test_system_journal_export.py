"""The journal's export format, however it is cut into pieces."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from agent.system.journal_export import FIELD_BYTES, Parser


def binary(name: bytes, value: bytes) -> bytes:
    return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"


def written(number: int, message: bytes, *, as_binary: bool) -> bytes:
    head = f"__CURSOR=c{number}\n__REALTIME_TIMESTAMP={1_000_000 * number + 500_000}\n".encode()
    is_text = b"\n" not in message and not as_binary
    field = b"MESSAGE=" + message + b"\n" if is_text else binary(b"MESSAGE", message)
    return head + field + b"PRIORITY=6\n\n"


@given(
    st.lists(st.tuples(st.binary(max_size=60), st.booleans()), max_size=8),
    st.lists(st.integers(1, 40), min_size=1, max_size=20),
)
def test_entries_come_whole_whatever_the_pieces(
    messages: list[tuple[bytes, bool]], sizes: list[int]
) -> None:
    text = b"".join(
        written(number, message, as_binary=as_binary)
        for number, (message, as_binary) in enumerate(messages)
    )
    parser, entries, at, turn = Parser(), [], 0, 0
    while at < len(text):
        size = sizes[turn % len(sizes)]
        entries += parser.feed(text[at : at + size])
        at, turn = at + size, turn + 1
    assert [entry.message for entry in entries] == [message for message, _ in messages]
    assert [entry.cursor for entry in entries] == [f"c{n}" for n in range(len(messages))]
    assert [entry.seconds for entry in entries] == [n + 0.5 for n in range(len(messages))]
    assert all(entry.fields["PRIORITY"] == b"6" for entry in entries)


def test_a_field_without_end_costs_no_memory() -> None:
    for head in (b"MESSAGE=", b"MESSAGE\n" + (64 * 2**20).to_bytes(8, "little")):
        parser = Parser()
        tracemalloc.start()
        entries = parser.feed(b"__CURSOR=c\n" + head)
        for _ in range(64):
            entries += parser.feed(b"x" * 2**20)
        entries += parser.feed(b"\nPRIORITY=3\n\n__CURSOR=d\nMESSAGE=next\n\n")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [entry.message for entry in entries] == [b"x" * FIELD_BYTES, b"next"]
        assert entries[0].fields["PRIORITY"] == b"3"
        assert peak < 4 * 2**20


def test_what_is_no_entry_is_none() -> None:
    assert Parser().feed(b"\n\nNAME=value\n\n") == []
    assert Parser().feed(b"__CURSOR=c\nMESSAGE=begun") == []
