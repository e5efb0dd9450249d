"""Figures stand inside a page by themselves: well-formed, told in words, with ids of their own, and loading nothing."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from align.plots import COLOURS, colours, curve, figures, gold_against_kl
from align.report.charts import spread

NAN = float("nan")
LINE = {"train": ([0.0, 1.0, 2.0], [3.0, 2.0, 1.0])}
POINTS = {"base": (20.0, 0.3, 0.2, 0.4), "SFT": (0.0, 0.9, 0.85, 0.95), "PPO": (4.0, 1.2, 1.1, 1.3)}
PATH = [(float(kl), 0.9 + 0.1 * kl) for kl in range(4)]


def ids(svg: str) -> set[str]:
    return set(re.findall(r' id="([^"]+)"', svg))


def drawings() -> list[str]:
    return [curve(LINE, "step", "loss", "A"), curve(LINE, "step", "loss", "B"), gold_against_kl(POINTS, PATH)]


@pytest.mark.parametrize("svg", drawings())
def test_a_figure_is_one_element_that_loads_nothing(svg):
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label")
    assert root.get("width") is None  # the page decides
    assert "://" not in svg.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert "<style" not in svg  # it would hold for the whole page
    assert "<metadata" not in svg


def test_ids_are_referred_to_and_do_not_clash():
    svgs = drawings()
    for svg in svgs:
        assert ids(svg) == set(re.findall(r'(?:url\(|href=")#([^)"]+)', svg))
    assert sum(len(ids(svg)) for svg in svgs) == len(set.union(*map(ids, svgs)))


def test_the_same_figure_is_the_same_string():
    assert curve(LINE, "step", "loss", "A") == curve(LINE, "step", "loss", "A")


def test_drawing_leaves_a_users_settings_alone():
    before = dict(matplotlib.rcParams)
    drawings()
    assert dict(matplotlib.rcParams) == before


def test_names_are_text_and_neither_markup_nor_formula():
    svg = curve({'<b>"$x$"': ([0, 1], [0, 1]), "b": ([0], [1])}, "step", "a & b", "<script>")
    assert "<script>" not in svg
    assert "<b>" not in svg
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {"<script>", "a & b", '<b>"$x$"'} <= set(texts)


def test_points_that_are_no_numbers_are_left_out():
    with_gaps = {"train": ([0.0, 0.5, 1.0, 2.0], [3.0, NAN, 2.0, 1.0])}
    assert curve(with_gaps, "step", "loss", "A") == curve(LINE, "step", "loss", "A")
    assert curve({"train": ([0.0], [NAN]), "validation": ([], [])}, "step", "loss", "A") == ""


def test_the_label_tells_where_lines_begin_and_end():
    assert 'aria-label="A, by step: train goes from 3 to 1."' in curve(LINE, "step", "loss", "A")


def test_a_long_curve_stays_small():
    noise = np.random.default_rng(0).normal(size=20_000)
    assert len(curve({"train": (list(range(20_000)), list(noise))}, "step", "loss", "A")) < 200_000


@pytest.mark.parametrize("kl", [None, NAN, -0.02, 0.0, 1e-9])
def test_a_model_of_odd_kl_breaks_nothing(kl):
    svg = gold_against_kl({**POINTS, "base": (kl, 0.3, 0.2, 0.4)}, PATH)
    ElementTree.fromstring(svg)
    assert "nan" not in svg.lower()
    assert ">base" in svg


def test_a_model_may_lack_gold_or_its_interval():
    svg = gold_against_kl({"SFT": (0.0, 0.9, None, None), "PPO": (1.0, None, None, None), "x": (2.0, 1, NAN, NAN)}, [])
    assert ">SFT<" in svg
    assert ">PPO<" not in svg
    assert "nan" not in svg.lower()


def test_a_plane_with_one_place_on_it_is_not_drawn():
    assert gold_against_kl({}, []) == ""
    assert gold_against_kl({"SFT": (0.0, 0.9, 0.8, 1.0), "base": (None, 0.3, 0.2, 0.4)}, []) == ""


def test_figures_skip_what_was_not_measured():
    drawn = figures({"sft": [{"step": 1, "loss/train": 2.0}, {"loss/train": 1.0}, {"step": 3}], "rm": []}, {})
    assert [panel.note[:8] for panel in drawn["Training"]] == ["The loss"]
    assert drawn["PPO"] == []


def test_every_name_has_a_colour_and_models_keep_theirs():
    found = colours(["base", "PPO", "mine", "yours"])
    assert (found["base"], found["PPO"]) == (COLOURS["base"], COLOURS["ppo"])
    assert len(set(found.values())) == 4


def test_a_logarithmic_axis_has_plain_numbers_however_short_it_is():
    for values in ([20.0, 50.0, 199.0], [3.0, 9000.0]):
        svg = spread(values, "seconds", "Time")
        assert "$" not in svg
        assert re.search(r">\s*100\s*<", svg)
