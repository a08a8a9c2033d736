"""Makers of good and hostile archives, byte by byte where no tool would write them."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from agent.model.errors import Code

APPSPEC = b"version: 0.0\nos: linux\n"
MTIME = 1_700_000_000
UNIX = 3
UTF8 = 0x0800


@dataclass(frozen=True)
class ZipEntry:
    """One entry of a zip; what stands None is written as it should be.

    local: fields of this entry that are others in its local header.
    """

    name: bytes
    content: bytes = b""
    mode: int = 0o100644
    method: int = 8
    flags: int = UTF8
    host: int = UNIX
    packed: bytes | None = None
    size: int | None = None
    crc: int | None = None
    offset: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    date: int = 0x5C21
    disk: int = 0
    local: ZipEntry | None = None


def _packed(entry: ZipEntry) -> bytes:
    if entry.packed is not None:
        return entry.packed
    if entry.method != 8:
        return entry.content
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflater.compress(entry.content) + deflater.flush()


def _numbers(entry: ZipEntry) -> tuple[int, int, int]:
    crc = zlib.crc32(entry.content) if entry.crc is None else entry.crc
    size = len(entry.content) if entry.size is None else entry.size
    return crc, len(_packed(entry)), size


def local_part(entry: ZipEntry) -> bytes:
    """The local header and the packed bytes."""
    head = entry.local or entry
    crc, packed, size = _numbers(head)
    return (
        struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, head.flags, head.method, 0, head.date,
            crc, packed, size, len(head.name), len(head.extra),
        )
        + head.name
        + head.extra
        + _packed(entry)
    )  # fmt: skip


def central_part(entry: ZipEntry, offset: int) -> bytes:
    """The entry of the central directory."""
    crc, packed, size = _numbers(entry)
    offset = offset if entry.offset is None else entry.offset
    return (
        struct.pack(
            "<4s2B5H3L5H2L", b"PK\1\2", 63, entry.host, 20, entry.flags, entry.method,
            0, entry.date, crc, packed, size,
            len(entry.name), len(entry.extra), len(entry.comment), entry.disk, 0,
            entry.mode << 16, offset,
        )
        + entry.name
        + entry.extra
        + entry.comment
    )  # fmt: skip


def make_zip(
    *entries: ZipEntry,
    count: int | None = None,
    listed: list[int] | None = None,
    disk: int = 0,
    before: bytes = b"",
    after: bytes = b"",
    comment: bytes = b"",
) -> bytes:
    """A zip with the entries as they are told.

    listed: their numbers in the order of the directory. before, after: bytes around it.
    """
    locals_, centrals, offset = [], [], 0
    for entry in entries:
        centrals.append(central_part(entry, offset))
        locals_.append(local_part(entry))
        offset += len(locals_[-1])
    directory = b"".join(centrals if listed is None else [centrals[n] for n in listed])
    count = len(entries) if count is None else count
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", disk, disk, count, count, len(directory), offset, len(comment)
    )
    return b"".join([before, *locals_, directory, end, comment, after])


def make_zip64(entry: ZipEntry, *, size: int | None = None, end: int | None = None) -> bytes:
    """A zip of one entry whose numbers all stand in the zip64 places.

    size: of the entry; end: offset of the zip64 end record; as they should be by default.
    """
    _, packed, true_size = _numbers(entry)
    body = local_part(entry)
    extra = struct.pack("<2H3Q", 1, 24, true_size if size is None else size, packed, 0)
    directory = bytearray(central_part(replace(entry, extra=extra), 0))
    struct.pack_into("<2L", directory, 20, 0xFFFFFFFF, 0xFFFFFFFF)
    struct.pack_into("<L", directory, 42, 0xFFFFFFFF)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(directory), len(body))
    locator = struct.pack(
        "<4sLQL", b"PK\6\7", 0, len(body) + len(directory) if end is None else end, 1
    )
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return body + bytes(directory) + end64 + locator + last


def tar_header(name: bytes, kind: bytes = b"0", **fields: bytes) -> bytes:
    """A ustar header; fields: mode, size, mtime, linkname, magic, prefix as they are written."""
    parts = [
        name[:100].ljust(100, b"\0"),
        fields.get("mode", b"0000644\0"),
        b"0000000\0" * 2,
        fields.get("size", b"00000000000\0"),
        fields.get("mtime", b"14524770400\0"),
        b" " * 8,
        kind,
        fields.get("linkname", b"")[:100].ljust(100, b"\0"),
        fields.get("magic", b"ustar\x0000"),
        bytes(80),
        fields.get("prefix", b"")[:155].ljust(155, b"\0"),
        bytes(12),
    ]
    block = b"".join(parts)
    checksum = b"%06o\0 " % sum(block)
    return block[:148] + checksum + block[156:]


def tar_entry(name: bytes, content: bytes = b"", kind: bytes = b"0", **fields: bytes) -> bytes:
    """A header and its content, padded."""
    fields.setdefault("size", b"%011o\0" % len(content))
    return tar_header(name, kind, **fields) + content + bytes(-len(content) % 512)


def make_tar(*entries: bytes) -> bytes:
    """A tar with its end mark."""
    return b"".join(entries) + bytes(1024)


def pax_entry(records: bytes, kind: bytes = b"x") -> bytes:
    """A pax header of ready records."""
    return tar_entry(b"././@PaxHeader", records, kind)


def pax_record(key: str, value: bytes) -> bytes:
    """One pax record."""
    rest = b" " + key.encode() + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) + len(rest) != length:
        length += 1
    return str(length).encode() + rest


def small_tar(names: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar by tarfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as file:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = MTIME
            file.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zip_bomb(kernels: int = 200, kernel_bytes: int = 2**20) -> bytes:
    """Many entries that quote one packed kernel, each from its own local header on."""
    kernel = ZipEntry(b"k", bytes(kernel_bytes))
    packed = _packed(kernel)
    entries = [replace(kernel, name=b"bomb-%03d" % n, packed=packed) for n in range(kernels)]
    heads = [local_part(replace(entry, packed=b"")) for entry in entries]
    body, offsets = b"", []
    for head in heads:
        offsets.append(len(body))
        body += head
    body += packed
    directory = b"".join(
        central_part(entry, offset) for entry, offset in zip(entries, offsets, strict=True)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, kernels, kernels, len(directory), len(body), 0)
    return body + directory + end


def reaching_zip() -> bytes:
    """A stored entry whose content goes on into the next entry's header, CRC and all."""
    content = b"evil content"
    whole = bytearray(make_zip(_spec(), ZipEntry(b"evil", content, method=0), ZipEntry(b"next")))
    told = struct.pack("<3L", zlib.crc32(content + b"PK\3\4"), *[len(content) + 4] * 2)
    right = struct.pack("<3L", zlib.crc32(content), *[len(content)] * 2)
    assert whole.count(right) == 2
    return bytes(whole.replace(right, told))


