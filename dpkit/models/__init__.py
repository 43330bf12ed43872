"""Networks that the command line can train by name; any other works by library."""

from dpkit.models.networks import MODELS, Network, build

__all__ = ["MODELS", "Network", "build"]
