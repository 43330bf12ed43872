"""The configuration language: what it takes, and one clear line for what it doesn't."""

from importlib import resources

import pytest

from dpkit.training.config import load_config

GOOD = """
[data]
name = "digits"
evaluation = "public"

[model]
name = "mlp"
hidden = [16]

[privacy]
epsilon = 3
delta = 1e-4
relation = "add_remove"
unit = "example"
sampling = "poisson"
clip_norm = 1.0

[training]
steps = 5
expected_batch_size = 100
learning_rate = 0.1
"""


def test_a_good_configuration_is_read():
    config = load_config(GOOD)
    assert config.privacy.epsilon == 3.0
    assert config.model.hidden == (16,)
    assert config.training.epochs is None
    assert config.test is None
    assert config.text == GOOD


def test_the_digest_sees_values_and_not_comments():
    config = load_config(GOOD)
    assert load_config("# a comment\n" + GOOD).sha256 == config.sha256
    changed = GOOD.replace("clip_norm = 1.0", "clip_norm = 1.5")
    assert load_config(changed).sha256 != config.sha256
    assert load_config(GOOD + "[test]\ninsecure_seed = 1\n").sha256 != config.sha256


def test_the_demo_ships_a_good_configuration():
    text = resources.files("dpkit.training").joinpath("demo.toml").read_text()
    config = load_config(text)
    assert config.privacy.epsilon == 3.0
    assert config.privacy.delta == 1e-5
    assert config.data.name == "mnist"
    assert config.data.evaluation == "public"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[data]", "[datas]", ["datas", "did you mean 'data'"]),
        ('name = "digits"', 'nam = "digits"', ["data.nam", "did you mean 'name'"]),
        ('evaluation = "public"', "", ["data.evaluation is missing"]),
        ('"public"', '"open"', ["data.evaluation='open'", "public or private"]),
        ('relation = "add_remove"', "", ["privacy.relation is missing"]),
        ('unit = "example"', "", ["privacy.unit is missing"]),
        ('sampling = "poisson"', "", ["privacy.sampling is missing"]),
        ('"add_remove"', '"swap"', ["relation='swap'", "replace_one"]),
        ('"poisson"', '"shuffle"', ["shuffle", "no Poisson guarantee"]),
        ('"poisson"', '"uniform"', ["sampling='uniform'", "poisson"]),
        ("clip_norm = 1.0", "clip_norm = 0.0", ["clip_norm=0.0"]),
        ("clip_norm = 1.0", "clip_norm = -1", ["clip_norm=-1"]),
        ("clip_norm = 1.0", "clip_norm = inf", ["clip_norm=inf"]),
        ("clip_norm = 1.0", "clip_norm = nan", ["clip_norm=nan"]),
        ("clip_norm = 1.0", "clip_norm = true", ["privacy.clip_norm=True"]),
        ("delta = 1e-4", "delta = 0.0", ["delta=0.0"]),
        ("delta = 1e-4", "delta = 1.5", ["delta=1.5"]),
        ("epsilon = 3", "epsilon = 0", ["epsilon=0"]),
        ("epsilon = 3", "noise_multiplier = -1.0", ["noise_multiplier=-1"]),
        ("epsilon = 3", "epsilon = 3\nnoise_multiplier = 1.0", ["exactly one"]),
        ("epsilon = 3", "", ["exactly one of epsilon"]),
        ("steps = 5", "steps = 5\nepochs = 1", ["exactly one of epochs"]),
        ("steps = 5", "steps = 0", ["steps=0"]),
        ("steps = 5", "steps = 5.5", ["training.steps=5.5", "whole number"]),
        ("steps = 5", 'steps = 5\noptimizer = "lion"', ["optimizer='lion'"]),
        ("hidden = [16]", "hidden = [0]", ["hidden=0"]),
        ("hidden = [16]", "hidden = 16", ["model.hidden=16", "list"]),
        ("hidden = [16]", 'normalization = "batch"', ["model.normalization"]),
        ("= 100", "= 0", ["expected_batch_size=0"]),
        ("learning_rate = 0.1", "learning_rate = 0", ["learning_rate=0"]),
        ("[model]", "[model", ["not TOML"]),
    ],
)
def test_bad_configurations_are_refused_in_one_line(old, new, words):
    assert old in GOOD
    with pytest.raises((ValueError, TypeError)) as caught:
        load_config(GOOD.replace(old, new))
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_section_and_a_missing_file_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"\[training\] is missing"):
        load_config(GOOD.partition("[training]")[0])
    with pytest.raises(ValueError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")
