"""The nearest class by private sums: an estimator in scikit-learn's manner."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_is_fitted,
    validate_data,  # pyrefly: ignore[missing-module-attribute]
)

from dpkit.accountants import Ledger, Relation
from dpkit.accountants.answers import checks
from dpkit.density.choice import Choice, priced
from dpkit.density.released import Release, load
from dpkit.density.releasing import (
    ledger_for,
    refuse_other_units,
    relation_of,
    released,
)
from dpkit.density.shards import Shard
from dpkit.mechanisms.density import (
    ClassSums,
    Gaussian,
    Kernel,
    KernelSketch,
    Radial,
)


class Classifier(ClassifierMixin, BaseEstimator):
    """The class whose records are the most similar, or whose mean is the nearest.

    Rows are brought to length 1. One release of sums and counts, class by class, pays
    for all of it; predictions are free. Made for embeddings of a public encoder, which
    no private record has shaped; neither may the bandwidth be chosen by private scores.

    Privacy: (epsilon, delta) for one record, under the ledger's relation; `fit` charges
    it before noise is drawn. Rows that are not finite count for none.

    Args:
      classes: all labels that there may be; public, and required.
      epsilon, delta: what `fit` may cost; delta 0 for pure noise. Required.
      kernel: "gaussian" (or another of the six kernels) by random waves, or "linear",
        which is faster, and as good on most embeddings.
      bandwidth: of the kernel, for rows of length 1.
      features: of the waves.
      feature_seed: public.
      relation: of a ledger in memory; a ledger that is given has its own.
      ledger: it is charged; None: one in memory, with just this budget.
      key: secret, of the noise; None: from the operating system. The noise depends on
        the key, the settings and the sums: other records have other noise.
      unknown: "refuse" a label that is no class: the error tells whoever sees it that
        there is one, so keep it from those you publish for; or "ignore" its record,
        silently.
      points_per_unit: the most rows of one unit, where the ledger protects more than
        a record.
      label: of the ledger's entry.

    Attributes:
      classes_: the classes, sorted.
      n_features_in_: how many columns a row has.
      release_: what was published; `save` writes it, `Classifier.load` reads it.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> y = rng.integers(2, size=2000)
      >>> X = rng.normal(size=(2000, 8)) + 2 * y[:, None]
      >>> model = Classifier(classes=[0, 1], epsilon=1.0, delta=1e-6, kernel="linear")
      >>> bool(model.fit(X, y).score(X, y) > 0.8)
      True

    Reference: Backurs, Lin, Mahabadi, Silwal, Tarnawski, "Efficiently Computing
    Similarities to Private Datasets", 2024, arXiv:2403.08917.
    """

    def __init__(
        self,
        *,
        classes: Any = None,
        epsilon: float | None = None,
        delta: float | None = None,
        kernel: str = "gaussian",
        bandwidth: float = 0.5,
        features: int = 4000,
        feature_seed: int = 0,
        relation: Relation | str | None = None,
        ledger: Ledger | None = None,
        key: jax.Array | None = None,
        unknown: str = "refuse",
        points_per_unit: int | None = None,
        label: str = "classifier",
    ) -> None:
        self.classes = classes
        self.epsilon = epsilon
        self.delta = delta
        self.kernel = kernel
        self.bandwidth = bandwidth
        self.features = features
        self.feature_seed = feature_seed
        self.relation = relation
        self.ledger = ledger
        self.key = key
        self.unknown = unknown
        self.points_per_unit = points_per_unit
        self.label = label

    def fit(self, X: Any, y: Any) -> Classifier:
        """Releases sums and counts of every class.

        Args:
          X: private rows, (n, d). y: their labels, (n,).

        Raises:
          ValueError: a parameter out of range or missing, a shape that doesn't fit; a
            label that is no class, unless those are ignored. Nothing is charged.
          BudgetExceeded: the ledger can't pay. Nothing is drawn.
        """
        classes = self._checked()
        X = _numbers(X)
        if self.unknown == "refuse":
            X, y = validate_data(self, X, y, dtype="numeric", ensure_all_finite=False)
            check_classification_targets(y)
        else:
            X = validate_data(self, X, dtype="numeric", ensure_all_finite=False)
            y = np.asarray(y)
            if y.shape != (len(X),):
                raise ValueError(f"y of shape {y.shape}: needed ({len(X)},)")
        refuse_other_units(self.ledger, self.points_per_unit)
        relation = relation_of(self.ledger, self.relation)
        shard = Shard(self.structure_for(X.shape[1], len(classes), relation))
        shard.add(X, labels=self._codes(y, classes))
        self.release_ = self._released(shard, relation, classes)
        self.classes_ = classes
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """How near rows are to every class, (n, C); (n,) for two: above 0 the second.

        Raises:
          ValueError: a row that is not finite, or of another length.
        """
        check_is_fitted(self)
        X = validate_data(self, X, dtype="numeric", reset=False)
        table = self.release_.structure
        if not isinstance(table, ClassSums):
            raise TypeError("release_: needed the release of a classifier")
        # A class that noise leaves nearly empty is judged as if it had some records.
        least = max(1.0, float(table.counts(self.release_.values).stddev[0]))
        found = table.scores(self.release_.values, X, least_count=least)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def predict(self, X: Any) -> np.ndarray:
        """The nearest class of each row, (n,)."""
        found = self.decision_function(X)
        if found.ndim == 1:
            return self.classes_[(found > 0).astype(int)]
        return self.classes_[found.argmax(axis=1)]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Classifier:
        """A fitted classifier from the file of its release; it can predict.

        Raises:
          ValueError: no such file.
        """
        release = load(path)
        if not isinstance(release.structure, ClassSums):
            raise ValueError(f"{path} is no classifier's release")
        return cls.of(release)

    @classmethod
    def of(cls, release: Release) -> Classifier:
        """A fitted classifier from its release; it can predict."""
        facts = release.facts
        epsilon, delta = facts.get("epsilon"), facts.get("delta")
        made = cls(classes=facts["classes"], epsilon=epsilon, delta=delta)
        made.classes_ = np.unique(facts["classes"])
        vars(made)["n_features_in_"] = release.structure.dimension
        made.release_ = release
        return made

    def _checked(self) -> np.ndarray:
        """The classes, if all parameters that need no rows are good."""
        for name in ("classes", "epsilon", "delta"):
            if getattr(self, name) is None:
                raise ValueError(
                    f"{name} is missing: needed a public value, such as "
                    "Classifier(classes=[0, 1], epsilon=1.0, delta=1e-6)"
                )
        checks.positive(epsilon=self.epsilon)
        checks.half_open_probability(delta=self.delta)
        checks.one_of(("refuse", "ignore"), unknown=self.unknown)
        classes = np.unique(np.asarray(self.classes))
        if classes.ndim != 1 or len(classes) < 2 or classes.dtype.kind == "O":
            raise ValueError(
                f"classes={self.classes!r}: needed at least two different labels of "
                "one kind"
            )
        return classes

    def structure_for(
        self, dimension: int, classes: int, relation: Relation
    ) -> ClassSums:
        """The table, with noise that costs what may be spent."""
        sketch = None
        if self.kernel != "linear":
            sketch = KernelSketch.draw(
                Kernel(self.kernel, self.bandwidth),
                dimension,
                features=self.features,
                feature_seed=self.feature_seed,
                noise=Gaussian(1.0),  # of no use here: the table has its own
            )
        return priced(
            lambda noise: ClassSums(
                classes=classes,
                dimension=dimension,
                sketch=sketch,
                noise=noise,
                points_per_unit=self.points_per_unit or 1,
            ),
            Radial,
            float(self.epsilon or 0),
            float(self.delta or 0),
            relation,
        )

    def _codes(self, y: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """The number of each label's class; -1 for none."""
        if (y.dtype.kind in "OUS") != (classes.dtype.kind in "OUS"):
            raise ValueError(
                f"y={y.dtype}: needed labels of the kind of classes={classes.dtype}"
            )
        codes = np.searchsorted(classes, y).clip(0, len(classes) - 1)
        codes = np.where(classes[codes] == y, codes, -1)
        if self.unknown == "refuse" and (codes < 0).any():
            raise ValueError(
                f"y: a label is none of classes={list(classes)}; list all there may "
                "be, or say unknown='ignore'"
            )
        return codes

    def _released(
        self, shard: Shard, relation: Relation, classes: np.ndarray
    ) -> Release:
        """Charges, and publishes the table."""
        epsilon, delta = float(self.epsilon or 0), float(self.delta or 0)
        structure = shard.structure
        choice = Choice(
            structure,
            "it was asked for",
            structure.expected_error(1),
            structure.floor,
            {},
        )
        with ledger_for(self.ledger, epsilon, delta, relation) as ledger:
            made = released(choice, shard, self.key, ledger, delta, self.label)
        facts = {**made.facts, "classes": classes.tolist()}
        return Release(structure, made.values, facts)

    def __getstate__(self) -> dict[str, Any]:
        """What is saved or sent: neither the key nor the ledger."""
        state = dict(super().__getstate__())
        return {**state, "key": None, "ledger": None}

    def __sklearn_clone__(self) -> Classifier:
        """A copy that is not fitted, on the same ledger."""
        return type(self)(**self.get_params(deep=False))

    def __repr__(self, N_CHAR_MAX: int = 700) -> str:
        """The parameters, but not the key: whoever has it can take the noise away."""
        if self.key is None:
            return super().__repr__(N_CHAR_MAX)
        options: Any = {**self.get_params(deep=False), "key": None}
        shown = type(self)(**options)
        return super(Classifier, shown).__repr__(N_CHAR_MAX)[:-1] + ", key=<secret>)"

    def _repr_mimebundle_(self, **options: Any) -> dict[str, str]:
        """Notebooks show the same."""
        return {"text/plain": repr(self)}

    @property
    def _repr_html_(self) -> Any:
        raise AttributeError("a page would show the key")

    def __sklearn_tags__(self) -> Any:
        """Rows may hold NaN, which count for none; and noise makes scores poor."""
        tags: Any = super().__sklearn_tags__()  # pyrefly: ignore[missing-attribute]
        tags.input_tags.allow_nan = True
        tags.classifier_tags.poor_score = True
        tags.non_deterministic = True
        return tags


def _numbers(X: Any) -> Any:
    """Rows as they are; of objects each cell by itself, NaN where it is no number.

    Raises:
      ValueError: a type of array without real numbers; no row is quoted.
    """
    if hasattr(X, "toarray"):
        return X  # sparse, which is refused as such
    kind = np.asarray(X).dtype.kind
    if kind == "c":
        raise ValueError("X: Complex data not supported")
    if kind not in "OUS":
        return X

    def number(cell: Any) -> float:
        try:
            return float(cell)
        except (TypeError, ValueError):
            return np.nan

    cells = np.asarray(X, object)
    return np.array([number(cell) for cell in cells.ravel()]).reshape(cells.shape)
