"""The configuration language: what it takes, and one clear line for what it doesn't."""

import re
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
    assert config.data.allow_download
    assert load_config(GOOD).data.allow_download  # it names the data set


def test_the_language_example_ships_a_good_configuration():
    text = resources.files("dpkit.training").joinpath("language.toml").read_text()
    config = load_config(text)
    assert config.data.name == "shakespeare"
    assert config.model.name == "decoder"
    assert config.privacy.unit == "example"
    assert config.test is None


def test_a_decoders_settings_are_read():
    settings = (
        'name = "decoder"\nlayers = 2\ntied = true\nlora_rank = 8\nbase = "b.npz"'
    )
    config = load_config(GOOD.replace('name = "mlp"\nhidden = [16]', settings))
    assert config.model.decoder == {
        "layers": 2,
        "tied": True,
        "lora_rank": 8,
        "base": "b.npz",
    }


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("layers = 2", "model.layers=2 is a setting of 'decoder'"),
        ("tied = false", "model.tied=False is a setting of 'decoder'"),
        ('base = "b.npz"', "model.base='b.npz' is a setting of 'decoder'"),
        ("width = 0", "model.width=0"),
        ("lora_rank = true", "model.lora_rank=True must be a whole number"),
        ("scan = 1", "model.scan=1 must be true or false"),
        ("layer = 2", "model.layer is not known: did you mean 'layers'?"),
    ],
)
def test_a_decoders_settings_are_refused_elsewhere(setting, words):
    with pytest.raises(ValueError) as caught:
        load_config(GOOD.replace("hidden = [16]", setting))
    assert words in str(caught.value)


def test_a_decoder_has_no_hidden_widths():
    with pytest.raises(ValueError, match=r"model\.hidden=\[16\] is a setting of 'mlp'"):
        load_config(GOOD.replace('"mlp"', '"decoder"'))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("[data]", "[datas]", ["datas", "did you mean 'data'"]),
        ('name = "digits"', 'nam = "digits"', ["data.nam", "did you mean 'name'"]),
        ('evaluation = "public"', "", ["data.evaluation is missing"]),
        ('"public"', '"open"', ["data.evaluation='open'", "private or public"]),
        ('relation = "add_remove"', "", ["privacy.relation is missing"]),
        ('unit = "example"', "", ["privacy.unit is missing"]),
        ('sampling = "poisson"', "", ["privacy.sampling is missing"]),
        ('"add_remove"', '"swap"', ["privacy.relation='swap'", "replace_one"]),
        ('"poisson"', '"shuffle"', ["shuffle", "no Poisson guarantee"]),
        ('"poisson"', '"uniform"', ["sampling='uniform'", "poisson"]),
        ("clip_norm = 1.0", "clip_norm = 0.0", ["privacy.clip_norm=0.0"]),
        ("clip_norm = 1.0", "clip_norm = -1", ["privacy.clip_norm=-1"]),
        ("clip_norm = 1.0", "clip_norm = inf", ["privacy.clip_norm=inf"]),
        ("clip_norm = 1.0", "clip_norm = nan", ["privacy.clip_norm=nan"]),
        ("clip_norm = 1.0", "clip_norm = true", ["privacy.clip_norm=True"]),
        ("delta = 1e-4", "delta = 0.0", ["privacy.delta=0.0", "(0, 1)"]),
        ("delta = 1e-4", "delta = 1.5", ["privacy.delta=1.5"]),
        ("epsilon = 3", "epsilon = 0", ["privacy.epsilon=0"]),
        ("epsilon = 3", "noise_multiplier = -1.0", ["privacy.noise_multiplier=-1"]),
        (
            "epsilon = 3",
            "epsilon = 3\nnoise_multiplier = 1.0",
            ["privacy.epsilon=3.0", "noise_multiplier=1.0", "exactly one"],
        ),
        ("epsilon = 3", "", ["privacy.epsilon and", "exactly one"]),
        (
            "steps = 5",
            "steps = 5\nepochs = 1",
            ["training.epochs=1.0", "steps=5", "exactly one"],
        ),
        ("steps = 5", "steps = 0", ["training.steps=0"]),
        ("steps = 5", "steps = 5.5", ["training.steps=5.5", "whole number"]),
        ("steps = 5", 'steps = 5\noptimizer = "lion"', ["optimizer='lion'"]),
        ("hidden = [16]", "hidden = [0]", ["model.hidden=0"]),
        ("hidden = [16]", "hidden = 16", ["model.hidden=16", "list"]),
        ("hidden = [16]", 'normalization = "batch"', ["model.normalization"]),
        ("= 100", "= 0", ["training.expected_batch_size=0"]),
        ("learning_rate = 0.1", "learning_rate = 0", ["training.learning_rate=0"]),
        ("[model]", "[model", ["not TOML"]),
        ("[model]", "max_records = 0\n[model]", ["data.max_records=0"]),
        ("= [16]", "= [16]\ninit_seed = -1", ["model.init_seed=-1", "4294967296"]),
        ("= [16]", f"= [16]\ninit_seed = {2**32}", ["init_seed=4294967296"]),
        ("= [16]", f"= [16]\ninit_seed = {10**20}", ["model.init_seed=1000"]),
        ("steps = 5", "steps = 5\nmomentum = 1.0", ["training.momentum=1.0"]),
        ("steps = 5", "steps = 5\nmomentum = -0.1", ["training.momentum=-0.1"]),
        ("steps = 5", "steps = 5\nmomentum = nan", ["training.momentum=nan"]),
        (
            "steps = 5",
            'steps = 5\nmomentum = 0.9\noptimizer = "adam"',
            ["training.momentum=0.9", "training.optimizer='adam'"],
        ),
        ("steps = 5", "steps = 5\nweight_decay = inf", ["training.weight_decay=inf"]),
        ("steps = 5", "steps = 5\naverage_decay = 1", ["training.average_decay=1"]),
        ("steps = 5", "steps = 5\ndevices = 0", ["training.devices=0"]),
        ("steps = 5", "epochs = inf", ["training.epochs=inf"]),
        ("clip_norm = 1.0", "clip_norm = 1.0\nmax_batch_size = 0", ["privacy.max_b"]),
        ("[model]", 'allow_download = "yes"\n[model]', ["data.allow_download='yes'"]),
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