@dataclass(frozen=True)
class Hostile:
    """An archive to refuse. says: what the message must hold, the entry's name among it."""

    name: str
    make: Callable[[], bytes]
    code: Code = Code.BUNDLE_REFUSED
    says: tuple[str, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)


def _spec() -> ZipEntry:
    return ZipEntry(b"appspec.yml", APPSPEC)


def _zip(name: str, entry: ZipEntry, *says: str, code: Code = Code.BUNDLE_REFUSED) -> Hostile:
    return Hostile(f"zip: {name}", lambda: make_zip(_spec(), entry), code, says)


def _tar(name: str, *entries: bytes, says: tuple[str, ...]) -> Hostile:
    return Hostile(
        f"tar: {name}", lambda: make_tar(tar_entry(b"appspec.yml", APPSPEC), *entries), says=says
    )


_NAMES = {
    "dot dot": b"../evil",
    "dot dot inside": b"a/../../evil",
    "dot dot last": b"a/..",
    "absolute": b"/tmp/evil",
    "backslash": b"a\\..\\evil",
    "drive letter": b"C:/evil",
    "control character": b"evil\nname",
    "escape sequence": b"evil\x1b[2J",
    "c1 control": "evil\u009bname".encode(),
    "empty part": b"a//evil",
    "single dot": b"a/./evil",
    "long name": b"evil" + b"x" * 300,
    "long name in bytes": ("evil" + "é" * 140).encode(),
    "long path": b"evil/" * 900 + b"f",
    "too deep": b"evil/" * 70 + b"f",
}
_LINK_TARGETS = {
    "absolute link": b"/etc/passwd",
    "link out": b"../../etc/passwd",
    "link out by one": b"../evil",
    "link down and up": b"a/../../..",
    "dangling link": b"nothing",
    "empty link": b"",
    "link through a file": b"appspec.yml/x",
}


