"""Text as numbers: a vocabulary fixed beforehand, and windows of equal length.

The vocabulary is a constant of this file, never the set of characters that some text
happens to have: that set would tell whether a rare character is in a private row.
"""

from collections.abc import Mapping

import numpy as np

OTHER = "\N{REPLACEMENT CHARACTER}"
# Every character that is not on the list reads as the first symbol.
VOCABULARY = OTHER + "\n" + "".join(map(chr, range(32, 127)))


def encode(text: str) -> np.ndarray:
    """The symbols of a text, as places in `VOCABULARY`; 0 for any other character.

    Example:
      >>> encode("a\\n\N{EM DASH}")
      array([67,  1,  0], dtype=uint8)
    """
    points = np.frombuffer(text.encode("utf-32-le"), "<u4")
    return _CODES[np.minimum(points, len(_CODES) - 1)]


def decode(symbols: np.ndarray) -> str:
    """The text of some symbols; what was another character shows as one sign.

    Example:
      >>> decode(encode("To be"))
      'To be'
    """
    return "".join(VOCABULARY[int(symbol)] for symbol in symbols)


def windows(texts: Mapping[int, str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts each user's text into windows that don't overlap.

    No window holds text of two users, so the windows of a user are all there is of
    them. What is left at the end of a text, shorter than a window, is dropped.

    Args:
      texts: the text of each user, by the user's number.
      length: symbols in a window.

    Returns:
      Symbols, uint8 (num_windows, length), and the user of each window, int32
      (num_windows,), in the order of `texts`.

    Example:
      >>> symbols, users = windows({7: "abcde", 9: "x"}, 2)
      >>> [decode(row) for row in symbols], users.tolist()
      (['ab', 'cd'], [7, 7])
    """
    rows = [np.zeros((0, length), np.uint8)]
    users = [np.zeros(0, np.int32)]
    for user, text in texts.items():
        symbols = encode(text)
        count = len(symbols) // length
        rows.append(symbols[: count * length].reshape(count, length))
        users.append(np.full(count, user, np.int32))
    return np.concatenate(rows), np.concatenate(users)


def _codes() -> np.ndarray:
    """The symbol of each ASCII character; the last entry stands for all others."""
    codes = np.zeros(129, np.uint8)
    for symbol, character in enumerate(VOCABULARY[1:], start=1):
        codes[ord(character)] = symbol
    return codes


_CODES = _codes()