def test_numbers_may_follow_a_schedule():
    text = GOOD.replace("epsilon = 3", "noise_multiplier = [[3, 2], [2, 1.5]]")
    text = text.replace("clip_norm = 1.0", "clip_norm = [[1, 1.0], [4, 0.5]]")
    text = text.replace("batch_size = 100", "batch_size = [[2, 50], [3, 100]]")
    config = load_config(text)
    assert config.privacy.noise_multiplier == ((3, 2.0), (2, 1.5))
    assert config.privacy.clip_norm == ((1, 1.0), (4, 0.5))
    assert config.training.expected_batch_size == ((2, 50), (3, 100))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epsilon = 3",
            "noise_multiplier = [3, 2]",
            "or pieces [[steps, value]",
        ),
        ("epsilon = 3", "noise_multiplier = []", "at least one piece"),
        (
            "epsilon = 3",
            "noise_multiplier = [[0, 1.0]]",
            "noise_multiplier=0 must",
        ),
        ("epsilon = 3", "noise_multiplier = [[5, -1]]", "privacy.noise_multiplier=-1"),
        ("epsilon = 3", 'noise_multiplier = "x"', "or pieces [[steps, value], ...]"),
        ("batch_size = 100", "batch_size = [[5, 1.5]]", "must be a whole number"),
        ("epsilon = 3", "epsilon = [[5, 3.0]]", "privacy.epsilon=[[5, 3.0]] must be"),
        (
            "clip_norm = 1.0",
            'clip_norm = [[5, 1.0]]\nclipping = "unit"',
            "follows a schedule, which only 'flat' can",
        ),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(old, new, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        load_config(GOOD.replace(old, new))
