"""Small classifiers and regressors in Flax, none of which mixes examples of a batch."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from dpkit.data.encoding import unscaled
from dpkit.data.layout import CODES, LABEL, Layout
from dpkit.data.random_access import as_rows
from dpkit.models.calling import Model, as_model
from dpkit.models.patches import PatchConv, max_pool


class TanhCNN(nn.Module):
    """Two convolutions and two dense layers with tanh, for images of 28 by 28 and up.

    On 28 x 28 x 1 with 10 classes it has 26,010 parameters. Bounded activations help
    under clipping: Papernot, Thakurta, Song, Chien, Erlingsson, "Tempered Sigmoid
    Activations for Deep Learning with Differential Privacy", 2021, arXiv:2007.14191.

    Attributes:
      num_classes: logits to return.
    """

    num_classes: int

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        """Logits (num_classes,) of one image (height, width, channels)."""
        conv = PatchConv(16, size=8, stride=2, padding="SAME", name="Conv_0")
        x = max_pool(nn.tanh(conv(image)))
        conv = PatchConv(32, size=4, stride=2, padding="VALID", name="Conv_1")
        x = max_pool(nn.tanh(conv(x)))
        x = nn.tanh(nn.Dense(32)(x.reshape(-1)))
        return nn.Dense(self.num_classes)(x)


class MLP(nn.Module):
    """Dense layers with tanh; none at all is logistic or linear regression.

    Codes of a table are looked up in one embedding of all its columns.

    Attributes:
      num_classes: logits to return.
      hidden: widths of the hidden layers.
      codes: how many codes each column has, where the inputs have "codes".
      width: of a code's embedding; without hidden layers a code has a weight a class.
    """

    num_classes: int
    hidden: Sequence[int] = (128,)
    codes: Sequence[int] = ()
    width: int = 8

    @nn.compact
    def __call__(self, inputs: jax.Array | Mapping[str, jax.Array]) -> jax.Array:
        """Logits (num_classes,) of one array of any shape, or of several by name."""
        if not isinstance(inputs, Mapping):
            inputs = {CODES if self.codes else "image": inputs}
        parts = [inputs[n].reshape(-1) for n in sorted(inputs) if n != CODES]
        found = self._embedded(inputs[CODES]) if CODES in inputs else None
        if found is not None and self.hidden:
            parts.append(found.reshape(-1))
        bias = 0.0 if found is None or self.hidden else _total(found)
        if not parts:
            return bias + self.param("bias", nn.initializers.zeros, self.num_classes)
        x = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(self.num_classes)(x) + bias

    def _embedded(self, codes: jax.Array) -> jax.Array:
        """The vectors of the codes (columns, width)."""
        starts = np.cumsum([0, *self.codes[:-1]])
        width = self.width if self.hidden else self.num_classes
        spread = nn.initializers.normal(0.1)
        table = nn.Embed(sum(self.codes), width, embedding_init=spread)
        return table(codes + jnp.asarray(starts, jnp.int32))


def _total(rows: jax.Array) -> jax.Array:
    """The sum of rows; of one row it isn't a mean over a batch, nor looks like one."""
    return rows[0] if len(rows) == 1 else rows.sum(axis=0)


