"""Plays in Markdown: who says what, as one text for each role.

Layout: `# title`, `## act`, `### scene`, `_stage direction_`, and speeches: a line
`**NAME**`, then the lines that are spoken. A speech may go on after a direction.
"""

import re
from collections.abc import Mapping

from dpkit.data.arrays import Arrays
from dpkit.data.text import windows

# Plays whose roles appear in no other one, so that no user is in both splits. Chosen
# by title.
TEST_PLAYS = ("a-midsummer-night-s-dream", "king-john", "macbeth", "the-tempest")

_DIRECTION = re.compile(r"_+(?:[^_\n]|\n(?!\n))*_+")
_NAME = re.compile(r"\*\*(.+?)\*\*\s*")
_MARKS = str.maketrans("", "", "*_\\")


def parse_plays(members: Mapping[str, bytes], length: int = 129) -> dict[str, Arrays]:
    """The windows of all roles of all plays.

    A role is a name in one play; roles are numbered as they first speak, the training
    plays in the order of `members` first.

    Args:
      members: plays by file name, in Markdown.
      length: symbols in a window.

    Returns:
      For "train" and "test": "tokens", uint8 (num_windows, length); "user", int32
      (num_windows,), the role that speaks.

    Example:
      >>> play = b"# M\\n\\n**ANN**  \\nWho's there?\\n\\n_Exit_\\n\\n**BOB**  \\nI."
      >>> parse_plays({"x/hamlet.md": play, "x/macbeth.md": play}, 6)["test"]["user"]
      array([2, 2], dtype=int32)
    """
    texts: dict[str, dict[int, str]] = {"train": {}, "test": {}}
    number = 0
    for split in texts:
        for name, data in members.items():
            title = name.rpartition("/")[2].removesuffix(".md")
            if (title in TEST_PLAYS) == (split == "test"):
                for speeches in _roles(data.decode()).values():
                    texts[split][number] = "\n".join(speeches)
                    number += 1
    arrays: dict[str, Arrays] = {}
    for split, spoken in texts.items():
        tokens, user = windows(spoken, length)
        arrays[split] = {"tokens": tokens, "user": user}
    return arrays


def _roles(play: str) -> dict[str, list[str]]:
    """What each name of a play says, speech by speech."""
    speeches: dict[str, list[str]] = {}
    speaker = None
    for block in _DIRECTION.sub("", play).split("\n\n"):
        first, _, rest = block.strip().partition("\n")
        named = _NAME.fullmatch(first)
        if first.startswith("#"):
            speaker = None
        elif named:
            speaker = named[1]
        spoken = _plain(rest if named else block)
        if speaker is not None and spoken:
            speeches.setdefault(speaker, []).append(spoken)
    return speeches


def _plain(text: str) -> str:
    """The spoken lines without Markdown's marks and the blanks around them."""
    lines = (line.strip() for line in text.translate(_MARKS).splitlines())
    return "\n".join(line for line in lines if line)
