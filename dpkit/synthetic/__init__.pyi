"""The public names, each written once, and where `__init__` finds them."""

from .aim import AIM as AIM
from .counting import Source as Source, open_source as open_source
from .discovery import discover as discover
from .gsd import GSD as GSD
from .independent import Independent as Independent
from .merf import MERF as MERF
from .model import Marginal as Marginal, Model as Model
from .mst import MST as MST
from .mwem import MWEM as MWEM
from .pairs import PAIRS as PAIRS
from .recipe import Known as Known, Measurement as Measurement
from .scores import Scores as Scores, scores as scores
from .synthesizer import Schema as Schema, Synthesizer as Synthesizer

__all__: list[str]
