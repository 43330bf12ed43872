"""The result of a run, to be used: the model, its parameters, what it predicts.

All of it is post-processing: using a released model costs no privacy of those it was
trained on, and needs no ledger.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
import msgspec
import numpy as np

from dpkit.accountants.answers.bounds import PrivacyBound
from dpkit.data.layout import Layout
from dpkit.data.loading import described
from dpkit.data.random_access import Rows
from dpkit.data.schema import Array, Image, Kind, Schema
from dpkit.data.table import read
from dpkit.jobs.config import load
from dpkit.jobs.folder import RunFolder
from dpkit.models import LanguageModel, Network, build_own
from dpkit.models.factory import find, source_sha256
from dpkit.models.language import base_sha256
from dpkit.models.parameters import FILES, fitted, read_arrays
from dpkit.report.guarantee import KNOWN_SEED
from dpkit.report.words import as_float
from dpkit.training.config import Config, ModelSection
from dpkit.training.input import Named
from dpkit.training.job import TRAINING, network_of
from dpkit.training.result import SCHEMA
from dpkit.training.step import digest_of

Factory = str | Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A finished run: see `load_run`.

    Attributes:
      network: prepares inputs for the module, and reads its outputs.
      params: what was trained, nested by names.
      schema: by which rows are encoded; of a data set of ours: its arrays as stored.
      layout: of encoded rows.
      result: what result.json holds.

    Example:
      >>> from dpkit.models import build_for
      >>> schema = Schema.read({"age": {"kind": "numeric", "low": 0, "high": 100},
      ...                       "ill": {"kind": "boolean"}}, label="ill")
      >>> layout = Layout.of(schema)
      >>> network = build_for(layout, "linear")
      >>> params = network.init(jax.random.key(0))
      >>> params["Dense_0"]["bias"] = np.array([0.0, 99.0])
      >>> run = TrainedRun(network, params, schema, layout, {})
      >>> run.predict({"age": [20, 30]}).tolist()
      ['true', 'true']
    """

    network: Network | LanguageModel
    params: Any
    schema: Schema
    layout: Layout
    result: Mapping[str, Any]

    @property
    def model(self) -> Any:
        """The module: of Flax Linen, for `run.model.apply({"params": run.params}, x)`.

        One of NNX or Equinox holds the trained parameters. It is called on one example,
        whose pixels are divided by the data set's public scale.
        """
        filled = isinstance(self.network, Network) and self.network.model.filled
        return filled(self.params) if filled else self.network.module

    @property
    def predicted(self) -> str:
        """What `predict` gives: the label's name, or "bits_per_character" of a text."""
        named = self.layout.target is not None
        return self.layout.name if named else "bits_per_character"

    @property
    def bound(self) -> PrivacyBound | None:
        """What the run cost, as its ledger counted it; None: it charged nothing.

        Infinite, where a known seed lets anybody take the noise away.
        """
        told, known = self.result, as_float(self.result["epsilon"])
        if known is None:
            return None
        seed = bool(told.get("insecure_seed"))
        return PrivacyBound(
            upper=math.inf if seed else known,
            certified=told["certified"] is True,
            method_upper=told["accountant"],
            delta=told["delta"],
            relation=told["relation"],
            unit=told["unit"],
            warnings=(KNOWN_SEED,) if seed else (),
        )

    @property
    def ledger_head(self) -> str:
        """The head of the ledger when the run was finished."""
        return self.result["ledger_head"]

    def predict(self, source: Any) -> np.ndarray:
        """A prediction for each row, in their order.

        Args:
          source: what `dpkit.data.table.read` takes: a path, a DataFrame or any other
            Arrow stream, a dict of arrays; the label's column may be there or not. Or
            rows that are encoded already, such as `dpkit.data.as_rows` makes.

        Returns:
          (rows,) names of classes; or numbers in the label's units; of a text, which
          has no label, its mean bits per character.

        Raises:
          ValueError: a column isn't there, or a line of CSV can't be read.
        """
        parts = [values for values, _ in self.predictions(source)]
        kind = object if self.layout.classes else np.float64
        return np.concatenate([np.empty(0, kind), *parts])

    def probabilities(self, source: Any) -> np.ndarray:
        """The probability of each class for each row.

        Args:
          source: as for `predict`.

        Returns:
          (rows, classes), in the order of `layout.classes`.

        Raises:
          ValueError: as for `predict`; or no classes are predicted.
        """
        if not self.layout.classes:
            raise ValueError(
                f"{self.predicted!r} is a number, and has no probabilities: use predict"
            )
        parts = [shares for _, shares in self.predictions(source)]
        none = np.empty((0, len(self.layout.classes)), np.float32)
        return np.concatenate([none, *parts])

    def predictions(self, source: Any) -> Iterator[tuple[Any, Any]]:
        """The same for some rows at a time: values, and probabilities or None."""
        encoded = isinstance(source, Rows) and not hasattr(source, "__arrow_c_stream__")
        rows = source
        if not encoded:
            rows = read(source, self.schema, labelled=False, strict=True).rows
        return self.network.predictions(self.params, rows)