def _clash_zip(first: bytes, second: bytes) -> Callable[[], bytes]:
    return lambda: make_zip(_spec(), ZipEntry(first, b"one"), ZipEntry(second, b"two"))


def _clash_tar(first: bytes, second: bytes) -> Callable[[], bytes]:
    return lambda: make_tar(
        tar_entry(b"appspec.yml", APPSPEC), tar_entry(first, b"one"), tar_entry(second, b"two")
    )


_CLASHES = {
    "twice": (b"evil", b"evil"),
    "twice by ./": (b"evil", b"./evil"),
    "two unicode forms": ("evil\u00e9".encode(), "evile\u0301".encode()),
    "unicode forms of a folder": ("evil\u00e9/a".encode(), "evile\u0301/b".encode()),
    "file, then below it": (b"evil", b"evil/below"),
    "below it, then file": (b"evil/below", b"evil"),
    "folder, then file": (b"evil/", b"evil"),
}

_LINK = 0o120777
_BIG = bytes(80 * 2**20)

ZIPS = [
    *(_zip(title, ZipEntry(name, b"x"), "evil" if b"evil" in name else "'a/..'")
      for title, name in _NAMES.items()),
    *(_zip(title, ZipEntry(b"evil", target, mode=_LINK, method=0), "'evil'")
      for title, target in _LINK_TARGETS.items()),
    *(Hostile(f"zip: {title}", _clash_zip(*pair), says=("evil",))
      for title, pair in _CLASHES.items()),
    _zip("NUL in a name", ZipEntry(b"evil\0.txt"), "evil", "NUL"),
    _zip("empty name", ZipEntry(b""), "empty name"),
    _zip("name is not the UTF-8 it should be", ZipEntry(b"evil\xff"), "evil", "UTF-8"),
    _zip("encrypted", ZipEntry(b"evil", b"x", flags=1), "'evil'", "encrypted"),
    _zip("strong encryption", ZipEntry(b"evil", b"x", flags=0x41), "'evil'", "encrypted"),
    _zip("bzip2 method", ZipEntry(b"evil", b"x", method=12), "'evil'", "method 12"),
    _zip("fifo", ZipEntry(b"evil", mode=0o010644), "'evil'", "fifo"),
    _zip("device", ZipEntry(b"evil", mode=0o020644), "'evil'", "device"),
    _zip("block device", ZipEntry(b"evil", mode=0o060644), "'evil'", "device"),
    _zip("socket", ZipEntry(b"evil", mode=0o140644), "'evil'", "socket"),
    _zip("folder with content", ZipEntry(b"evil/", b"x", mode=0o040755), "evil", "folder"),
    _zip("link named as a folder", ZipEntry(b"evil/", b"x", mode=_LINK), "evil", "folder"),
    _zip("long link target", ZipEntry(b"evil", b"a/" * 4000, mode=_LINK), "'evil'", "link"),
    _zip("another name in the local header",
         ZipEntry(b"evil", b"x", local=ZipEntry(b"good", b"x")), "'evil'", "good"),
    _zip("another method in the local header",
         ZipEntry(b"evil", b"x", method=0, local=ZipEntry(b"evil", b"x", packed=b"x")), "'evil'"),
    _zip("another crc in the local header",
         ZipEntry(b"evil", b"x", local=ZipEntry(b"evil", b"x", crc=1)), "'evil'", "CRC"),
    _zip("encrypted in the local header only",
         ZipEntry(b"evil", b"x", local=ZipEntry(b"evil", b"x", flags=1)), "'evil'"),
    _zip("header says less", ZipEntry(b"evil", b"x" * 5000, size=10), "'evil'", "10 bytes"),
    _zip("header of a big one says less",
         ZipEntry(b"evil", bytes(2**20), size=2**19), "'evil'", "bytes"),
    _zip("header says more", ZipEntry(b"evil", b"x" * 10, size=5000), "'evil'",
         code=Code.BUNDLE_DAMAGED),
    _zip("stored with another size", ZipEntry(b"evil", b"x", method=0, size=7), "'evil'"),
    _zip("wrong crc", ZipEntry(b"evil", b"x", crc=7), "'evil'", "CRC", code=Code.BUNDLE_DAMAGED),
    _zip("not deflate", ZipEntry(b"evil", b"x" * 9, packed=b"\xff" * 9), "'evil'",
         code=Code.BUNDLE_DAMAGED),
    _zip("more behind the deflate stream",
         ZipEntry(b"evil", b"x", packed=_packed(ZipEntry(b"", b"x")) + b"more"), "'evil'",
         code=Code.BUNDLE_DAMAGED),
    _zip("offset outside", ZipEntry(b"evil", b"x", offset=10**6), "'evil'"),
    _zip("offset of another entry", ZipEntry(b"evil", b"x", offset=0), "'evil'"),
    _zip("offset into another entry", ZipEntry(b"evil", b"x", offset=1),
         code=Code.BUNDLE_REFUSED),
    _zip("other disk", ZipEntry(b"evil", b"x", disk=3), "parts"),
    Hostile("zip: other disk at the end", lambda: make_zip(_spec(), disk=2), says=("parts",)),
    Hostile("zip: bytes before", lambda: make_zip(_spec(), before=b"PK\3\4 junk"),
            says=("front",)),
    Hostile("zip: bytes after", lambda: make_zip(_spec(), after=b"junk"), Code.BUNDLE_DAMAGED,
            ("follow",)),
    Hostile("zip: count too high", lambda: make_zip(_spec(), count=2), Code.BUNDLE_DAMAGED,
            ("2 entries",)),
    Hostile("zip: count too low", lambda: make_zip(_spec(), _spec(), count=1), Code.BUNDLE_DAMAGED,
            ("1 entries",)),
    Hostile("zip: empty", make_zip, says=("empty",)),
    Hostile("zip: overlapping bomb", zip_bomb, says=("500 times",)),
    Hostile("zip: overlapping entries", lambda: zip_bomb(60), says=("bomb-", "overlaps")),
    Hostile("zip: content goes on into another header", reaching_zip, says=("'evil'", "overlaps")),
    Hostile("zip: ratio bomb",
            lambda: make_zip(_spec(), ZipEntry(b"evil", _BIG, method=8)), says=("500 times",)),
    Hostile("zip: too many entries",
            lambda: make_zip(*(ZipEntry(b"evil%d" % n) for n in range(30))),
            says=("20 entries",), limits={"members": 20}),
    Hostile("zip: too big", lambda: make_zip(_spec(), ZipEntry(b"evil", b"x" * 5000)),
            says=("1000 bytes",), limits={"unpacked_bytes": 1000}),
    Hostile("zip: zip64 size", lambda: make_zip64(ZipEntry(b"evil", b"x"), size=2**63),
            says=("bytes of content",)),
    Hostile("zip: zip64 size of what is left out",
            lambda: make_zip64(ZipEntry(b"__MACOSX/evil", b"x"), size=2**63), says=("empty",)),
    Hostile("zip: zip64 end far away",
            lambda: make_zip64(ZipEntry(b"evil", b"x"), end=2**63 + 1), Code.BUNDLE_DAMAGED,
            ("zip64",)),
    Hostile("zip: link circle", lambda: make_zip(
        _spec(), ZipEntry(b"evil", b"two", mode=_LINK), ZipEntry(b"two", b"evil", mode=_LINK)),
        says=("evil", "circle")),
    Hostile("zip: write through a link", lambda: make_zip(
        _spec(), ZipEntry(b"evil", b"..", mode=_LINK), ZipEntry(b"evil/file", b"x")),
        says=("evil",)),
    Hostile("zip: write through a link inside", lambda: make_zip(
        _spec(), ZipEntry(b"real/x", b"x"), ZipEntry(b"evil", b"real", mode=_LINK),
        ZipEntry(b"evil/file", b"x")), says=("evil",)),
    Hostile("zip: link out of the stripped folder", lambda: make_zip(
        ZipEntry(b"top/appspec.yml", APPSPEC), ZipEntry(b"top/y", b"y"),
        ZipEntry(b"top/evil", b"../top/y", mode=_LINK)), says=("evil", "outside")),
    Hostile("zip: only its root", lambda: make_zip(ZipEntry(b"./", mode=0o040755)),
            says=("empty",)),
    Hostile("zip: a bomb in the zip is only a file", lambda: make_zip(
        _spec(), ZipEntry(b"evil.zip", zip_bomb(20)), ZipEntry(b"../evil", b"x")),
        says=("evil",)),
]  # fmt: skip

