"""The listening sockets in the kernel's words, and which of them a connection goes to."""

from __future__ import annotations

import ipaddress
import socket
import sys

import pytest

from agent.system import listeners
from agent.system.listeners import Listener

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout"
TAIL = "00000000:00000000 00:00000000 00000000     0        0"


def line(local: str, state: str, inode: int) -> str:
    return f"   0: {local} 00000000:0000 {state} {TAIL} {inode} 1 00000000cb9140be 100 0 0 10 0\n"


@pytest.mark.skipif(sys.byteorder != "little", reason="written as a little-endian kernel does")
def test_the_kernels_lines() -> None:
    lines = [
        line("0100007F:1F90", "0A", 11),
        line("00000000:0050", "0A", 12),
        line("0100007F:1F90", "01", 13),
        line("00000000:0051", "0A", 14),  # never: listening sockets come first
    ]
    found = list(listeners.parse_listeners(lines))
    assert [(str(each.address), each.port, each.inode) for each in found] == [
        ("127.0.0.1", 8080, 11),
        ("0.0.0.0", 80, 12),
    ]
    six = [
        line("00000000000000000000000000000000:1F90", "0A", 15),
        line("00000000000000000000000001000000:1F90", "0A", 16),
        line("0000000000000000FFFF00000100007F:1F90", "0A", 17),
    ]
    found = list(listeners.parse_listeners(six))
    assert [str(listeners.plain(each.address)) for each in found] == ["::", "::1", "127.0.0.1"]


def test_what_listens_here_is_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        here = [each for each in listeners.read_listeners() if each.port == port]
    assert [str(each.address) for each in here] == ["127.0.0.1"]
    assert here[0].inode > 0


@pytest.mark.parametrize(
    ("there", "address", "chosen"),
    [
        (["127.0.0.1", "0.0.0.0", "::"], "127.0.0.1", ["127.0.0.1"]),
        (["127.0.0.1", "0.0.0.0", "::"], "127.0.0.2", ["0.0.0.0"]),
        (["127.0.0.1", "::"], "127.0.0.2", ["::"]),
        (["127.0.0.1", "0.0.0.0"], "::1", []),
        (["::1", "::", "0.0.0.0"], "::1", ["::1"]),
        (["::ffff:127.0.0.1", "0.0.0.0"], "127.0.0.1", ["::ffff:127.0.0.1"]),
        (["0.0.0.0", "0.0.0.0"], "10.0.0.1", ["0.0.0.0", "0.0.0.0"]),
        (["10.0.0.1"], "10.0.0.2", []),
    ],
)
def test_the_most_specific_address_wins(there: list[str], address: str, chosen: list[str]) -> None:
    known = [Listener(ipaddress.ip_address(each), 8080, 1) for each in there]
    known += [Listener(ipaddress.ip_address(address), 8081, 2)]
    found = listeners.choose_answering(known, ipaddress.ip_address(address), 8080)
    assert [each.address for each in found] == [ipaddress.ip_address(each) for each in chosen]


def test_addresses_of_this_host() -> None:
    for text in ("127.0.0.1", "127.9.9.9", "::1"):
        assert listeners.is_local(ipaddress.ip_address(text)), text
    for text in ("192.0.2.1", "2001:db8::1"):  # of the documentation: RFC 5737, RFC 3849
        assert not listeners.is_local(ipaddress.ip_address(text)), text