def load_run(
    folder: str | os.PathLike[str], *, factory: Factory | None = None
) -> TrainedRun:
    """The result of a finished run of training.

    Result, configuration, schema and parameters of the folder are read, nothing is
    unpickled, and no code that the folder names is run.

    Args:
      folder: of the run.
      factory: makes the model, where the run's was made by a function of yours:
        `package.module:function`, `module:function` of a file module.py in the working
        directory, or the function itself.

    Returns:
      The model with its parameters.

    Raises:
      ValueError: an unfinished run, files that are not this run's, or `factory` is
        missing.

    Warns:
      UserWarning: the file of the factory has changed since.

    Example:
      >>> load_run("/nowhere")
      Traceback (most recent call last):
      ValueError: run='/nowhere' holds no finished training: it has no result.json
    """
    place = RunFolder(folder)
    result, config = _result(place), load(Config, place.config)
    if place.config_sha256 != result.get("config_file_sha256"):
        raise ValueError(f"{_of(place)}: config.toml was changed since the run ended")
    if config.data.name is None:
        schema = _schema(place, result)
        layout = Layout.of(schema)
    else:
        layout = Named(config.data, described(config.data.name)).layout
        schema = _stored(layout)
    network = _network(config, layout, factory, result)
    return TrainedRun(network, _params(place, network, result), schema, layout, result)


def _result(place: RunFolder) -> dict[str, Any]:
    """What result.json says, of a run of training."""
    try:
        if not place.finished:
            raise ValueError("it has no result.json")
        result = json.loads(place.result.read_bytes())
        if result["job"] != TRAINING.name:
            raise ValueError(f"its job is {result['job']!r}")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{_of(place)} holds no finished training: {error}") from None
    return result


def _schema(place: RunFolder, result: Mapping[str, Any]) -> Schema:
    """The schema by which the rows were encoded."""
    path = place.path / SCHEMA
    schema = Schema.load(path)
    if hashlib.sha256(path.read_bytes()).hexdigest() != result.get("schema_sha256"):
        raise ValueError(f"{_of(place)}: {SCHEMA} was changed since the run ended")
    return schema


def _stored(layout: Layout) -> Schema:
    """The arrays of a data set of ours, as columns that are kept as they are."""
    columns: dict[str, Kind] = {}
    for name, field in layout.inputs.items():
        if name in layout.symbols:
            most = layout.symbols[name] - 1
            columns[name] = Array(shape=field.shape, low=0, high=most, integer=True)
        else:
            columns[name] = Image(shape=cast(Any, field.shape))
    return Schema(columns=columns)


def _network(
    config: Config, layout: Layout, factory: Factory | None, result: Mapping[str, Any]
) -> Network | LanguageModel:
    """The network; a factory is the caller's, whatever the configuration names."""
    model = config.model
    if model.factory is not None:
        return _own(model, layout, factory, result)
    if factory is not None:
        raise ValueError(
            f"factory={factory!r}: the model of this run is {model.name!r}, one of "
            "ours: leave the factory out"
        )
    if model.lora_rank is None:  # a base was where training started, and no more
        model = msgspec.structs.replace(model, base=None)
    network = network_of(msgspec.structs.replace(config, model=model), layout)
    if isinstance(network, LanguageModel) and network.base is not None:
        if base_sha256(network.base) != result.get("base_sha256"):
            raise ValueError(
                f"base={model.base!r} is not the file that the run was trained around"
            )
    return network


def _own(
    model: ModelSection,
    layout: Layout,
    factory: Factory | None,
    result: Mapping[str, Any],
) -> Network:
    """The network of a user's own function."""
    if factory is None:
        raise ValueError(
            f"factory=None: the model of this run was made by {model.factory!r}, and "
            "code that a folder names is not run on its say: look at it, and give "
            f"factory={model.factory!r}, or the function itself"
        )
    make = find(factory, None) if isinstance(factory, str) else factory
    digests = {source_sha256(make), result.get("factory_sha256")}
    if len(digests - {None}) > 1:
        warnings.warn(
            f"factory={factory!r} stands in a file that is not the one of the training:"
            " predictions are right only if it makes the same network",
            stacklevel=4,
        )
    seed, settings = model.init_seed, model.settings
    return build_own(make, layout, folder=None, seed=seed, settings=settings)


def _params(
    place: RunFolder, network: Network | LanguageModel, result: Mapping[str, Any]
) -> Any:
    """The parameters, if they are those that the run ended with."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    paths = [place.path / name for name in FILES]
    path = next((path for path in paths if path.exists()), paths[0])
    try:
        arrays = read_arrays(path)
        params = fitted(arrays, jax.eval_shape(network.init, key))
    except ValueError as error:
        raise ValueError(f"{_of(place)}: {path.name} {error}") from None
    if digest_of(params) != result.get("params_sha256"):
        raise ValueError(
            f"{_of(place)}: {path.name} holds other numbers than the run ended with: "
            "their SHA-256 is not that of result.json"
        )
    return params


def _of(place: RunFolder) -> str:
    """A run in messages."""
    return f"run={str(place.path)!r}"