TARS = [
    *(_tar(title, pax_entry(pax_record("path", name)), tar_entry(b"x", b"x"),
           says=("evil" if b"evil" in name else "'a/..'",)) for title, name in _NAMES.items()),
    *(_tar(title, tar_entry(b"evil", kind=b"2", linkname=target), says=("'evil'",))
      for title, target in _LINK_TARGETS.items()),
    *(Hostile(f"tar: {title}", _clash_tar(*(part.rstrip(b"/") for part in pair)), says=("evil",))
      for title, pair in _CLASHES.items() if not pair[0].endswith(b"/")),
    _tar("folder, then file", tar_entry(b"evil/", kind=b"5"), tar_entry(b"evil", b"x"),
         says=("evil",)),
    _tar("plain name with dot dot", tar_entry(b"../evil", b"x"), says=("'../evil'", "..")),
    _tar("absolute prefix", tar_entry(b"evil", b"x", prefix=b"/tmp"), says=("'/tmp/evil'",)),
    _tar("NUL in a pax path", pax_entry(pax_record("path", b"evil\0x")), tar_entry(b"x"),
         says=("evil", "NUL")),
    _tar("hard link", tar_entry(b"evil", kind=b"1", linkname=b"appspec.yml"),
         says=("'evil'", "hard link")),
    _tar("hard link out", tar_entry(b"evil", kind=b"1", linkname=b"/etc/passwd"),
         says=("'evil'", "hard link")),
    _tar("fifo", tar_entry(b"evil", kind=b"6"), says=("'evil'", "fifo")),
    _tar("character device", tar_entry(b"evil", kind=b"3"), says=("'evil'", "device")),
    _tar("block device", tar_entry(b"evil", kind=b"4"), says=("'evil'", "device")),
    _tar("sparse file", tar_entry(b"evil", kind=b"S"), says=("'evil'", "sparse")),
    _tar("pax sparse file", pax_entry(pax_record("GNU.sparse.major", b"1")), tar_entry(b"evil"),
         says=("sparse",)),
    _tar("multi volume", tar_entry(b"evil", kind=b"M"), says=("'evil'", "volume")),
    _tar("unknown type", tar_entry(b"evil", kind=b"Z"), says=("'evil'", "type")),
    _tar("file named as a folder", tar_entry(b"evil/", b"x"), says=("'evil/'", "folder")),
    _tar("folder with content", tar_entry(b"evil", b"x", kind=b"5"), says=("'evil'", "content")),
    _tar("size below zero", tar_entry(b"evil", size=b"\xff" * 12), says=("below zero",)),
    _tar("pax size below zero", pax_entry(pax_record("size", b"-1")), tar_entry(b"evil"),
         says=("'evil'", "size")),
    _tar("huge base-256 size", tar_entry(b"evil", size=b"\x80" + b"\x7f" * 11),
         says=("'evil'", "size")),
    _tar("big base-256 size", tar_entry(b"evil", size=b"\x80" + bytes(4) + b"\1" + bytes(6)),
         says=("bytes of content",)),
    _tar("huge size of what is left out",
         tar_entry(b"__MACOSX/evil", size=b"\x80" + b"\x7f" * 11), says=("evil", "size")),
    _tar("huge pax size", pax_entry(pax_record("size", b"9" * 19)), tar_entry(b"._evil"),
         says=("evil", "size")),
    _tar("name is not UTF-8", tar_entry(b"evil\xff", b"x"), says=("evil", "UTF-8")),
    _tar("huge pax header", pax_entry(pax_record("comment", b"x" * 10**6)), tar_entry(b"evil"),
         says=("extended header",)),
    _tar("huge long name", tar_entry(b"././@LongLink", b"x" * 10**6, kind=b"L"),
         tar_entry(b"evil"), says=("extended header",)),
    _tar("two pax headers for one entry", pax_entry(pax_record("path", b"good")),
         pax_entry(pax_record("path", b"evil")), tar_entry(b"x"), says=("two extended headers",)),
    _tar("pax path and GNU long name", pax_entry(pax_record("path", b"good")),
         tar_entry(b"././@LongLink", b"evil\0", kind=b"L"), tar_entry(b"x"),
         says=("two extended headers",)),
    _tar("global path", pax_entry(pax_record("path", b"evil"), b"g"), tar_entry(b"x"),
         says=("global header",)),
    Hostile("tar: wrong checksum",
            lambda: make_tar(tar_entry(b"good"), tar_entry(b"evil").replace(b"evil", b"Evil")),
            Code.BUNDLE_DAMAGED, ("behind entry 'good'", "checksum")),
    _tar("something behind the end mark", bytes(1024), tar_entry(b"evil", b"x"),
         says=("end mark",)),
    _tar("many zeros behind the end mark", bytes(3 * 2**20), says=("zeros",)),
    Hostile("tar: too many entries",
            lambda: make_tar(*(tar_entry(b"evil%d" % n) for n in range(30))),
            says=("20 entries",), limits={"members": 20}),
    Hostile("tar: too big", lambda: make_tar(tar_entry(b"evil", b"x" * 5000)),
            says=("1000 bytes",), limits={"unpacked_bytes": 1000}),
    Hostile("tar: write through a link", lambda: make_tar(
        tar_entry(b"evil", kind=b"2", linkname=b".."), tar_entry(b"evil/file", b"x")),
        says=("evil",)),
    Hostile("tar: only its root", lambda: make_tar(tar_entry(b"./", kind=b"5")), says=("empty",)),
]  # fmt: skip


def _gzipped(case: Hostile) -> Hostile:
    return replace(
        case, name=case.name.replace("tar:", "tgz:"), make=lambda: gzip.compress(case.make(), 6)
    )


TGZS = [
    *map(_gzipped, TARS),
    Hostile("tgz: ratio bomb", lambda: gzip.compress(make_tar(tar_entry(b"evil", _BIG)), 9),
            says=("500 times",)),
    Hostile("tgz: bomb of headers that mean nothing", lambda: gzip.compress(
        make_tar(pax_entry(pax_record("comment", bytes(120 * 1024)), b"g") * 700), 9),
        says=("500 times",)),
    Hostile("tgz: zeros", lambda: gzip.compress(bytes(10240)), says=("empty",)),
    Hostile("tgz: bomb without a tar", lambda: gzip.compress(_BIG, 9)),
    Hostile("tgz: not a tar inside", lambda: gzip.compress(b"hello" * 500), Code.BUNDLE_DAMAGED,
            ("header",)),
]  # fmt: skip

HOSTILE = [*ZIPS, *TARS, *TGZS]
