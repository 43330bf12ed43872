"""How privacy is counted: events, accountants and the ledger; never imports JAX.

Names are loaded when they are first used (`__init__.pyi` lists them): importing this
package costs nothing. The accountants by name, `pld` and others, are modules.
"""

import lazy_loader

__getattr__, __dir__, _every = lazy_loader.attach_stub(__name__, __file__)
_ACCOUNTANTS = ("edgeworth", "gdp", "pld", "pure", "rdp", "zcdp")
__all__ = [name for name in _every if name not in _ACCOUNTANTS]
