"""The tar format: headers to members and back.

Read: ustar, pax (POSIX.1-2017, pax: "pax Interchange Format"), GNU long names, base-256 numbers, and the
four ways of writing sparse files (tar(5), GNU tar manual "Storing Sparse Files"). The input is hostile: every
number has a bound, and nothing here touches a file system.

Written: one deterministic form, ustar headers with pax records only where ustar cannot say it.

Standard library only: the unpacking worker imports this.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator

BLOCK = 512
REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
KINDS = {
    stat.S_IFREG: REGULAR,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCKDEV,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFIFO: FIFO,
}
"""Type of a file (inode(7)) -> type of a member. Sockets have none."""

EXTENSION_LIMIT = 1 << 20
"""Bytes of one pax or long-name record."""
_SPARSE_LIMIT = 1 << 20
"""Pieces of one sparse file."""
_SIZE_LIMIT = 1 << 62
_PATH_LIMIT = 4095
_ID_LIMIT = (1 << 32) - 2
_XATTR = b"SCHILY.xattr."
_ZERO = bytes(BLOCK)
_DIRECT = 1 << 16


class TarError(ValueError):
    """The archive is not a tar archive, or breaks one of the bounds."""


class Member:
    """One header with its extensions applied. Names are bytes, as they stood. `mtime` is nanoseconds.

    `size` counts the bytes of data in the archive; `length` those of the file, which differ when `pieces`
    (offset, size) tell where the data of a sparse file goes. No dataclass: the workers that import this are
    started for one file, and `dataclasses` would take 20 ms of it.
    """

    __slots__ = (
        "gid",
        "kind",
        "length",
        "link",
        "major",
        "minor",
        "mode",
        "mtime",
        "name",
        "pieces",
        "size",
        "uid",
        "xattrs",
    )

    def __init__(
        self,
        name: bytes,
        kind: bytes = REGULAR,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        link: bytes = b"",
        major: int = 0,
        minor: int = 0,
        xattrs: dict[bytes, bytes] | None = None,
        pieces: list[tuple[int, int]] | None = None,
        length: int = 0,
    ) -> None:
        self.name, self.kind, self.mode, self.uid, self.gid = name, kind, mode, uid, gid
        self.size, self.mtime, self.link, self.major, self.minor = size, mtime, link, major, minor
        self.xattrs: dict[bytes, bytes] = {} if xattrs is None else xattrs
        self.pieces, self.length = pieces, length

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Member({', '.join(f'{name}={getattr(self, name)!r}' for name in self.__slots__)})"


def relative(name: bytes) -> bytes:
    """A member's name, or the target of a hard link, as a path below where the archive goes, without dots;
    absolute ones are taken below it. Raises TarError."""
    if b"\0" in name or len(name) > _PATH_LIMIT:
        raise TarError(f"impossible name {name!r:.200}")
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise TarError(f"name {name!r:.200} leads out of the archive")
    return b"/".join(parts)


def owner(member: Member) -> tuple[int, int]:
    """Raises TarError for ids that no file can have."""
    if not 0 <= member.uid <= _ID_LIMIT or not 0 <= member.gid <= _ID_LIMIT:
        raise TarError(f"{member.name!r:.200} has an impossible owner")
    return member.uid, member.gid


# --- reading -------------------------------------------------------------------------------------


class Source:
    """Bytes of a stream by number; `fill(n)` returns up to about n bytes, b"" at the end.

    `seek(n)`, for what can, makes the next n bytes that `fill` would give not come.
    """

    def __init__(self, fill: Callable[[int], bytes], seek: Callable[[int], None] | None = None) -> None:
        self._fill = fill
        self._seek = seek
        self._held = b""
        self._at = 0
        self.position = 0

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes. Raises TarError when the stream ends before."""
        end = self._at + count
        if end <= len(self._held):
            piece = self._held[self._at : end]
            self._at = end
            self.position += count
            return piece
        return b"".join(self.chunks(count))

    def maybe(self, count: int) -> bytes:
        """`count` bytes, or b"" when the stream has already ended."""
        if self._at == len(self._held):
            self._held, self._at = self._fill(1 << 20), 0
            if not self._held:
                return b""
        return self.take(count)

    def chunks(self, count: int) -> Iterator[bytes]:
        """`count` bytes in pieces."""
        self.position += count
        while count:
            if self._at == len(self._held):
                self._held, self._at = self._fill(1 << 20), 0
                if not self._held:
                    raise TarError("unexpected end of archive")
            piece = self._held[self._at : self._at + count]
            self._at += len(piece)
            count -= len(piece)
            yield piece

    def skip(self, count: int) -> None:
        held = len(self._held) - self._at
        if self._seek is not None and count > held:
            self.position += count
            self._at += held
            self._seek(count - held)
            return
        for _ in self.chunks(count):
            pass


