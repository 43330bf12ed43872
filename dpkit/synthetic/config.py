"""The configuration of a synthetic table, as a user writes it in TOML.

All of it is public, and none of it may be read off the table. What bears on the
guarantee has no default. The page docs/config-synthetic.md is made of this.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec
from msgspec import Meta

from dpkit.data.codes import Codebook
from dpkit.data.schema import Schema
from dpkit.jobs.config import JobConfig, Positive, Settings, Whole


class DataSection(Settings, frozen=True, kw_only=True):
    """`[data]`: a table, and what is publicly known of it.

    Paths are meant from the configuration's folder.
    """

    INSTEAD: ClassVar = {"file": "path", "table": "path", "columns": "schema"}

    path: Annotated[
        str | None,
        Meta(
            description="A table: .csv, .tsv, .parquet, .arrow, .feather; or a folder "
            "of such files. A CSV begins with the names."
        ),
    ] = None
    schema: Annotated[
        str | dict[str, Any] | None,
        Meta(
            description="The public schema: a JSON file, or [data.schema]; "
            "`dpkit synth schema init` drafts one from a public sample."
        ),
    ] = None
    name: Annotated[
        Literal["adult"] | None,
        Meta(description="A published table, in the place of path and schema."),
    ] = None
    allow_download: Annotated[
        bool, Meta(description="Whether a published table may be fetched.")
    ] = True
    dataset: Annotated[
        str | None,
        Meta(
            description="What a ledger calls the table: a name and version. Left out, "
            "the ledger's."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuses two tables, or none; and a schema that can't be counted by."""
        if (self.path is None) == (self.name is None):
            raise ValueError(
                f"path={self.path!r} with name={self.name!r}: give one of them"
            )
        if (self.path is None) != (self.schema is None):
            raise ValueError(
                f"path={self.path!r} with schema="
                f"{None if self.schema is None else 'given'}: a table of your own and "
                "its public schema go together; a published one brings its own"
            )
        if isinstance(self.schema, dict):
            Codebook.of(Schema.read(self.schema))


class SyntheticSection(Settings, frozen=True, kw_only=True):
    """`[synthetic]`: how the table is made."""

    INSTEAD: ClassVar = {
        "method": "mechanism",
        "size": "rows",
        "n": "rows",
        **dict.fromkeys(
            ("sweeps", "cooling", "pairs", "known", "rounds", "generations"),
            "settings",
        ),
    }

    mechanism: Annotated[
        Literal["pairs", "independent", "mst", "aim", "gsd", "mwem", "merf"],
        Meta(description="pairs is best where no reason speaks for another."),
    ] = "pairs"
    rows: Annotated[
        Whole | None,
        Meta(
            description="How many to make; left out, as many as there are estimated to "
            "be, at most 250,000."
        ),
    ] = None
    impossible: Annotated[
        Literal["few", "fewer", "free"] | None,
        Meta(
            description="Of pairs: how much rows are avoided that hold a pair of "
            "values that nobody seems to hold. Left out, few."
        ),
    ] = None
    seed: Annotated[
        int, Meta(ge=0, description="Of the search; the noise never comes from it.")
    ] = 0
    settings: Annotated[
        dict[str, Any],
        Meta(
            description="Others of the mechanism alone, as in Python: { sweeps = 16 }; "
            "of pairs also known = [{ columns = […], values = […] }], public counts."
        ),
    ] = msgspec.field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """What the recipe is told besides its budget."""
        given = {"rows": self.rows, "impossible": self.impossible}
        return {k: v for k, v in given.items() if v is not None} | self.settings


class PrivacySection(Settings, frozen=True, kw_only=True):
    """`[privacy]`: the guarantee, for everything that is ever drawn from the model."""

    epsilon: Annotated[Positive, Meta(description="What the release may cost.")]
    delta: Annotated[
        float,
        Meta(ge=0, lt=1, description="At which epsilon is meant; 0 for mwem alone."),
    ]
    relation: Annotated[
        Literal["add_remove", "replace_one"],
        Meta(description="Which tables are neighbours."),
    ]
    unit: Annotated[
        str,
        Meta(
            description="What is protected: record, one row; or another name, such as "
            "person, with the schema's unit_column."
        ),
    ] = "record"
    rows_per_unit: Annotated[
        Whole | None,
        Meta(
            description="At most so many rows of a unit count, where it isn't a row; "
            "which ones, is drawn."
        ),
    ] = None

    def __post_init__(self) -> None:
        """Refuses a unit of several rows without their limit."""
        if (self.unit == "record") != (self.rows_per_unit is None):
            hint = "say how many rows of a unit count at most"
            if self.unit == "record":
                hint = "each row is a unit: name another, such as 'person'"
            raise ValueError(
                f"unit={self.unit!r} with rows_per_unit={self.rows_per_unit!r}: {hint}"
            )


class Config(JobConfig, frozen=True, kw_only=True):
    """A checked configuration of a synthetic table.

    Example:
      >>> from dpkit.jobs import load
      >>> load(Config, "[data]\\npat = 'people.csv'")
      Traceback (most recent call last):
        ...
      ValueError: data.pat is not known: did you mean 'path'?
    """

    data: DataSection
    synthetic: SyntheticSection
    privacy: PrivacySection
