"""The configuration of a training run, as a user writes it in TOML.

What bears on the guarantee has no default. What a setting may be stands in its type,
and what it means beside it; the page docs/config.md is made of both.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from dpkit.data.schema import Schema
from dpkit.jobs.config import (
    Chance,
    JobConfig,
    Pieces,
    Positive,
    Settings,
    Whole,
    load,
    one_of_two,
)

_NO_GUARANTEE = (
    "shuffled or fixed batches have no Poisson guarantee and none is claimed for them; "
    "use 'poisson', or 'balls_in_bins' for one pass an epoch"
)
_SHUFFLES = ("shuffle", "shuffled", "fixed_batches", "sequential")


class DataSection(Settings, frozen=True, kw_only=True):
    """`[data]`: the rows to train on: `name`, `path` or `tfds`; and who may see scores.

    Rows of your own need a public schema, by which they become numbers, and a public
    `max_records`. Paths are meant from the folder of the configuration. A data set that
    is named is fetched unless that is forbidden.
    """

    INSTEAD: ClassVar = {
        "dataset_size": "max_records",
        "file": "path",
        "target": "label",
        "columns": "schema",
    }

    name: Annotated[
        str | None, Meta(description="A data set of ours: mnist, digits, …; or")
    ] = None
    path: Annotated[
        str | None,
        Meta(
            description="a file of rows: .csv, .tsv, .parquet, .arrow, .feather, .npz, "
            ".npy or .txt; a folder of such files, or of pictures with a sub-folder a "
            "class; or"
        ),
    ] = None
    tfds: Annotated[
        str | None,
        Meta(description="a prepared data set of TensorFlow Datasets, by its name."),
    ] = None
    evaluation: Annotated[
        Literal["public", "private", "none"],
        Meta(
            description="Scores on public rows are shown; on private ones they stay in "
            "the private folder, which dies with the run."
        ),
    ]
    test: Annotated[
        str | None,
        Meta(description="The rows to score on: a path; of `tfds` a split."),
    ] = None
    public_fraction: Annotated[
        Chance | None,
        Meta(
            description="Instead of `test`: this share of the rows, drawn by a hash of "
            "each record, or of whose it is, is public, and isn't trained on."
        ),
    ] = None
    schema: Annotated[
        dict[str, Any] | str | None,
        Meta(
            description="The columns by name, public: see data.md; or a JSON file of "
            "them. Columns that aren't in it are not read."
        ),
    ] = None
    label: Annotated[str | None, Meta(description="The column that is predicted.")] = (
        None
    )
    unit_column: Annotated[
        str | None,
        Meta(
            description="The column that says whose a row is; needs a privacy.unit "
            "other than example, and privacy.rows_per_unit."
        ),
    ] = None
    max_records: Annotated[
        Whole | None,
        Meta(
            description="A public number that the units of the data never exceed; left "
            "out, the published size."
        ),
    ] = None
    dataset: Annotated[
        str | None,
        Meta(
            description="What a ledger calls the data: a name and version; another one "
            "than the ledger's is refused. Left out, of your own rows, the ledger's."
        ),
    ] = None
    split: Annotated[
        str | None, Meta(description="Of `tfds`, to train on; left out, train.")
    ] = None
    data_dir: Annotated[
        str | None, Meta(description="Of `tfds`: where it was prepared.")
    ] = None
    allow_download: Annotated[
        bool, Meta(description="Whether the data set may be fetched.")
    ] = True

    def __post_init__(self) -> None:
        """Refuses no source or several, and what doesn't go with it."""
        sources = {n: getattr(self, n) for n in ("name", "path", "tfds")}
        given = [name for name, value in sources.items() if value is not None]
        if len(given) != 1:
            shown = " and ".join(f"{n}={sources[n]!r}" for n in given)
            state = f"{shown} name several sources" if given else "name is missing"
            raise ValueError(
                f"{state}: give one of name (a data set of ours), path (a file or "
                "folder of your own) and tfds"
            )
        if self.name is not None and re.search(r"[./\\]", self.name):
            raise ValueError(
                f"name={self.name!r} looks like a file, and name is for data sets of "
                "ours: say path instead"
            )
        own = ("test", "public_fraction", "schema", "label", "unit_column")
        misplaced = {
            "name": (*own, "split", "data_dir"),
            "path": ("split", "data_dir"),
            "tfds": (),
        }[given[0]]
        for name in misplaced:
            if getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} doesn't go with {given[0]}="
                    f"{sources[given[0]]!r}: leave it out"
                )
        if self.test is not None and self.public_fraction is not None:
            raise ValueError(
                f"test={self.test!r} and public_fraction={self.public_fraction!r} both "
                "say what is scored: give one of them"
            )
        if self.name is None:
            self._check_own()

    def _check_own(self) -> None:
        """Refuses rows of one's own without what must be said of them."""
        scored = self.test is not None or self.public_fraction is not None
        if scored != (self.evaluation != "none"):
            raise ValueError(
                f"evaluation={self.evaluation!r} with test={self.test!r} and "
                f"public_fraction={self.public_fraction!r}: name the rows to score on "
                "by one of these two, or say evaluation = 'none'"
            )
        if self.public_fraction is not None and self.evaluation != "public":
            raise ValueError(
                f"evaluation={self.evaluation!r}: the rows of public_fraction are "
                "public; say so, or name others by test"
            )
        if self.tfds is None and self.schema is None:
            raise ValueError(
                "schema is missing from the configuration: the columns and what they "
                "may hold, as [data.schema] or a JSON file; `dpkit data schema` drafts "
                "one from a public sample"
            )
        if isinstance(self.schema, dict):
            Schema.read(self.schema, label=self.label, unit_column=self.unit_column)


