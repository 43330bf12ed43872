"""The frame: typed parts in, one self-contained page out, and nothing unescaped."""

import dataclasses
import subprocess
import sys

import pytest

from dpkit.report import (
    Axes,
    Figure,
    Folded,
    Guarantee,
    Line,
    Numbers,
    Section,
    Table,
    Text,
    render,
)
from tests.dpkit.report.pages import HOSTILE, Page

GUARANTEE = Guarantee(
    epsilon=1.0,
    certified=True,
    delta=1e-5,
    relation="add_remove",
    unit="user",
    method="pld",
)
LINE = Line("", [(0, 0.0), (1, 1.0)])


def page(*sections, guarantee: Guarantee | None = GUARANTEE, **more):
    return render("A toy", guarantee, sections, not_covered=["All."], **more)


def test_the_order_of_the_frame():
    text = page(
        Section("Its own", Text("Words.")),
        evidence=[Table([("head", "7f" * 32)])],
        config_text="a = 1",
    )
    titles = (
        "A toy</h1>",
        "The guarantee<",
        "Its own<",
        "What is not covered<",
        "Evidence<",
        "Configuration<",
    )
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert Page(text).stack == []


def test_every_text_is_escaped_wherever_it_stands():
    """By construction: no part takes HTML."""
    figure = Figure(
        (Line(HOSTILE, [(0, 1.0)]),), Axes(HOSTILE, HOSTILE), HOSTILE, HOSTILE
    )
    table = Table([(HOSTILE, HOSTILE)], [HOSTILE, HOSTILE])
    parts = [
        Text(HOSTILE),
        Text(HOSTILE, points=True),
        Table([(HOSTILE, HOSTILE)]),
        Numbers([(HOSTILE, HOSTILE, HOSTILE)]),
    ]
    told = dataclasses.replace(
        GUARANTEE,
        relation=HOSTILE,
        unit=HOSTILE,
        method=HOSTILE,
        released=HOSTILE,
        warnings=(HOSTILE,),
        insecure=HOSTILE,
    )
    text = render(
        HOSTILE,
        told,
        [Section(HOSTILE, *parts, figure, Folded(HOSTILE, table, *parts))],
        kind=HOSTILE,
        dates=[HOSTILE],
        alarms=[(HOSTILE, HOSTILE)],
        shown=[(HOSTILE, HOSTILE, HOSTILE)],
        not_covered=[HOSTILE],
        evidence=parts,
        config_text=HOSTILE,
    )
    assert "<script" not in text and "<img" not in text
    assert Page(text).stack == []
    assert "svg" in Page(text).tags


def test_html_is_no_part():
    with pytest.raises(TypeError, match="part=str must be Text"):
        page(Section("a", "<b>bold</b>"))  # pyrefly: ignore[bad-argument-type]


def test_figures_stand_side_by_side_and_share_no_identifier():
    figure = Figure((LINE,), Axes("x", "y"), "A line.")
    text = page(Section("a", figure, figure), Section("b", Folded("c", figure)))
    ids = [value for _, name, value in Page(text).attributes if name == "id"]
    assert len(ids) == len(set(ids)) > 0
    assert Page(text).tags.count("svg") == 3
    assert text.count('<div class="curves">') == 2


def test_a_name_with_dollars_is_drawn_as_it_is():
    text = page(Section("a", Figure((LINE,), Axes("$x$ and $", "y"), "A line.")))
    assert "$x$ and $" in text


def test_a_figure_without_a_point_is_left_out():
    empty = Figure((Line("", [(0, float("nan"))]),), Axes("x", "y"), "Nothing.")
    text = page(Section("a", empty))
    assert "Nothing." not in text and "<figure" not in text


def test_cells_of_a_table():
    text = page(Section("a", Table([("n", 1000), ("x", None), ("h", "7f" * 32)])))
    assert "<td>1,000</td>" in text
    assert "<td></td>" in text
    assert '<td class="hash">' in text
    with pytest.raises(ValueError, match="must have 3 cells"):
        Table([(1, 2)], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("changes", "alarm"),
    [
        (
            {"insecure": "the noise of entry 3"},
            "The noise of entry 3 came from a known",
        ),
        ({"certified": False}, "Not certified"),
        ({"epsilon": float("inf")}, "No guarantee"),
    ],
)
def test_what_voids_the_guarantee_is_read_first(changes, alarm):
    text = page(guarantee=dataclasses.replace(GUARANTEE, **changes))
    first = text[text.index("<main>") : text.index("<header>")]
    assert 'role="alert"' in first and alarm in first
    assert "role=" not in page(guarantee=GUARANTEE).split("<svg")[0]


def test_an_alarm_of_the_maker_is_read_first_too():
    text = page(alarms=[("Falsified", "The claim is false.")])
    assert text.index("Falsified") < text.index("<header>")


def test_a_page_without_a_guarantee_claims_none():
    text = page(guarantee=None)
    assert "epsilon" not in text.lower() and "certified" not in text


def test_matplotlib_is_loaded_only_to_draw():
    code = (
        "import sys, dpkit.report\n"
        "bad = {'matplotlib', 'jax', 'numpy'} & set(sys.modules)\n"
        "sys.exit(len(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_drawing_leaves_pyplot_and_settings_alone():
    code = (
        "import sys, matplotlib\n"
        "before = matplotlib.rcParams.copy()\n"
        "from dpkit.report.plots import Axes, Line, chart\n"
        "chart([Line('', [(0, 1.0), (1, 2.0)])], Axes('x', 'y'), name='a', note='')\n"
        "assert matplotlib.rcParams.copy() == before\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
