"""The public names, each written once, and where `__init__` finds them."""

from .choice import Choice as Choice, choose as choose
from .classifier import Classifier as Classifier
from .released import Answers as Answers, Release as Release, load as load
from .releasing import (
    curate as curate,
    release as release,
    release_shards as release_shards,
)
from .shards import Shard as Shard

__all__: list[str]
