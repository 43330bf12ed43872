"""Symbols and windows, and what the plays become of them."""

import dataclasses
import hashlib

import numpy as np
import pytest

from dpkit.data import DataCorrupt, DataUnavailable, builder, load
from dpkit.data.arrays import check_arrays
from dpkit.data.cache import Cache
from dpkit.data.plays import TEST_PLAYS, parse_plays
from dpkit.data.records import Source, Split, digests
from dpkit.data.sources import SOURCES
from dpkit.data.text import OTHER, VOCABULARY, decode, encode, windows

PLAY = b"""# Macbeth

## ACT I

### SCENE I. A desert place.

_Enter three
Witches_

**First Witch**$
When shall we three meet again$
In thunder, _Aside_ or in rain?

_Thunder_

When the hurlyburly's done.

**Second Witch**$
__\\[Reads]_$
Fair is foul.

### SCENE II. A camp.

A line of nobody's.

**First Witch**$
Upon the heath.
""".replace(b"$", b"  ")  # the line breaks of Markdown
FIRST = (
    "When shall we three meet again\nIn thunder,  or in rain?\n"
    "When the hurlyburly's done.\nUpon the heath."
)
SECOND = "Fair is foul."


def test_the_vocabulary_is_printable_ascii_a_line_break_and_the_rest():
    assert len(VOCABULARY) == len(set(VOCABULARY)) == 97
    printable = {chr(n) for n in range(128) if chr(n).isprintable()}
    assert set(VOCABULARY) == {OTHER, "\n", *printable}


def test_symbols_are_places_in_the_vocabulary():
    text = "".join(map(chr, range(0x250))) + "—\N{GRINNING FACE}"
    # `find` says -1 of what is not there.
    want = [max(VOCABULARY.find(character), 0) for character in text]
    assert encode(text).tolist() == want
    assert encode(text).dtype == np.uint8
    assert decode(encode(text[32:127])) == text[32:127]


@pytest.mark.parametrize("length", [1, 2, 3, 5])
def test_windows_are_the_texts_without_their_ends(length):
    texts = {4: "abcdefg", 2: "", 9: "hi", 0: "jklmnopqrs"}
    symbols, users = windows(texts, length)
    assert symbols.shape == (len(users), length)
    for user, text in texts.items():
        kept = "".join(decode(row) for row in symbols[users == user])
        assert kept == text[: len(text) // length * length]
    assert list(dict.fromkeys(users.tolist())) == [
        user for user, text in texts.items() if len(text) >= length
    ]


def test_no_text_gives_no_windows():
    symbols, users = windows({}, 3)
    assert symbols.shape == (0, 3) and users.shape == (0,)


def test_a_play_becomes_one_text_a_role():
    members = {"x/macbeth.md": PLAY, "y/hamlet.md": PLAY}
    arrays = parse_plays(members, 4)
    for split, first in (("train", 0), ("test", 2)):
        tokens, user = arrays[split]["tokens"], arrays[split]["user"]
        for number, text in ((first, FIRST), (first + 1, SECOND)):
            kept = "".join(decode(row) for row in tokens[user == number])
            assert kept == text[: len(text) // 4 * 4]
        assert set(user.tolist()) == {first, first + 1}


def _tiny() -> tuple[Source, dict]:
    arrays = parse_plays({"x/macbeth.md": PLAY, "y/hamlet.md": PLAY}, 4)
    header = [bytes([0, 0, 8, 2]), bytes([0, 0, 12, 1])]
    splits = {}
    for split, rows in arrays.items():
        count = len(rows["user"]).to_bytes(4, "big")
        tokens = header[0] + count + bytes([0, 0, 0, 4]) + rows["tokens"].tobytes()
        user = header[1] + count + rows["user"].astype(">i4").tobytes()
        splits[split] = Split(
            size=len(rows["user"]),
            sha256=digests(tokens=_hash(tokens), user=_hash(user)),
        )
    source = dataclasses.replace(
        SOURCES["shakespeare"], shape=(3,), num_users=4, splits=splits
    )
    return source, arrays


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("tokens", lambda x: x.astype(np.int32), "dtype=int32"),
        ("tokens", lambda x: x + np.uint8(60), "0 to 96 expected"),
        ("tokens", lambda x: x[::-1], "tokens sha256"),
        ("user", lambda x: x + np.int32(3), "user 3 to 4, 0 to 3 expected"),
        ("user", lambda x: x[::-1], "user sha256"),
    ],
)
def test_text_is_exactly_the_published_one(name, change, message):
    source, arrays = _tiny()
    check_arrays(source, "train", arrays["train"])
    changed = {**arrays["train"], name: change(arrays["train"][name])}
    with pytest.raises(DataCorrupt, match=message):
        check_arrays(source, "train", changed)


@pytest.mark.skipif(not builder.can_build(), reason="array_record is for Linux only")
def test_text_in_tensorflow_datasets(tmp_path):
    source, arrays = _tiny()
    cache = Cache(tmp_path)
    builder.prepare(cache, source, arrays, lambda message: None)
    assert builder.is_prepared(cache, source)
    for split, rows in builder.read_prepared(cache, source).items():
        for name, values in arrays[split].items():
            np.testing.assert_array_equal(rows[name], values)
            assert rows[name].dtype == values.dtype


def _spoken(arrays) -> list[str]:
    """All that each role says."""
    return [
        "".join(decode(row) for row in arrays["tokens"][arrays["user"] == user])
        for user in np.unique(arrays["user"])
    ]


@pytest.mark.needs_data
@pytest.mark.slow
def test_the_real_plays():
    try:
        plays = load("shakespeare")
    except DataUnavailable as error:
        pytest.skip(str(error))
    schema = plays.schema
    assert (schema.kind, schema.num_classes, schema.shape) == ("text", 97, (128,))
    train, test = plays.arrays("train"), plays.arrays("test")
    assert train["tokens"].shape == (schema.split_sizes["train"], 129)
    assert not set(train["user"].tolist()) & set(test["user"].tolist())
    # Known lines, in one role's mouth and in one split.
    hamlet = "To be, or not to be: that is the question:"
    witches = "Double, double toil and trouble;"
    assert sum(hamlet in text for text in _spoken(train)) == 1
    assert any(witches in text for text in _spoken(test))
    assert not any(witches in text for text in _spoken(train))
    assert "macbeth" in TEST_PLAYS
