"""Runs to be used: a table, models for it, and run folders made in no time."""

import hashlib
import json
import tomllib

import jax
import numpy as np
import pyarrow as pa

from dpkit.data.schema import Schema
from dpkit.models.parameters import as_files
from dpkit.training import load_config, run
from dpkit.training.step import digest_of

COUNT = 300
DRAWS = np.random.default_rng(0)
AGES = DRAWS.integers(18, 91, COUNT)
ROWS = {
    "age": AGES,
    "pet": DRAWS.choice(["cat", "dog", "newt"], COUNT),
    "calm": DRAWS.integers(0, 2, COUNT),
    "answer": np.where(AGES > 50, 'yes, "indeed"', "no"),
    "pay": 2 * AGES,
}
CONFIG = """
[data]
path = "people.csv"
test = "public.csv"
evaluation = "public"
label = "LABEL"
max_records = 300
[data.schema]
age = { kind = "numeric", low = 18, high = 90 }
pet = { kind = "categorical", categories = ["cat", "dog"] }
calm = { kind = "boolean" }
LABEL = TARGET
[model]
MODEL
[privacy]
noise_multiplier = 1.0
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0
[training]
mode = "vmap"
steps = 4
expected_batch_size = 100
learning_rate = 1.0
microbatch_size = 32
devices = 1
"""
TARGETS = {
    "answer": """{ kind = "categorical", categories = ["no", 'yes, "indeed"'] }""",
    "pay": '{ kind = "ordinal", low = 0, high = 200 }',
}
# The parameters of an mlp without hidden layers for the ten digits.
DIGITS = {
    "Dense_0": {
        "kernel": DRAWS.normal(size=(64, 10)).astype(np.float32),
        "bias": np.zeros(10, np.float32),
    }
}


def table(**more):
    """The table in Arrow."""
    return pa.table({**ROWS, **more})


def as_csv(rows, path):
    """The rows in a file of text."""
    from pyarrow import csv

    csv.write_csv(pa.table(rows), path)
    return path


def config_of(model='name = "linear"', label="answer"):
    """The text of a configuration."""
    text = CONFIG.replace("MODEL", model).replace("TARGET", TARGETS[label])
    return text.replace("LABEL", label)


def train(folder, **settings):
    """A finished run in `folder / "run"`, beside its table and its configuration."""
    as_csv(ROWS, folder / "people.csv")
    as_csv(ROWS, folder / "public.csv")
    (folder / "my.toml").write_text(config_of(**settings))
    return run(load_config(folder / "my.toml"), folder / "run")


def by_hand(folder, text, params, *, schema: Schema | None = None, **more):
    """A folder as a run leaves it, but for ledger and report; nothing is trained."""
    folder.mkdir()
    result = {
        "job": "train",
        "epsilon": 1.5,
        "certified": True,
        "delta": 1e-4,
        "accountant": "pld",
        "relation": "add_remove",
        "unit": "example",
        "ledger_head": "7f" * 32,
        "insecure_seed": False,
        "params_sha256": digest_of(params),
    }
    if schema is not None:
        (folder / "schema.json").write_text(schema.text)
        result["schema_sha256"] = schema.sha256
    (folder / "config.toml").write_text(text)
    result["config_file_sha256"] = hashlib.sha256(text.encode()).hexdigest()
    for name, content in as_files(params).items():
        (folder / name).write_bytes(content)
    (folder / "result.json").write_text(json.dumps(result | more))
    return folder


def table_by_hand(folder, label="answer", **more):
    """A run of a linear model of the table, which wasn't trained.

    The class "yes" grows with age, and beats "no" from 54 on; a pay is twice the age's
    share of its bounds, and .05 more with a dog.
    """
    section = tomllib.loads(config_of(label=label))["data"]
    schema = Schema.read(section["schema"], label=label, max_records=COUNT)
    outputs, embedding = 1 + (label == "answer"), np.zeros((5, 1 + (label == "answer")))
    kernel, bias = np.zeros((1, outputs)), np.zeros(outputs)
    kernel[0, -1], embedding[1, -1] = 2.0, 0.05 if outputs == 1 else 0.0
    bias[-1] = 0.0 if outputs == 1 else -0.995
    params = {
        "Dense_0": {"kernel": kernel, "bias": bias},
        "Embed_0": {"embedding": embedding},
    }
    params = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    return by_hand(folder, config_of(label=label), params, schema=schema, **more)


def digits_by_hand(folder, **more):
    """A run of a linear model of the digits, which wasn't trained."""
    rest = config_of().partition("[model]")[2]
    text = f'[data]\nname = "digits"\nevaluation = "none"\n[model]{rest}'
    return by_hand(folder, text, DIGITS, **more)
