"""Who listens on a TCP port of this host, and which of them may have answered a connection.

The listening sockets stand first in /proc/net/tcp (proc_pid_net(5)), so reading ends with them:
beside 9,000 connections that takes 0.1 ms, where psutil, which reads them all and names only one
of the processes that share a socket, takes 250 ms.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import sys
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.system import processes

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LISTENING = "0A"  # TCP_LISTEN of the kernel's include/net/tcp_states.h


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening socket. address: an unspecified one for a wildcard."""

    address: Address
    port: int
    inode: int


def read_listeners() -> list[Listener]:
    """All of this network namespace."""
    found: list[Listener] = []
    for name in ("tcp", "tcp6"):
        try:
            with Path("/proc/net", name).open(encoding="ascii") as file:
                next(file)
                found += parse_listeners(file)
        except FileNotFoundError:  # no IPv6 here
            continue
    return found


def parse_listeners(lines: Iterable[str]) -> Iterator[Listener]:
    """The listening sockets of /proc/net/tcp or tcp6, up to the first line of another kind."""
    for line in lines:
        fields = line.split()
        if fields[3] != _LISTENING:
            return
        address, _, port = fields[1].partition(":")
        yield Listener(_parse_address(address), int(port, 16), int(fields[9]))


def choose_answering(listeners: Iterable[Listener], address: Address, port: int) -> list[Listener]:
    """Those that may have got a connection to this address and port: all, where it is several.

    The kernel prefers the address itself, then the wildcard of the same family, then IPv6's,
    which serves IPv4 as well (inet_lookup_listener of the kernel's net/ipv4/inet_hashtables.c).
    """
    here = [each for each in listeners if each.port == port]
    for wanted in (
        lambda each: plain(each) == address,
        lambda each: each.is_unspecified and each.version == address.version,
        lambda each: each.is_unspecified and each.version == 6,
    ):
        chosen = [each for each in here if wanted(each.address)]
        if chosen:
            return chosen
    return []


def is_local(address: Address) -> bool:
    """Whether a connection to this address ends on this host."""
    if address.is_loopback:
        return True
    import psutil  # imported here: 1 MB of the daemon, which asks about 127.0.0.1 as a rule

    return any(
        plain(ipaddress.ip_address(each.address.partition("%")[0])) == address
        for entries in psutil.net_if_addrs().values()
        for each in entries
        if each.family in (socket.AF_INET, socket.AF_INET6)
    )


def plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for (::ffff:127.0.0.1), else the same."""
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def held_by(pid: int, inodes: Collection[int]) -> set[int]:
    """Which of these sockets a process has open; none where it ended, or may not be looked at."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    held: set[int] = set()
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        # a service opens its listening sockets early, so they come before its connections
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                inode = wanted.get(os.readlink(entry.path))
                if inode is not None:
                    held.add(inode)
            if len(held) == len(wanted):
                break
    return held


def find_holders(inodes: Collection[int]) -> list[int]:
    """Every process of the host that has one of these sockets open: a walk through all of them."""
    return [pid for pid in sorted(processes.read_table()) if held_by(pid, inodes)]


def _parse_address(text: str) -> Address:
    """32-bit words in the host's byte order, each as hexadecimal digits."""
    words = (int(text[start : start + 8], 16) for start in range(0, len(text), 8))
    return ipaddress.ip_address(b"".join(word.to_bytes(4, sys.byteorder) for word in words))