class ModelSection(Settings, frozen=True, kw_only=True):
    """`[model]`: which network, and its sizes.

    With `lora_rank` only adapters of that rank are trained, around a frozen base: the
    parameters in the file `base`, or else random ones. Without, training starts from
    `base`. The base must be public.
    """

    INSTEAD: ClassVar = {"model": "name", "module": "factory"}

    name: Annotated[
        str | None,
        Meta(description="linear or mlp; cnn for images; decoder for text; or"),
    ] = None
    factory: Annotated[
        str | None,
        Meta(
            description="a function of yours that makes a module of Flax, NNX or "
            "Equinox: package.module:function, or module:function of a file module.py "
            "beside the configuration."
        ),
    ] = None
    settings: Annotated[
        dict[str, Any] | None, Meta(description="Further arguments of the factory.")
    ] = None
    hidden: Annotated[
        tuple[Whole, ...] | None, Meta(description="The widths of an mlp.")
    ] = None
    layers: Annotated[Whole | None, Meta(description="Of a decoder.")] = None
    width: Annotated[Whole | None, Meta(description="Of a decoder.")] = None
    heads: Annotated[Whole | None, Meta(description="Of a decoder.")] = None
    context: Annotated[
        Whole | None, Meta(description="Characters that a decoder sees back.")
    ] = None
    tied: Annotated[
        bool | None, Meta(description="One table for a decoder's input and output.")
    ] = None
    lora_rank: Annotated[
        Whole | None, Meta(description="Train a decoder's adapters alone.")
    ] = None
    base: Annotated[
        str | None, Meta(description="An .npz file of a decoder's public parameters.")
    ] = None
    scan: Annotated[
        bool | None, Meta(description="A decoder's layers as one loop.")
    ] = None
    remat: Annotated[
        bool | None, Meta(description="Compute a decoder's layers again: less memory.")
    ] = None
    init_seed: Annotated[
        Annotated[int, Meta(ge=0, lt=2**32)],
        Meta(description="Of the parameters at the start; public."),
    ] = 0

    @property
    def called(self) -> str:
        """The network's name, or the factory's."""
        return self.name or str(self.factory)

    def __post_init__(self) -> None:
        """Refuses settings of another network."""
        one_of_two(name=self.name, factory=self.factory)
        if self.settings is not None and self.factory is None:
            self._refuse_setting("settings", "factory")
        for name in self.decoder:
            if self.name != "decoder":
                self._refuse_setting(name, "decoder")
        if self.hidden is not None and self.name in (None, "decoder"):
            self._refuse_setting("hidden", "mlp")

    @property
    def decoder(self) -> dict[str, Any]:
        """The settings of a decoder that are given."""
        values = msgspec.structs.asdict(self)
        others = ("name", "factory", "settings", "hidden", "init_seed")
        return {k: v for k, v in values.items() if k not in others and v is not None}

    def _refuse_setting(self, setting: str, owner: str) -> None:
        """Refuses a setting that the network doesn't have."""
        value = getattr(self, setting)
        shown = list(value) if isinstance(value, tuple) else value
        raise ValueError(
            f"{setting}={shown!r} is a setting of {owner!r}, but "
            f"model.name={self.name!r}: leave one of them out"
        )


