"""The configuration of a density build, as a user writes it in TOML.

All of it is public, and none of it may be computed from the points. What bears on the
guarantee has no default. The page docs/config-density.md is made of this.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from dpkit.jobs.config import JobConfig, Positive, Settings, Whole

_PUBLISHED = (
    "this would be computed from the private points, which publishes them in part: "
    "give public numbers, known without them, or release them first and be charged"
)
# What people compute from the points, or ask a library to.
FROM_DATA = (
    "auto",
    "data",
    "median",
    "scott",
    "silverman",
    "minmax",
    "quantile",
    "std",
    "range",
)
Place = Annotated[int, Meta(ge=0)]


class DataSection(Settings, frozen=True, kw_only=True):
    """`[data]`: points, a row each. Paths are meant from the configuration's folder.

    The number of columns and their names are public. A cell that is missing or no
    number, and a line of CSV with another number of cells, count for none. A CSV whose
    first line is all numbers has no names: that line is a record.
    """

    INSTEAD: ClassVar = {
        "file": "path",
        "weights": "weight_column",
        "schema": "columns",
    }

    path: Annotated[
        str,
        Meta(
            description="A file of rows: .csv, .tsv, .parquet, .arrow, .feather, .npz "
            "or .npy; or a folder of such files."
        ),
    ]
    columns: Annotated[
        tuple[str, ...] | None,
        Meta(
            description="Which columns are coordinates, in order; left out, all of "
            "numbers, and of a CSV all. One of lists of one length is several."
        ),
    ] = None
    weight_column: Annotated[
        str | None,
        Meta(description="How much each point counts; needs `max_weight`."),
    ] = None
    max_weight: Annotated[
        Positive | None,
        Meta(description="The most that a point counts: weights are cut to it."),
    ] = None
    unit_column: Annotated[
        str | None,
        Meta(
            description="Whose a point is; needs a privacy.unit other than example, "
            "and privacy.points_per_unit."
        ),
    ] = None
    dataset: Annotated[
        str | None,
        Meta(
            description="What a ledger calls the data: a name and version; another one "
            "than the ledger's is refused. Left out, the ledger's."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuses weights without their limit, and no columns at all."""
        if (self.weight_column is None) != (self.max_weight is None):
            raise ValueError(
                f"weight_column={self.weight_column!r} with max_weight="
                f"{self.max_weight!r}: give both, or neither"
            )
        if self.columns == ():
            raise ValueError("columns=[] must name at least one, or be left out")


class DensitySection(Settings, frozen=True, kw_only=True):
    """`[density]`: what is asked of the points, and what is publicly known of them."""

    INSTEAD: ClassVar = {
        "bounds": "domain",
        "sigma": "bandwidth",
        **{f"{n}={w}": _PUBLISHED for n in ("bandwidth", "domain") for w in FROM_DATA},
    }

    kernel: Annotated[
        Literal[
            "gaussian",
            "exponential",
            "laplacian",
            "cauchy",
            "rational",
            "rational_l1",
            "l1",
            "l2",
            "l2_squared",
            "lp",
        ],
        Meta(
            description="Answers are sums of it over all points: a kernel, gaussian "
            "being exp(-r²/h²), or a distance, lp to the power p."
        ),
    ] = "gaussian"
    bandwidth: Annotated[
        Positive | None,
        Meta(description="h of a kernel, in the unit of the points."),
    ] = None
    domain: Annotated[
        tuple[tuple[float, float], ...] | None,
        Meta(
            description="Low and high of every axis; points outside count at its edge. "
            "Needed for grids, distances and pictures."
        ),
    ] = None
    structure: Annotated[
        Literal["spline", "sketch", "landmarks"] | None,
        Meta(description="Of a kernel; left out, the one that is to err least."),
    ] = None
    records: Annotated[
        Whole,
        Meta(description="About how many points there are; bears on accuracy alone."),
    ] = 100_000
    features: Annotated[
        Whole | None, Meta(description="Of a sketch, even; left out, as many as help.")
    ] = None
    feature_seed: Annotated[
        Place, Meta(description="Of a sketch's waves; it isn't the noise's.")
    ] = 0
    power: Annotated[Positive | None, Meta(description="p of lp, from 1 to 2.")] = None
    landmarks: Annotated[
        str | None,
        Meta(
            description="A file of public points, as [data] path: best if queries are "
            "among them; needs `landmarks_public`."
        ),
    ] = None
    landmarks_public: Annotated[
        bool, Meta(description="True says that every landmark is public.")
    ] = False
    axes: Annotated[
        tuple[Place, Place],
        Meta(description="Which two the report draws, of three or more."),
    ] = (0, 1)

    def __post_init__(self) -> None:
        """Refuses a domain without an inside, and a distance with a bandwidth."""
        for number, (low, high) in enumerate(self.domain or ()):
            if not high > low:
                raise ValueError(
                    f"domain={[list(pair) for pair in self.domain or ()]}: axis "
                    f"{number} needs a high above its low"
                )
        distance = self.kernel in ("l1", "l2", "l2_squared", "lp")
        for name in ("bandwidth", "structure", "landmarks"):
            if distance and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}={getattr(self, name)!r} is a setting of kernels, but "
                    f"density.kernel={self.kernel!r} is a distance: leave it out"
                )
        if self.axes[0] == self.axes[1]:
            raise ValueError(f"axes={list(self.axes)} must be two different ones")


