"""What a density configuration refuses, by name and before anything is read."""

import pytest

from dpkit.density import choice
from dpkit.density.config import FROM_DATA, Config
from dpkit.jobs import load
from dpkit.mechanisms.density import KERNELS

TEXT = """
[data]
path = "points.csv"
[density]
bandwidth = 1
domain = [[0, 9], [0, 9]]
[privacy]
epsilon = 1
delta = 1e-6
relation = "add_remove"
"""


def test_the_kernels_are_those_of_the_mechanisms():
    for kernel in (*KERNELS, *choice.DISTANCES):
        text = TEXT if kernel in KERNELS else TEXT.replace("bandwidth = 1", "")
        assert load(Config, text, [f"density.kernel={kernel}"]).density.kernel == kernel
    with pytest.raises(ValueError) as caught:
        load(Config, TEXT, ["density.kernel=triangle"])
    words = str(caught.value).partition("use ")[2].split(" or ")
    assert sorted(words) == sorted((*KERNELS, *choice.DISTANCES))


@pytest.mark.parametrize("name", ["bandwidth", "domain"])
@pytest.mark.parametrize("word", FROM_DATA)
def test_what_would_be_computed_from_the_points_is_refused_by_name(name, word):
    with pytest.raises(ValueError, match=f"density.{name}='{word}'.*private points"):
        load(Config, TEXT, [f"density.{name}={word}"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("density.domain=[[0,9],[9,0]]", "axis 1 needs a high above its low"),
        ("density.domain=[[0,inf],[0,9]]", "must be finite"),
        ("density.domain=[0, 9]", "must be pairs"),
        ("density.bandwidth=0", "must be a number above 0"),
        ("density.bandwith=1", "did you mean 'bandwidth'"),
        ("density.axes=[1, 1]", "two different ones"),
        ("density.axes=[1]", "must be 2 of them"),
        ("density.kernel=l1", "bandwidth=1.0 is a setting of kernels"),
        ("privacy.epsilon=0", "above 0"),
        ("privacy.delta=1", r"in \[0, 1\)"),
        ("privacy.relation=both", "use add_remove or replace_one or zero_out"),
        ("privacy.unit=user", "points_per_unit=None: say how many"),
        ("privacy.points_per_unit=3", "name another, such as 'user'"),
        ("data.unit_column=who", "a unit other than example"),
        ("data.weight_column=w", "give both, or neither"),
        ("data.max_weight=2", "give both, or neither"),
        ("data.columns=[]", "must name at least one"),
        ("data.schema=x", "did you mean 'columns'"),
    ],
)
def test_a_mistake_is_one_line(change, words):
    with pytest.raises(ValueError, match=words) as caught:
        load(Config, TEXT, [change])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["epsilon", "delta", "relation"])
def test_nothing_of_the_guarantee_has_a_default(name):
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(name))
    with pytest.raises(ValueError, match=f"privacy.{name} is missing"):
        load(Config, text)
