"""The frame of every run: configuration, folder, ledger, resumption, result, report.

A job says what it needs and what it does (`Job`, `Prepared`); `run` and `dry_run` do
the rest, the same for all. See `dpkit.jobs.lifecycle` for how to write one.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