def members(source: Source) -> Iterator[Member]:
    """Every member in turn, up to the end marker.

    Before the next one is asked for, the caller has taken exactly `member.size` bytes from the source; the
    padding is dropped here. Raises TarError.
    """
    common: dict[bytes, bytes] = {}
    while True:
        member = _next(source, common)
        if member is None:
            return
        padding = -member.size % BLOCK
        yield member
        if padding:
            source.take(padding)


def _next(source: Source, common: dict[bytes, bytes]) -> Member | None:
    """The next member proper, with the records before it applied; None at the end."""
    records: dict[bytes, bytes] = {}
    while True:
        block = source.maybe(BLOCK)
        if not block or block == _ZERO:
            return None
        match block[156:157]:
            case b"x" | b"X":
                records |= _records(_extension(source, block))
            case b"g":
                common |= _records(_extension(source, block))
            case b"L":
                records[b"path"] = _string(_extension(source, block))
            case b"K":
                records[b"linkpath"] = _string(_extension(source, block))
            case _:
                return _member(source, block, {**common, **records})


def _member(source: Source, block: bytes, records: dict[bytes, bytes]) -> Member:
    member = _header(block)
    if records:
        _apply(member, records)
    # The oldest tars know no directories but by the slash at their end; a cut name may end in one by chance.
    if member.kind == REGULAR and member.name.endswith(b"/"):
        member.kind = DIRECTORY
    if block[156:157] == b"S":
        _old_sparse(source, block, member)
    elif records and any(key.startswith(b"GNU.sparse.") for key in records):
        _pax_sparse(source, records, member)
    if member.kind != REGULAR:
        member.size = 0
    if member.pieces is None:
        member.length = member.size
    else:
        _check_pieces(member)
    return member


def _header(block: bytes) -> Member:
    _check_sum(block)
    kind = block[156:157]
    name = _string(block[:100])
    magic = block[257:265]
    if magic[:6] == b"ustar\0" and block[345]:
        name = _string(block[345:500]) + b"/" + name
    if kind in (b"\0", b"7", b"S"):
        kind = REGULAR
    if kind not in (REGULAR, HARDLINK, SYMLINK, CHARACTER, BLOCKDEV, DIRECTORY, FIFO):
        raise TarError(f"{name!r:.80} is of unknown type {kind!r}")
    return Member(
        name=name,
        kind=kind,
        mode=_number(block[100:108]) & 0o7777,
        uid=_number(block[108:116]),
        gid=_number(block[116:124]),
        size=_size(_number(block[124:136])),
        mtime=_number(block[136:148]) * 1_000_000_000,
        link=_string(block[157:257]),
        major=_number(block[329:337]) if kind in (CHARACTER, BLOCKDEV) else 0,
        minor=_number(block[337:345]) if kind in (CHARACTER, BLOCKDEV) else 0,
    )


def _check_sum(block: bytes) -> None:
    """The sum counts its own field as spaces; some old writers summed signed bytes."""
    try:
        stated = _number(block[148:156])
    except TarError:
        raise TarError("not a tar archive") from None
    unsigned = sum(block) - sum(block[148:156]) + 8 * 32
    if stated == unsigned:
        return
    signed = unsigned - 256 * sum(1 for byte in block[:148] + block[156:] if byte > 127)
    if stated != signed:
        raise TarError("not a tar archive, or a damaged one (bad header checksum)")