class PrivacySection(Settings, frozen=True, kw_only=True):
    """`[privacy]`: the guarantee. All answers together cost one release."""

    epsilon: Annotated[Positive, Meta(description="What the release may cost.")]
    delta: Annotated[
        float,
        Meta(ge=0, lt=1, description="At which epsilon is meant; 0 for pure noise."),
    ]
    relation: Annotated[
        Literal["add_remove", "replace_one", "zero_out"],
        Meta(description="Which data sets are neighbours."),
    ]
    unit: Annotated[
        str,
        Meta(
            description="What is protected: example, one point; or another name, such "
            "as user, with data.unit_column."
        ),
    ] = "example"
    points_per_unit: Annotated[
        Whole | None,
        Meta(
            description="At most so many points of a unit count, where it isn't a "
            "point; a hash of the unit's own decides which."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuses a unit of several points without their limit."""
        if (self.unit == "example") != (self.points_per_unit is None):
            hint = "say how many points of a unit count at most"
            if self.unit == "example":
                hint = "each point is a unit: name another, such as 'user'"
            raise ValueError(
                f"unit={self.unit!r} with points_per_unit={self.points_per_unit!r}: "
                f"{hint}"
            )


class Config(JobConfig, frozen=True, kw_only=True):
    """A checked configuration of a density build.

    Example:
      >>> from dpkit.jobs import load
      >>> load(Config, "[data]\\npat = 'points.csv'")
      Traceback (most recent call last):
        ...
      ValueError: data.pat is not known: did you mean 'path'?
    """

    data: DataSection
    density: DensitySection
    privacy: PrivacySection

    def __post_init__(self) -> None:
        """Refuses whose a point is without a unit, and a unit without that."""
        if (self.data.unit_column is None) != (self.privacy.unit == "example"):
            raise ValueError(
                f"privacy.unit={self.privacy.unit!r} with data.unit_column="
                f"{self.data.unit_column!r}: a unit other than example goes with the "
                "column that says whose a point is"
            )


class ImagesSection(Settings, frozen=True, kw_only=True):
    """`[data]`: a data set of ours, of images with labels."""

    name: Annotated[str, Meta(description="digits, mnist, …")]
    allow_download: Annotated[
        bool, Meta(description="Whether the data set may be fetched.")
    ] = True


class ClassesSection(Settings, frozen=True, kw_only=True):
    """`[classes]`: what makes an image near to a class."""

    kernel: Annotated[
        Literal["linear", "gaussian"],
        Meta(description="The nearest mean, or the largest mean kernel."),
    ]


class ClassesConfig(JobConfig, frozen=True, kw_only=True):
    """The configuration of the demo: the classes of images from one release.

    Example:
      >>> list(ClassesConfig.__struct_fields__)[2:]
      ['data', 'classes', 'privacy']
    """

    data: ImagesSection
    classes: ClassesSection
    privacy: PrivacySection

    def __post_init__(self) -> None:
        """Refuses another unit than an image."""
        if self.privacy.unit != "example":
            raise ValueError(
                f"privacy.unit={self.privacy.unit!r} must be 'example': nobody says "
                "whose an image is"
            )