class PrivacySection(Settings, frozen=True, kw_only=True):
    """`[privacy]`: the guarantee, by a target epsilon or by the noise.

    What is marked with pieces may follow a schedule, fixed beforehand.
    """

    INSTEAD: ClassVar = {
        "wor": "fixed_size",
        "sampling=wor": "this is called 'fixed_size' here",
        "max_batch": "max_batch_size",
        **{f"sampling={word}": _NO_GUARANTEE for word in _SHUFFLES},
    }

    delta: Annotated[
        Chance, Meta(description="At which epsilon is meant; below 1 / max_records.")
    ]
    relation: Annotated[
        Literal["add_remove", "replace_one", "zero_out"],
        Meta(description="Which data sets are neighbours."),
    ]
    unit: Annotated[
        str,
        Meta(description="What is protected: example, or user where rows have any."),
    ]
    sampling: Annotated[
        Literal["poisson", "balls_in_bins", "cyclic", "fixed_size", "full_batch"],
        Meta(description="How batches are drawn, and charged."),
    ]
    clip_norm: Annotated[
        Positive | Pieces, Meta(description="The largest L2 norm of one gradient.")
    ]
    epsilon: Annotated[
        Positive | None,
        Meta(description="The target, for which the noise is solved; or"),
    ] = None
    noise_multiplier: Annotated[
        Positive | Pieces | None,
        Meta(description="the noise: its standard deviation over clip_norm."),
    ] = None
    max_batch_size: Annotated[
        Whole | None,
        Meta(description="Slots of a batch; a draw that is larger is cut, and priced."),
    ] = None
    allow_large_delta: Annotated[
        bool, Meta(description="Accept a delta of 1 / max_records or more.")
    ] = False
    clipping: Annotated[
        Literal["flat", "unit", "auto_s", "psac", "hard_drop"],
        Meta(description="Which function of the norm bounds a gradient."),
    ] = "flat"
    clip_quantile: Annotated[
        Chance | None, Meta(description="Lets clip_norm follow this quantile of norms.")
    ] = None
    rows_per_unit: Annotated[
        Whole | None,
        Meta(description="At most so many rows of a unit count, where it isn't a row."),
    ] = None
    bins: Annotated[
        Whole | None, Meta(description="Steps of an epoch; balls_in_bins, cyclic.")
    ] = None
    noise: Annotated[
        Literal["independent", "banded", "square_root", "buffered"],
        Meta(description="Whether noise is correlated over the steps, and how."),
    ] = "independent"
    generator: Annotated[
        Literal["threefry", "chacha20"], Meta(description="Of the noise.")
    ] = "threefry"
    bands: Annotated[Whole | None, Meta(description="Of banded noise.")] = None

    def __post_init__(self) -> None:
        """Refuses what has no guarantee."""
        one_of_two(epsilon=self.epsilon, noise_multiplier=self.noise_multiplier)
        for name in ("clip_norm", "noise_multiplier"):
            if getattr(self, name) == ():
                raise ValueError(f"{name}=[] must have at least one piece")
        if (self.unit == "example") != (self.rows_per_unit is None):
            hint = "say how many rows of a unit count at most"
            if self.unit == "example":
                hint = "each row is a unit: name another, such as 'user'"
            raise ValueError(
                f"unit={self.unit!r} with rows_per_unit={self.rows_per_unit!r}: {hint}"
            )
        if self.clipping == "flat":
            return
        if self.clip_quantile is not None:
            raise ValueError(
                f"clip_quantile={self.clip_quantile!r} is a setting of 'flat', but "
                f"privacy.clipping={self.clipping!r}: leave one of them out"
            )
        if isinstance(self.clip_norm, tuple):
            raise ValueError(
                f"clip_norm={[list(piece) for piece in self.clip_norm]} follows a "
                "schedule, which only 'flat' can, but "
                f"privacy.clipping={self.clipping!r}: give one number"
            )


