"""The nearest class by private sums: an estimator in scikit-learn's manner."""

from __future__ import annotations

from dpkit.mechanisms.density import ClassSums


class Classifier:
    """To come."""

    table: ClassSums
