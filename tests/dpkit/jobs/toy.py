"""The smallest job on the frame: a noisy histogram of a column of digits."""

from typing import Annotated

import jax
import numpy as np
from dp_accounting import LaplaceDpEvent
from msgspec import Meta

from dpkit import Budget
from dpkit.data.random_access import ArrayRows
from dpkit.jobs import JobConfig, Outcome, Prepared, Progress, Settings
from dpkit.jobs.config import Positive
from dpkit.report import Section, Table

COLUMN = np.arange(1000) % 7  # private


class HistogramSection(Settings, frozen=True, kw_only=True):
    bins: Annotated[int, Meta(ge=1, le=100, description="How many values count.")]
    scale: Annotated[Positive, Meta(description="Of the Laplace noise on a count.")]
    unit: str = "example"


class Config(JobConfig, frozen=True, kw_only=True):
    histogram: HistogramSection


class Histogram(Prepared):
    def __init__(self, settings):
        self.settings, self.facts = settings, {}
        self.terms = {"relation": "add_remove", "unit": settings.unit, "dataset": "toy"}
        self.budget = Budget(1.01 / settings.scale, 0.0)

    def cost(self):
        return LaplaceDpEvent(self.settings.scale)

    def run(self, session, ledger, on_progress):
        session.agree(data=session.secrets.fingerprint(ArrayRows([COLUMN])))
        key = session.charge(ledger, self.cost(), "counts")
        noise = self.settings.scale * jax.random.laplace(key, (self.settings.bins,))
        counts = np.bincount(COLUMN, minlength=self.settings.bins) + np.asarray(noise)
        on_progress(Progress(1, 1, "counting", 1.0 / self.settings.scale))
        rows = [(value, float(count)) for value, count in enumerate(counts)]
        table = Section("Counts", Table(rows, ["value", "count"]))
        facts = {"counts": [count for _, count in rows]}
        return Outcome(title="A toy", facts=facts, sections=[table])


class Job:
    name, config = "toy", Config

    def prepare(self, config, *, offline, tell, data=True):
        return Histogram(config.histogram)