def _string(raw: bytes) -> bytes:
    return raw.partition(b"\0")[0]


def _number(raw: bytes) -> int:
    """Octal, or big-endian two's complement when the top bit is set (GNU base-256)."""
    if raw[0] & 0x80:
        return int.from_bytes(
            bytes([raw[0] & 0x7F if raw[0] != 0xFF else 0xFF]) + raw[1:], signed=raw[0] == 0xFF
        )
    text = raw.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise TarError(f"not an octal number: {raw!r}")
    return int(text, 8)


def _decimal(raw: bytes) -> int:
    if not raw.isdigit() or len(raw) > 20:
        raise TarError(f"not a number: {raw!r:.60}")
    return int(raw)


def _size(count: int) -> int:
    if not 0 <= count <= _SIZE_LIMIT:
        raise TarError(f"impossible size {count}")
    return count


def _extension(source: Source, block: bytes) -> bytes:
    _check_sum(block)
    size = _size(_number(block[124:136]))
    if size > EXTENSION_LIMIT:
        raise TarError(f"a header record of {size} bytes is too long")
    content = source.take(size)
    source.take(-size % BLOCK)
    return content


def _records(content: bytes) -> dict[bytes, bytes]:
    """pax records: "LENGTH KEY=VALUE\\n", the length counting all of it."""
    records: dict[bytes, bytes] = {}
    offsets: list[bytes] = []
    at = 0
    while at < len(content) and content[at]:
        space = content.find(b" ", at, at + 21)
        if space < 0:
            raise TarError("broken pax record")
        end = at + _decimal(content[at:space])
        if end <= space or end > len(content) or content[end - 1 : end] != b"\n":
            raise TarError("broken pax record")
        key, equals, value = content[space + 1 : end - 1].partition(b"=")
        if not equals:
            raise TarError("broken pax record")
        # Sparse format 0.0 repeats these two keys, a pair for each piece.
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            offsets.append(value)
        records[key] = value
        at = end
    if offsets:
        records[b"GNU.sparse.map"] = b",".join(offsets)
    return records


def _apply(member: Member, records: dict[bytes, bytes]) -> None:
    for key, value in records.items():
        if key == b"path" and value:
            member.name = value
        elif key == b"linkpath" and value:
            member.link = value
        elif key == b"size" and value:
            member.size = _size(_decimal(value))
        elif key == b"uid" and value:
            member.uid = _decimal(value)
        elif key == b"gid" and value:
            member.gid = _decimal(value)
        elif key == b"mtime" and value:
            member.mtime = _instant(value)
        elif key.startswith(_XATTR):
            member.xattrs[key[len(_XATTR) :]] = value


