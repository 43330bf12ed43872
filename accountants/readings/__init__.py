"""The accountants: one event, read in six ways, and what is built on them."""

import lazy_loader

_NAMES = ["edgeworth", "gdp", "pld", "pure", "rdp", "zcdp"]
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, _NAMES)