@dataclasses.dataclass(frozen=True, eq=False)
class Network:
    """A model of rows with a label: its loss, its scores, its predictions.

    Pixels are divided by a public constant, never by something computed from data. A
    row whose label is unknown has the loss 0.

    Args:
      module: what the model was made from.
      layout: of the rows.
      weights: by which the loss of each class is multiplied, or None.

    Raises:
      ValueError: the module returns another number of outputs than there are classes.

    Example:
      >>> network = build("linear", num_classes=10, shape=(8, 8, 1), pixel_scale=16.0)
      >>> params = network.init(jax.random.key(0))
      >>> network.logits(params, np.zeros((8, 8, 1), np.uint8)).shape
      (10,)
    """

    module: Any
    layout: Layout
    weights: tuple[float, ...] | None = None
    model: Model = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        """Refuses a module that can't predict the label."""
        prepared = jax.eval_shape(self._prepared, dict(self.layout.inputs))
        object.__setattr__(self, "model", as_model(self.module, prepared))
        params = jax.eval_shape(self.init, jax.eval_shape(lambda: jax.random.key(0)))
        found = jax.eval_shape(self.logits, params, dict(self.layout.inputs))
        if math.prod(found.shape) != self.layout.outputs:
            raise ValueError(
                f"the model returns {found.shape}, for {self.layout.outputs} outputs: "
                "one a class is needed, or one number if a number is predicted"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The arrays of a row that are read."""
        return (*self.layout.inputs, LABEL)

    @property
    def score(self) -> str:
        """What is scored: the share that is right, or the root mean square error."""
        return "accuracy" if self.layout.classes else "rmse"

    def init(self, key: jax.Array) -> Any:
        """Parameters from a public key."""
        return self.model.init(key)

    def logits(self, params: Any, inputs: Any, key: Any = None) -> jax.Array:
        """Logits of one example as stored: {name: array}, or the array if it is one."""
        if not isinstance(inputs, Mapping):
            inputs = {next(iter(self.layout.inputs)): inputs}
        found = self.model.apply(params, self._prepared(inputs), key)
        return jnp.asarray(found).reshape(-1)

    def loss(self, params: Any, example: dict[str, Any], key: Any) -> jax.Array:
        """Of one example: cross entropy, or the squared error of the scaled number."""
        found, label = self.logits(params, example, key), example[LABEL]
        if not self.layout.classes:
            known = ~jnp.isnan(label)
            return jnp.where(known, (found[0] - jnp.where(known, label, 0)) ** 2, 0.0)
        loss = jax.nn.logsumexp(found) - found[label]
        if self.weights is not None:
            loss *= jnp.asarray(self.weights, loss.dtype)[label]
        return jnp.where(label >= 0, loss, 0.0)

    def outputs(self, params: Any, rows: Any, chunk: int = 1000) -> Iterator[Any]:
        """Logits of rows, some at a time, each with the rows that they are of.

        Args:
          params: of the model.
          rows: arrays by name, or rows by number.
          chunk: how many at a time.
        """
        rows = as_rows(rows)
        for start in range(0, len(rows), chunk):
            some = rows.take(np.arange(start, min(start + chunk, len(rows))))
            inputs = {name: some[name] for name in self.layout.inputs}
            yield np.asarray(self._all(params, inputs)), some

    @functools.cached_property
    def _all(self) -> Callable[..., jax.Array]:
        """The logits of several rows, compiled once."""
        return jax.jit(jax.vmap(self.logits, (None, 0)))

    def predictions(self, params: Any, rows: Any) -> Iterator[tuple[Any, Any]]:
        """What is predicted for rows, some at a time; post-processing of `params`.

        Yields:
          Classes by name and the probability of each, or numbers and None.
        """
        for found, _ in self.outputs(params, rows):
            if not self.layout.classes:
                yield unscaled(cast(Any, self.layout.target), found[:, 0]), None
                continue
            shares = np.exp(found - found.max(axis=1, keepdims=True))
            shares /= shares.sum(axis=1, keepdims=True)
            names = np.array(self.layout.classes, object)
            yield names[found.argmax(axis=1)], shares

    def accuracy_fn(self, rows: Any, chunk: int = 1000) -> Callable[[Any], float]:
        """A function of parameters: the share of rows that are classified rightly."""
        scores = self.scores_fn(rows, chunk)
        return lambda params: scores(params)["accuracy"]

    def scores_fn(
        self, rows: Any, chunk: int = 1000
    ) -> Callable[[Any], dict[str, float]]:
        """A function of parameters: {"accuracy"}, or {"rmse"} in the label's units.

        Rows whose label is unknown don't count; without others the score is NaN.
        """

        def scores(params: Any) -> dict[str, float]:
            total, count = 0.0, 0
            for found, some in self.outputs(params, rows, chunk):
                hits = self._scored(found, np.asarray(some[LABEL]))
                total, count = total + float(hits.sum()), count + len(hits)
            mean = total / count if count else math.nan
            return {self.score: mean if self.layout.classes else math.sqrt(mean)}

        return scores

    def _scored(self, found: np.ndarray, label: np.ndarray) -> np.ndarray:
        """For each row with a label: 1 where right, or the squared error."""
        if self.layout.classes:
            known = label >= 0
            return (found.argmax(axis=1) == label)[known]
        known, target = ~np.isnan(label), cast(Any, self.layout.target)
        errors = unscaled(target, found[:, 0]) - unscaled(target, label)
        return errors[known] ** 2

    def _prepared(self, inputs: Mapping[str, Any]) -> Any:
        """What the module is given: the inputs by name, or the only one."""
        scales = self.layout.scales
        scaled = {
            name: jnp.asarray(inputs[name]).astype(jnp.float32) / scales[name]
            if name in scales
            else jnp.asarray(inputs[name])
            for name in self.layout.inputs
        }
        return next(iter(scaled.values())) if len(scaled) == 1 else scaled


def _cnn(layout: Layout, hidden: Any) -> nn.Module:
    """The CNN, for images that are large enough."""
    shapes = [field.shape for field in layout.inputs.values()]
    if len(shapes) != 1 or len(shapes[0]) != 3 or min(shapes[0][:2]) < 20:
        shown = ", ".join(map(str, shapes))
        raise ValueError(
            f"model.name='cnn' needs images of 20 by 20 or more, not {shown}: use 'mlp'"
        )
    return TanhCNN(layout.outputs)


def _mlp(layout: Layout, hidden: Any) -> nn.Module:
    """The MLP, for all but text."""
    if layout.symbols:
        raise ValueError(
            f"model.name='mlp' can't read the text {next(iter(layout.symbols))!r}: use "
            "model.factory, or 'decoder' to predict the text itself"
        )
    hidden = MLP.hidden if hidden is None else tuple(hidden)
    return MLP(layout.outputs, hidden, tuple(layout.codes.values()))


MODELS: dict[str, Callable[[Layout, Any], nn.Module]] = {
    "cnn": _cnn,
    "mlp": _mlp,
    "linear": lambda layout, hidden: _mlp(layout, ()),
}


def build(
    name: str,
    *,
    num_classes: int,
    shape: tuple[int, ...],
    pixel_scale: float,
    hidden: Sequence[int] | None = None,
) -> Network:
    """A network for images, by name.

    Args:
      name: "cnn", "mlp" or "linear".
      num_classes: logits to return.
      shape: of one image.
      pixel_scale: the public constant by which pixels are divided.
      hidden: widths of an mlp's hidden layers; None leaves them at its default.

    Raises:
      ValueError: an unknown name, images that the network can't take, or `hidden` for
        a network that has no such setting.

    Example:
      >>> build("mlp", num_classes=2, shape=(4,), pixel_scale=1.0, hidden=(8,)).fields
      ('image', 'label')
    """
    if math.prod(shape) < 1:
        raise ValueError(f"shape={shape}: an image needs at least one pixel")
    return build_for(Layout.images(shape, num_classes, pixel_scale), name, hidden)


def build_for(
    layout: Layout,
    name: str,
    hidden: Sequence[int] | None = None,
    weights: Mapping[str, float] | None = None,
) -> Network:
    """A network for rows of any layout, by name.

    Args:
      layout: of the rows.
      name: "cnn", "mlp" or "linear".
      hidden: widths of an mlp's hidden layers; None leaves them at its default.
      weights: by which the loss of a class is multiplied; 1 where left out.

    Raises:
      ValueError: an unknown name, rows that the network can't take, or a setting that
        it doesn't have.

    Example:
      >>> build_for(Layout.images((8, 8, 1), 10, 16.0), "linear").score
      'accuracy'
    """
    if name not in MODELS:
        raise ValueError(f"model.name={name!r} is not known: use {', '.join(MODELS)}")
    if hidden is not None and name != "mlp":
        raise ValueError(
            f"model.hidden={list(hidden)} is a setting of 'mlp', but "
            f"model.name={name!r}: leave one of them out"
        )
    module = MODELS[name](layout, hidden)
    return Network(module, layout, class_weights(layout, weights))


def class_weights(
    layout: Layout, weights: Mapping[str, float] | None
) -> tuple[float, ...] | None:
    """The weights of all classes, in the order of their numbers.

    Raises:
      ValueError: a class that isn't there.

    Example:
      >>> class_weights(Layout.images((8, 8, 1), 3, 16.0), {"2": 5.0})
      (1.0, 1.0, 5.0)
    """
    if weights is None:
        return None
    for name in weights:
        if name not in layout.classes:
            known = ", ".join(layout.classes) or "none: a number is predicted"
            raise ValueError(f"class_weights: {name!r} is no class; known: {known}")
    return tuple(float(weights.get(name, 1.0)) for name in layout.classes)