class TrainingSection(Settings, frozen=True, kw_only=True):
    """`[training]`: how long, how large the batches, and the optimiser.

    `expected_batch_size` may be left out where the sampling tells it: a full batch, or
    `privacy.bins`.
    """

    INSTEAD: ClassVar = {"batch_size": "expected_batch_size", "lr": "learning_rate"}

    learning_rate: Annotated[Positive, Meta(description="Of the optimiser.")]
    expected_batch_size: Annotated[
        Whole | tuple[tuple[Whole, Whole], ...] | None,
        Meta(description="What the noised sum is divided by; batches vary around it."),
    ] = None
    epochs: Annotated[
        Positive | None, Meta(description="Passes over max_records; or")
    ] = None
    steps: Annotated[Whole | None, Meta(description="updates.")] = None
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw"], Meta(description="It sees noised sums alone.")
    ] = "sgd"
    momentum: Annotated[
        Annotated[float, Meta(ge=0, lt=1)], Meta(description="Of sgd.")
    ] = 0.0
    weight_decay: Annotated[
        Annotated[float, Meta(ge=0)], Meta(description="Of the optimiser.")
    ] = 0.0
    class_weights: Annotated[
        dict[str, Positive] | None,
        Meta(description="By which the loss of a class is multiplied; 1 if left out."),
    ] = None
    schedule: Annotated[
        Literal["constant", "cosine"], Meta(description="Of the learning rate.")
    ] = "constant"
    average_decay: Annotated[
        Chance | None,
        Meta(description="Publishes an exponential average of the parameters."),
    ] = None
    evaluate_every: Annotated[
        Whole | None, Meta(description="Steps; left out, a twentieth of the run.")
    ] = None
    mode: Annotated[
        Literal["auto", "vmap", "two_pass", "microbatch"],
        Meta(description="How gradients are clipped; see training.md."),
    ] = "auto"
    microbatch_size: Annotated[
        Whole | None, Meta(description="Examples a chunk; left out, measured.")
    ] = None
    devices: Annotated[
        Whole | None,
        Meta(description="How many share a batch; left out, all, or two CPU cores."),
    ] = None
    constant_time: Annotated[
        bool,
        Meta(
            description="Work through padding like records: else the time of a step "
            "tells how many were drawn, and no time is shown."
        ),
    ] = True

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other."""
        one_of_two(epochs=self.epochs, steps=self.steps)
        if self.expected_batch_size == ():
            raise ValueError("expected_batch_size=[] must have at least one piece")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(
                f"momentum={self.momentum!r} is a setting of 'sgd', but "
                f"training.optimizer={self.optimizer!r}: leave one of them out"
            )


class Config(JobConfig, frozen=True, kw_only=True):
    """A checked configuration and the text that it was read from.

    Example:
      >>> load_config("[data]\\nnam = 'mnist'")
      Traceback (most recent call last):
        ...
      ValueError: data.nam is not known: did you mean 'name'?
    """

    data: DataSection
    model: ModelSection
    privacy: PrivacySection
    training: TrainingSection


def load_config(source: str | Path) -> Config:
    """Reads a configuration from a file, or from TOML text.

    Args:
      source: a path, or text that has a line break.

    Raises:
      ValueError: one line that names the key, its value and what is allowed.

    Example:
      >>> load_config("[data]\\nname = 'digits'\\nevaluation = 'open'")
      Traceback (most recent call last):
        ...
      ValueError: data.evaluation='open' is not known: use none or private or public
    """
    return load(Config, source)
