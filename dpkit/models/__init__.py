"""Networks that the command line can train by name; any other works by library.

`SentenceEncoder` is trained already, and public: it makes vectors of texts.
"""

from dpkit.models.calling import Model, as_model
from dpkit.models.decoder import Decoder
from dpkit.models.factory import build_own
from dpkit.models.language import LanguageModel, build_language
from dpkit.models.lora import merge
from dpkit.models.networks import MODELS, Network, build, build_for
from dpkit.models.parameters import load_params
from dpkit.models.sentence import SentenceEncoder

__all__ = [
    "MODELS",
    "Decoder",
    "LanguageModel",
    "Model",
    "Network",
    "SentenceEncoder",
    "as_model",
    "build",
    "build_for",
    "build_language",
    "build_own",
    "load_params",
    "merge",
]
