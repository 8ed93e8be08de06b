"""Tar archives read member by member, without unpacking anything to disk.

Members are never written under their own names, so a hostile name cannot escape; it is still set aside, since an
archive that tries is not to be trusted.
"""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Self

from tilth.corpus.compression import Broken, Stream, open_stream
from tilth.corpus.records import Dropped, Rejected, printable

CHUNK = 16 * 1024
"""Bytes read from a member at once. At a break this much may be lost: `tarfile` gives out nothing of a failed read."""

MAX_MEMBERS = 1_000_000
MAX_MEMBER_BYTES = 16 * 1024**3
MAX_EXTENSION_BYTES = 1_000_000
"""Of what a header says in a place of its own, such as a long name."""

_EXTENSIONS = (
    tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE,
)  # fmt: skip


def is_tar(head: bytes) -> bool:
    """Whether the first bytes are a tar header (POSIX or GNU)."""
    return head[257:262] == b"ustar"


def is_hidden(name: str) -> bool:
    """Whether a path, or a folder on it, has a name that starts with a dot."""
    return any(part.startswith(".") for part in PurePosixPath(name).parts if part != "..")


def read_members(stream: Stream, source: str) -> Iterator[tuple[str, Stream] | Dropped | Rejected]:
    """Each regular file of the archive as (name, stream), to be read before the next is asked for.

    Hidden files are dropped. Links, devices, names that are absolute or climb out, and members past the caps are
    rejected. Raises: Broken when the archive ends early, is damaged, or more than zeros follow its end.
    """
    try:
        reader = _Reader(stream)
        with tarfile.open(fileobj=reader, mode="r|", tarinfo=_Member) as archive:  # type: ignore[arg-type]
            count = 0
            while (member := archive.next()) is not None:
                archive.members = []  # tarfile keeps every header otherwise
                if member.isdir():
                    continue
                count += 1
                name = printable(member.name)
                if count > MAX_MEMBERS:
                    yield Rejected(source, name, "too_many_members", f"only the first {MAX_MEMBERS:,} members are read")
                    return
                if is_hidden(member.name):
                    yield Dropped("hidden")
                    continue
                if problem := _problem(member):
                    yield Rejected(source, name, *problem)
                    continue
                file = archive.extractfile(member)
                assert file is not None
                yield name, open_stream(iter(lambda file=file: file.read1(CHUNK), b""), member.size)
            assert archive.fileobj is not None
            while block := archive.fileobj.read(CHUNK):
                if block.strip(b"\0"):
                    raise Broken("corrupt", "more follows the end of the archive, such as another archive: unpack it")
    except tarfile.TarError as error:
        reason = "truncated" if "unexpected end" in str(error) else "corrupt"
        raise Broken(reason, f"the archive cannot be read further: {error}") from None


class _Member(tarfile.TarInfo):
    """What a header says. `tarfile` takes a bad one for the end of the archive, unless it is the first."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        try:
            member = super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except (tarfile.EmptyHeaderError, tarfile.TruncatedHeaderError):  # type: ignore[attr-defined]
            raise tarfile.ReadError("unexpected end of data, without the mark of an archive's end") from None
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise tarfile.ReadError(f"a damaged header: {error}") from None
        if member.size < 0:
            raise tarfile.ReadError(f"a damaged header: a member of {member.size} bytes")
        return member

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:  # the hook that `tarfile` leaves to subclasses
        """What comes after the header. Long names and the like are read whole, before anyone can look at them."""
        if self.type in _EXTENSIONS and self.size > MAX_EXTENSION_BYTES:
            raise tarfile.InvalidHeaderError(f"{self.size:,} bytes of names")  # type: ignore[attr-defined]
        return super()._proc_member(archive)  # type: ignore[misc]


def _problem(member: tarfile.TarInfo) -> tuple[str, str] | None:
    path = PurePosixPath(member.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or path.parts[:1] and path.parts[0].endswith(":"):
        return "unsafe_path", "the name leads out of the archive"
    if member.issym() or member.islnk():
        return "link", f"a link to {printable(member.linkname)}; links in archives are not followed"
    if not member.isreg() or member.issparse():
        return "not_a_file", "neither a plain file nor a folder"
    if member.size > MAX_MEMBER_BYTES:
        return "too_large", f"{member.size:,} bytes; the limit for a member is {MAX_MEMBER_BYTES:,}"
    return None


class _Reader:
    """The one method `tarfile` needs. A break is raised only once the bytes before it have been given out."""

    def __init__(self, stream: Stream) -> None:
        self._chunks = stream.chunks()
        self._buffer = bytearray()
        self._broken: Broken | None = None

    def read(self, size: int) -> bytes:
        while len(self._buffer) < size and self._broken is None:
            try:
                chunk = next(self._chunks, None)
            except Broken as broken:
                self._broken = broken
                break
            if chunk is None:
                break
            self._buffer += chunk
        if not self._buffer and self._broken:
            raise self._broken
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data
