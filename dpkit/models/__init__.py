"""Networks that the command line can train by name; any other works by library."""

from dpkit.models.decoder import Decoder
from dpkit.models.language import LanguageModel, build_language
from dpkit.models.lora import merge
from dpkit.models.networks import MODELS, Network, build

__all__ = [
    "MODELS",
    "Decoder",
    "LanguageModel",
    "Network",
    "build",
    "build_language",
    "merge",
]
