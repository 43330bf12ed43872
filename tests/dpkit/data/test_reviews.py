"""Reviews: each text once, in a split that it alone decides."""

import json

import numpy as np
import pytest

from dpkit.data import DataUnavailable, load_reviews, reviews


@pytest.fixture
def given(monkeypatch):
    """Takes the place of the archive's content."""

    def give(rows):
        data = json.dumps([{"t": text, "s": label} for text, label in rows]).encode()
        monkeypatch.setattr(
            reviews, "load_files", lambda name, **_: {"reviews.json": data}
        )

    return give


ROWS = [(f"film {n}", n % 2) for n in range(200)]


def both():
    return {split: load_reviews(split) for split in ("train", "test")}


def test_every_text_is_once_in_one_split_with_its_label(given):
    given([*ROWS, *ROWS[:50]])
    found = both()
    pairs = [
        pair
        for split in found.values()
        for pair in zip(split["text"], split["label"].tolist(), strict=True)
    ]
    assert sorted(pairs) == sorted(ROWS)
    # Fair coins: fewer than 50 or more than 150 of 200 has probability below 1e-12.
    assert 50 < len(found["train"]["text"]) < 150


def test_no_review_decides_about_another(given):
    given(ROWS)
    before = set(load_reviews("train")["text"])
    given([("another", 1), *ROWS[:20:-1]])
    after = set(load_reviews("train")["text"])
    assert after - {"another"} == before - {text for text, _ in ROWS[:21]}


def test_another_split_is_refused():
    with pytest.raises(ValueError, match="split='validation'"):
        load_reviews("validation")


@pytest.mark.slow
@pytest.mark.needs_data
def test_the_real_ones():
    try:
        found = both()
    except DataUnavailable as error:
        pytest.skip(str(error))
    # 50,000 with 25,000 of each kind, less 418 that repeat another one (counted apart).
    assert len(found["train"]["text"]) + len(found["test"]["text"]) == 49_582
    praise = sum(int(split["label"].sum()) for split in found.values())
    assert praise == 24_884
    assert found["train"]["label"].dtype == np.int64
