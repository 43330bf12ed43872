"""A user's own model is found beside the configuration, never in a run's folder."""

import jax
import numpy as np
import pytest

from dpkit.data.layout import Layout
from dpkit.models.factory import build_own, find, source_sha256

LAYOUT = Layout.images((4, 4, 1), 3, 255.0)
CODE = """
import flax.linen as nn

class Mine(nn.Module):
    width: int
    outputs: int

    @nn.compact
    def __call__(self, image):
        x = nn.tanh(nn.Dense(self.width)(image.reshape(-1)))
        return nn.Dense(self.outputs)(x)

def make(layout, key, width=5):
    return Mine(width, layout.outputs)

SETTING = 3
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return tmp_path


def test_a_file_beside_the_configuration(folder):
    network = build_own("mine:make", LAYOUT, folder=folder, settings={"width": 7})
    params = network.init(jax.random.key(0))
    assert params["Dense_0"]["kernel"].shape == (16, 7)
    assert network.logits(params, np.zeros((4, 4, 1), np.uint8)).shape == (3,)
    assert find("mine.py:make", folder)(LAYOUT, None, 2).width == 2
    first = source_sha256(find("mine:make", folder))
    (folder / "mine.py").write_text(CODE + "# changed\n")
    assert source_sha256(find("mine:make", folder)) != first


def test_an_installed_package():
    assert find("flax.linen:Dense", None).__name__ == "Dense"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mine", "must be 'package.module:function'"),
        ("mine:", "must be"),
        (":make", "must be"),
        ("mine:not a name", "must be"),
        ("mine:mak", "has no function 'mak'"),
        ("mine:SETTING", "has no function"),
        ("theirs:make", "no module 'theirs'"),
        ("no.such.package:make", "no module"),
    ],
)
def test_what_is_not_there(folder, name, message):
    with pytest.raises(ValueError, match=message):
        find(name, folder)


@pytest.mark.parametrize("mark", ["result.json", "private/run.json"])
def test_code_in_the_folder_of_a_run_is_never_run(folder, mark):
    (folder / "private").mkdir()
    (folder / mark).write_text("{}")
    (folder / "config.toml").write_text("")
    (folder / "mine.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ValueError, match="lies in the folder of a run"):
        find("mine:make", folder)
    (folder / "private" / "mine.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(ValueError, match="lies in the folder of a run"):
        find("mine:make", folder / "private")


def test_a_module_on_the_path_in_a_run_is_never_run(folder, monkeypatch):
    (folder / "result.json").write_text("{}")
    (folder / "config.toml").write_text("")
    deep = folder / "sly" / "deep"
    deep.mkdir(parents=True)
    for place in (folder / "sly.py", folder / "sly" / "__init__.py", deep / "m.py"):
        place.write_text("raise SystemExit('it was run')")
    monkeypatch.syspath_prepend(folder)
    for name in ("sly", "sly.deep.m"):
        with pytest.raises(ValueError, match="lies in the folder of a run"):
            find(f"{name}:make", folder / "elsewhere")


def test_a_file_called_like_a_result_is_no_run(folder):
    (folder / "result.json").write_text("{}")
    assert find("mine:make", folder)(LAYOUT, None).width == 5


@pytest.mark.parametrize(
    "code",
    [
        "def make(layout, key): return layout.none",
        "import no_such_package",
        "make = 1/0",
    ],
)
def test_faults_of_the_users_code_are_one_line(folder, code):
    (folder / "mine.py").write_text(code)
    with pytest.raises(ValueError, match=r"failed with \w+Error: .*--debug") as caught:
        build_own("mine:make", LAYOUT, folder=folder)
    assert "\n" not in str(caught.value)


def test_a_factory_that_makes_no_model():
    with pytest.raises(TypeError, match="must return a module"):
        build_own(lambda layout, key: 3, LAYOUT, folder=None)
