"""How privacy is bought: small pure releases in JAX, each with its event."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
