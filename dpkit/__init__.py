"""dpkit: differential privacy for learning in JAX, on one honest ledger.

Names are loaded when they are first used, so that importing dpkit costs nothing. They
are listed in `__init__.pyi`, each once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
