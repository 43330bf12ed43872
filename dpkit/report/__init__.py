"""The report of a run: one HTML file that states the guarantee and shows the curves.

Nothing here computes privacy: the numbers come from the run's result and history.
"""

from dpkit.report.page import render

__all__ = ["render"]
