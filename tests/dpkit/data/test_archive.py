"""Archives: what is on record is read, everything odd is refused and deleted."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from dpkit.data import DataCorrupt, archive
from dpkit.data.archive import read_members
from dpkit.data.records import Archive, Member
from tests.dpkit.data.conftest import sha256, zip_bytes

_DATA = b"thirteen byte"
_NAME = "package/data/values"


def _record(data: bytes, filename: str, member: Member | None = None) -> Archive:
    return Archive(
        registry="npm",
        package="values",
        version="1.0",
        filename=filename,
        size=len(data),
        sha256=sha256(data),
        members=(member or Member(name=_NAME, size=13, sha256=sha256(_DATA)),),
        parser="mnist_idx",
    )


def _tar_bytes(*entries: tuple[tarfile.TarInfo, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as opened:
        for info, data in entries:
            info.size = len(data)
            opened.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def _tar_entry(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


def _zip_link(name: str, target: bytes) -> bytes:
    stream = io.BytesIO()
    info = zipfile.ZipInfo(name)
    info.external_attr = 0o120777 << 16  # S_IFLNK, as Info-ZIP writes a link
    with zipfile.ZipFile(stream, "w") as opened:
        opened.writestr(info, target)
    return stream.getvalue()


_GOOD_ZIP = zip_bytes({"other": b"x", _NAME: _DATA})
_GOOD_TAR = _tar_bytes((_tar_entry("other"), b"x"), (_tar_entry(_NAME), _DATA))


def _refused(tmp_path: Path, data: bytes, filename: str, **changes) -> str:
    """Write the archive, expect a refusal and the file gone; the message."""
    path = tmp_path / filename
    path.write_bytes(data)
    with pytest.raises(DataCorrupt) as caught:
        read_members(path, _record(data, filename, **changes))
    assert not path.exists()
    message = str(caught.value)
    assert "deleted" in message and "\n" not in message
    return message


@pytest.mark.parametrize(
    ("filename", "data"), [("a.whl", _GOOD_ZIP), ("a.tgz", _GOOD_TAR)]
)
def test_reads_the_members_on_record_only(tmp_path, filename, data):
    path = tmp_path / filename
    path.write_bytes(data)
    assert read_members(path, _record(data, filename)) == {_NAME: _DATA}
    assert [p.name for p in tmp_path.iterdir()] == [filename]


def test_another_hash_is_shown_beside_the_right_one_and_the_file_deleted(tmp_path):
    path = tmp_path / "a.whl"
    path.write_bytes(_GOOD_ZIP[:-1])
    with pytest.raises(DataCorrupt) as caught:
        read_members(path, _record(_GOOD_ZIP, "a.whl"))
    assert sha256(_GOOD_ZIP) in str(caught.value)
    assert sha256(_GOOD_ZIP[:-1]) in str(caught.value)
    assert not path.exists()


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("a.zip", zip_bytes({"other": _DATA})),
        ("a.tar", _tar_bytes((_tar_entry("other"), _DATA))),
        ("a.tgz", _tar_bytes(*[(_tar_entry(_NAME), _DATA)] * 2)),
    ],
    ids=["missing", "missing in tar", "twice"],
)
def test_a_member_is_there_exactly_once(tmp_path, filename, data):
    assert "1 expected" in _refused(tmp_path, data, filename)


@pytest.mark.parametrize(
    ("filename", "data"),
    [
        ("a.tgz", _tar_bytes((_tar_entry(_NAME, tarfile.SYMTYPE), b""))),
        ("a.tgz", _tar_bytes((_tar_entry(_NAME, tarfile.LNKTYPE), b""))),
        ("a.tgz", _tar_bytes((_tar_entry(_NAME, tarfile.FIFOTYPE), b""))),
        ("a.whl", _zip_link(_NAME, b"/etc/passwd")),
    ],
    ids=["symlink", "hard link", "pipe", "symlink in zip"],
)
def test_a_member_is_a_regular_file(tmp_path, filename, data):
    assert "no regular file" in _refused(tmp_path, data, filename)


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/etc/evil", "..\\evil"])
def test_no_entry_points_out_of_the_archive(tmp_path, name):
    entries = (_tar_entry(name), b"x"), (_tar_entry(_NAME), _DATA)
    assert "leaves" in _refused(tmp_path, _tar_bytes(*entries), "a.tgz")
    zipped = zip_bytes({name: b"x", _NAME: _DATA})
    assert "leaves" in _refused(tmp_path, zipped, "a.zip")


def test_size_and_hash_of_a_member(tmp_path):
    member = Member(name=_NAME, size=12, sha256=sha256(_DATA))
    message = _refused(tmp_path, _GOOD_ZIP, "a.zip", member=member)
    assert "13 bytes, 12 expected" in message
    member = Member(name=_NAME, size=13, sha256="0" * 64)
    message = _refused(tmp_path, _GOOD_TAR, "a.tgz", member=member)
    assert "0" * 64 in message and sha256(_DATA) in message


def test_a_huge_member_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_LARGEST_MEMBER", 12)
    assert "at most 12" in _refused(tmp_path, _GOOD_ZIP, "a.zip")


@pytest.mark.parametrize("filename", ["a.whl", "a.tgz"])
def test_bytes_that_are_no_archive(tmp_path, filename):
    _refused(tmp_path, b"<html>not found</html>", filename)
