"""Reviews of films, each with what its writer thought: texts with a label.

50,000 reviews from IMDb (Maas et al., "Learning Word Vectors for Sentiment Analysis",
2011), of which 418 repeat another one's text to the letter and are left out.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from dpkit.data.files import load_files


def load_reviews(
    split: str,
    *,
    allow_download: bool | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """The reviews of one split.

    A hash of the text decides its split, so no review decides about another's. Equal
    texts count once.

    Args:
      split: "train" or "test".
      allow_download: as for `load`.
      on_progress: as for `load`.

    Returns:
      "text", a list of strings, in which line ends are `<br />`; "label", int64, 1 of
      praise.

    Raises:
      ValueError: another split.
      DataUnavailable: as for `load`.
      DataCorrupt: as for `load`.

    Example:
      >>> load_reviews("train", allow_download=True)["label"]  # doctest: +SKIP
      array([0, 0, 0, ..., 1, 1, 1])
      >>> load_reviews("validation")
      Traceback (most recent call last):
      ValueError: split='validation': the reviews have train, test
    """
    if split not in ("train", "test"):
        raise ValueError(f"split={split!r}: the reviews have train, test")
    files = load_files("imdb", allow_download=allow_download, on_progress=on_progress)
    labels = {row["t"]: row["s"] for row in json.loads(files["reviews.json"])}
    texts = [text for text in labels if _in_train(text) == (split == "train")]
    return {"text": texts, "label": np.array([labels[text] for text in texts])}


def _in_train(text: str) -> bool:
    """Whether a review is for training, as half of them are."""
    return hashlib.sha256(text.encode()).digest()[0] < 128
