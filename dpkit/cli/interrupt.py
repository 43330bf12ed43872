"""Ctrl-C ends a command wherever it strikes.

Python drops an exception that is raised in a callback of its garbage collector, and
JAX registers one: an interruption that falls into it would be reported as ignored, and
the run would go on.
"""

import _thread
import sys
import threading
from typing import Any

# Long enough for the callback to be over, short enough for nobody to notice.
_SECONDS = 0.05


def insist() -> None:
    """From now on, an interruption that Python drops is raised again.

    Example:
      >>> insist()  # doctest: +SKIP
    """
    before = sys.unraisablehook

    def hook(dropped: Any) -> None:
        if not isinstance(dropped.exc_value, KeyboardInterrupt):
            before(dropped)
            return
        # From another thread: here it would be dropped again.
        again = threading.Timer(_SECONDS, _thread.interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
