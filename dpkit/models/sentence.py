"""Sentences as vectors: a public encoder, whose vectors are near where meanings are.

`SentenceEncoder.load()` has all-MiniLM-L6-v2: BERT with 6 layers (Wang et al.,
"MiniLM", 2020, arXiv:2002.10957), trained on public pairs of sentences as Reimers and
Gurevych, "Sentence-BERT", 2019, arXiv:1908.10084. Say "with public pretraining" of
every number got with it.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load

from dpkit.data.files import load_files
from dpkit.data.values import contents
from dpkit.models.bert import read_bert, states

# One program for each; a text is padded to the first that holds it.
_LENGTHS = (16, 32, 64, 96, 128, 192, 256, 384, 512)
_MARKS = 2  # [CLS] and [SEP], which stand around every text
_TOGETHER = 64  # texts between two reports of progress


@dataclasses.dataclass(frozen=True, eq=False)
class SentenceEncoder:
    """A public function from one text to one vector.

    The mean of BERT's states over a text's tokens, scaled to length 1.

    Privacy: none is spent. Weights and tokenizer are fixed and made of public data, so
    a vector is post-processing of its own record alone. Within a process that holds
    bit for bit: each text is one run of a program that its own length chooses, so what
    other texts hold, and where they stand, changes no digit. It is total: no text can
    stop it, and a missing one, or one without any token, is the zero vector. How long
    it takes tells of lengths.

    Args:
      params: as `read_bert` gives them.
      tokenizer: a `tokenizers.Tokenizer` of BERT's kind, set to cut texts and not to
        pad them.
      heads: of BERT's attention.

    Raises:
      ValueError: the tokenizer doesn't cut, or leaves more tokens than there are
        positions.

    Example:
      >>> encoder = SentenceEncoder.load(allow_download=True)  # doctest: +SKIP
      >>> encoder.encode(["A film to remember.", None]).shape  # doctest: +SKIP
      (2, 384)
      >>> SentenceEncoder.load(allow_download=False, cache_dir="/nowhere")
      Traceback (most recent call last):
      dpkit.data.errors.DataUnavailable: name='all-MiniLM-L6-v2': not in the cache ...
    """

    params: Any
    tokenizer: Any
    heads: int

    def __post_init__(self) -> None:
        """Refuses texts that would not fit."""
        cut = (self.tokenizer.truncation or {}).get("max_length")
        most = min(len(self.params["places"]), _LENGTHS[-1])
        if cut is None or not _MARKS < cut <= most:
            raise ValueError(
                f"tokenizer: max_length={cut} of a text, {_MARKS + 1} to {most} "
                "needed: call its enable_truncation"
            )

    @classmethod
    def load(
        cls,
        *,
        allow_download: bool | None = None,
        cache_dir: str | os.PathLike[str] | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> SentenceEncoder:
        """all-MiniLM-L6-v2: vectors of 384, of a text's first 256 tokens.

        Args:
          allow_download: whether its 84 MB may be fetched; None: only if the
            environment has `DPKIT_ALLOW_DOWNLOAD=1`.
          cache_dir: where it is kept; by default `DPKIT_CACHE`, else the user's cache.
          on_progress: told in one line what is being done.

        Raises:
          ImportError: the extra `text` is not installed.
          DataUnavailable: not on this machine, and not allowed or not possible to
            fetch.
          DataCorrupt: the archive isn't the one on record.
        """
        read_tokenizer = _tokenizers().from_buffer
        files = load_files(
            "all-MiniLM-L6-v2",
            allow_download=allow_download,
            cache_dir=cache_dir,
            on_progress=on_progress,
        )
        tokenizer = read_tokenizer(files["tokenizer.json"])
        most = json.loads(files["sentence_bert_config.json"])["max_seq_length"]
        tokenizer.enable_truncation(most)
        tokenizer.no_padding()
        heads = json.loads(files["config.json"])["num_attention_heads"]
        return cls(read_bert(load(files["model.safetensors"])), tokenizer, heads)

    @property
    def width(self) -> int:
        """The size of a vector."""
        return self.params["words"].shape[1]

    def encode(
        self, texts: Iterable[Any], *, on_progress: Callable[[int], None] | None = None
    ) -> np.ndarray:
        """The vectors of texts.

        Args:
          texts: strings in a list, an array or a column. Null, NaN, lists and what
            can't be read are missing; numbers and dates are read as they are written.
          on_progress: told how many are done, every 64 texts.

        Returns:
          float32 (num_texts, width), each row of length 1, or 0 for a missing text.

        Raises:
          TypeError: one text in the place of many.
        """
        if isinstance(texts, str | bytes):
            raise TypeError(f"texts={type(texts).__name__}: give a list of texts")
        if hasattr(texts, "to_pylist"):  # Arrow's columns, whose entries are no strings
            texts = texts.to_pylist()
        words = [_text(value) for value in texts]
        vectors = np.zeros((len(words), self.width), np.float32)
        for start in range(0, len(words), _TOGETHER):
            part = slice(start, start + _TOGETHER)
            coded = self.tokenizer.encode_batch_fast(words[part])
            vectors[part] = jax.device_get([self._vector(text.ids) for text in coded])
            if on_progress is not None:
                on_progress(min(part.stop, len(words)))
        return vectors

    def _vector(self, ids: list[int]) -> Any:
        """The vector of one text by its tokens."""
        if len(ids) <= _MARKS:
            return np.zeros(self.width, np.float32)
        length = next(length for length in _LENGTHS if length >= len(ids))
        tokens = np.zeros(length, np.int32)
        tokens[: len(ids)] = ids
        return _program(self.params, tokens, np.int32(len(ids)), self.heads)


@functools.partial(jax.jit, static_argnames="heads")
def _program(params: Any, tokens: jax.Array, count: jax.Array, heads: int) -> jax.Array:
    """The mean of the states of a text's own tokens, scaled to length 1."""
    own = (jnp.arange(len(tokens)) < count)[:, None]
    total = jnp.where(own, states(params, tokens, count, heads), 0).sum(0)
    return total / jnp.maximum(jnp.linalg.norm(total), 1e-12)


def _text(value: Any) -> str:
    """The text of a value; empty if it has none."""
    try:
        return contents([value])[0]
    except Exception:  # whatever is in a record
        return ""


def _tokenizers() -> Any:
    """The class of tokenizers, from a package that only this needs."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ImportError(
            "SentenceEncoder needs the extra `text`: pip install 'dpkit-jax[text]' "
            f"({error})"
        ) from None
    return Tokenizer
