"""Private tables: noisy marginals, selections, the domain of a column, embeddings."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