def _instant(text: bytes) -> int:
    """Decimal seconds, perhaps negative, perhaps with a fraction, as nanoseconds."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.removeprefix(b"-").partition(b".")
    return sign * (
        _decimal(whole) * 1_000_000_000 + (_decimal(fraction[:9].ljust(9, b"0")) if fraction else 0)
    )


def _old_sparse(source: Source, block: bytes, member: Member) -> None:
    """GNU type S: four pieces in the header, 21 in each block that follows while a flag says so."""
    pieces = _sparse_structs(block[386:482])
    more = block[482]
    member.length = _size(_number(block[483:495]))
    while more:
        extra = source.take(BLOCK)
        pieces += _sparse_structs(extra[:504])
        more = extra[504]
        if len(pieces) > _SPARSE_LIMIT:
            raise TarError("too many pieces in a sparse file")
    member.pieces = pieces


def _sparse_structs(raw: bytes) -> list[tuple[int, int]]:
    rows = (raw[at : at + 24] for at in range(0, len(raw), 24))
    return [(_size(_number(row[:12])), _size(_number(row[12:]))) for row in rows if row[0]]


def _pax_sparse(source: Source, records: dict[bytes, bytes], member: Member) -> None:
    if member.kind != REGULAR:
        raise TarError("only a regular file can be sparse")
    if b"GNU.sparse.name" in records:
        member.name = records[b"GNU.sparse.name"]
    real = records.get(b"GNU.sparse.realsize") or records.get(b"GNU.sparse.size") or b""
    member.length = _size(_decimal(real))
    if records.get(b"GNU.sparse.major") == b"1":
        numbers = _sparse_prefix(source, member)
    else:
        text = records.get(b"GNU.sparse.map", b"")
        numbers = [_size(_decimal(one)) for one in text.split(b",")] if text else []
    if len(numbers) % 2:
        raise TarError("broken sparse map")
    member.pieces = list(zip(numbers[::2], numbers[1::2], strict=True))


def _sparse_prefix(source: Source, member: Member) -> list[int]:
    """Format 1.0: the map stands before the data, as decimal lines padded to whole blocks."""
    text = b""
    wanted = 1
    while text.count(b"\n") < wanted:
        if len(text) >= member.size or len(text) > EXTENSION_LIMIT:
            raise TarError("broken sparse map")
        text += source.take(BLOCK)
        if wanted == 1 and b"\n" in text:
            wanted = 1 + 2 * _decimal(text.partition(b"\n")[0])
            if wanted > 2 * _SPARSE_LIMIT:
                raise TarError("too many pieces in a sparse file")
    member.size -= len(text)
    return [_size(_decimal(line)) for line in text.split(b"\n")[1:wanted]]


def _check_pieces(member: Member) -> None:
    end = 0
    for offset, size in member.pieces or ():
        if offset < end:
            raise TarError("broken sparse map")
        end = offset + size
    if end > member.length or sum(size for _, size in member.pieces or ()) != member.size or member.size < 0:
        raise TarError("broken sparse map")


# --- writing -------------------------------------------------------------------------------------


def header(member: Member) -> bytes:
    """The blocks before a member's data. Equal members give equal bytes."""
    records: list[tuple[bytes, bytes]] = []
    name, link = member.name, member.link
    if len(name) > 100 or not name.isascii():
        records.append((b"path", name))
    if len(link) > 100 or not link.isascii():
        records.append((b"linkpath", link))
    for key, value, digits in ((b"uid", member.uid, 7), (b"gid", member.gid, 7), (b"size", member.size, 11)):
        if value >= 8**digits:
            records.append((key, b"%d" % value))
    seconds, fraction = divmod(member.mtime, 1_000_000_000)
    if fraction or not 0 <= seconds < 8**11:
        records.append((b"mtime", _seconds(member.mtime)))
    records += [(_XATTR + key, member.xattrs[key]) for key in sorted(member.xattrs)]
    block = _block(member, max(0, seconds))
    if not records:
        return block
    content = b"".join(_record(key, value) for key, value in sorted(records))
    extension = Member(name=b"PaxHeaders/" + name[:80].rpartition(b"/")[2], size=len(content))
    return _block(extension, 0, b"x") + content + bytes(-len(content) % BLOCK) + block


def _block(member: Member, seconds: int, kind: bytes = b"") -> bytes:
    fields = (
        member.name[:100].ljust(100, b"\0"),
        _octal(member.mode, 8),
        _octal(member.uid, 8),
        _octal(member.gid, 8),
        _octal(member.size, 12),
        _octal(seconds, 12),
        b" " * 8,
        kind or member.kind,
        member.link[:100].ljust(100, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),
        _octal(member.major, 8),
        _octal(member.minor, 8),
    )
    block = b"".join(fields).ljust(BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _octal(value: int, width: int) -> bytes:
    digits = width - 1
    return b"%0*o\0" % (digits, value if value < 8**digits else 0)


def _record(key: bytes, value: bytes) -> bytes:
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    if len(str(length)) != len(str(rest)):
        length = rest + len(str(length))
    return b"%d %s=%s\n" % (length, key, value)


def _seconds(nanoseconds: int) -> bytes:
    whole, fraction = divmod(abs(nanoseconds), 1_000_000_000)
    sign = b"-" if nanoseconds < 0 else b""
    return sign + b"%d" % whole + (b".%09d" % fraction if fraction else b"")
