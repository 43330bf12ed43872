"""Reviews of films as vectors of a public encoder, made once and kept in the cache.

Texts: `dpkit.data.load_reviews`. Vectors: `dpkit.models.SentenceEncoder`, each of its
own text alone. Numbers got with them are "with public pretraining".
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from dpkit.data import load_reviews
from dpkit.data.cache import open_cache, publish
from experiments.baselines.release import Array

TOKENS = 128  # of a text; half the time of 256


def review_vectors(
    split: str, count: int, allow_download: bool | None = None
) -> tuple[Array, Array]:
    """The first vectors of one split in an order that no label decides.

    Args:
      split: "train" or "test".
      count: rows; some 18 a second on one core, the first time.
      allow_download: as for `dpkit.data.load`.

    Returns:
      (count, 384) float32 of length 1, and (count,) labels, 1 of praise.

    Raises:
      DataUnavailable: not in the cache, and not to be fetched.
    """
    cache = open_cache()
    name = f"reviews-minilm-{TOKENS}-{split}-{count}.npz"
    final = cache.root / "experiments" / name
    if not final.exists():
        made = _encoded(split, count, allow_download)
        with cache.workplace() as folder:
            np.savez(folder / name, **made)
            publish(folder / name, final)
    with np.load(final) as kept:
        return kept["vectors"], kept["labels"]


def _encoded(split: str, count: int, allow_download: bool | None) -> dict[str, Any]:
    """Vectors and labels of reviews drawn by a fixed seed."""
    from dpkit.models import SentenceEncoder

    encoder = SentenceEncoder.load(allow_download=allow_download)
    encoder.tokenizer.enable_truncation(TOKENS)
    reviews = load_reviews(split, allow_download=allow_download)
    chosen = np.random.default_rng(0).permutation(len(reviews["text"]))[:count]
    texts = [reviews["text"][i] for i in chosen]
    return {"vectors": encoder.encode(texts), "labels": reviews["label"][chosen]}


def available(*parts: tuple[str, int]) -> list[tuple[Array, Array]] | None:
    """All parts, (split, count) each; None where one is neither here nor to be had."""
    from dpkit.data.errors import DataUnavailable

    with contextlib.suppress(DataUnavailable, ImportError):
        return [review_vectors(*part) for part in parts]
    return None
