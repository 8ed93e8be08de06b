import re
from xml.etree import ElementTree

import pytest

from tilth.evidence.plots import Line, Mark, binned, confusion_figure, line_figure, spread


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def test_binning_keeps_the_mean_and_the_spikes():
    x, mean, low, high = binned([*range(1000)], [1.0] * 500 + [101.0] + [1.0] * 499, bins=100)
    assert len(x) == 100
    assert x[:2] == [4.5, 14.5]
    assert mean[50] == 11.0
    assert (max(high), min(low)) == (101.0, 1.0)


def test_binning_leaves_short_curves_and_skips_what_is_not_finite():
    x, mean, low, high = binned([1, 2, 3], [5.0, float("nan"), 7.0])
    assert (x, mean, low, high) == ([1.0, 3.0], [5.0, 7.0], [5.0, 7.0], [5.0, 7.0])
    assert binned([], []) == ([], [], [], [])


def test_names_are_moved_apart_and_stay_in_order():
    assert spread([50, 50, 10], gap=16, top=100) == [50, 66, 10]
    assert spread([99, 98], gap=16, top=100) == [100, 84]
    assert spread([20, 60], gap=16, top=100) == [20, 60]


def test_curves_are_named_and_figures_are_deterministic():
    lines = [Line("training", [0, 1e6], [9.0, 6.0]), Line("held-out", [0, 1e6], [9.5, 6.5], series=1)]
    svg = line_figure("loss", "Loss against tokens", lines, x_label="tokens", mark=Mark(1e6, 6.5, "best 6.5"))
    assert {" training", " held-out", "tokens", "best 6.5", "1\u00a0M"} <= set(texts(svg))
    assert 'aria-label="Loss against tokens"' in svg
    assert svg == line_figure("loss", "Loss against tokens", lines, x_label="tokens", mark=Mark(1e6, 6.5, "best 6.5"))


def test_colours_follow_the_page_and_ids_carry_the_name():
    svg = line_figure("rate", "", [Line("rate", [0, 1, 2], [1, 2, 3], points=True, series=2)], x_label="step")
    assert "var(--series-3, " in svg
    assert re.findall(r"#0[0-9]0[0-9]0[0-9]\b", svg) == []
    ids = re.findall(r' id="([^"]*)"', svg)
    assert ids and all(name.startswith("rate-") for name in ids)
    assert set(re.findall(r"#(rate-[\w.-]+)", svg)) == set(ids)
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize("label", ["#010101 0.123456", "$x_1$ and $y$", "<b>&", "font-family: x;", "id=“a” 日本"])
def test_labels_are_shown_as_they_are(label):
    svg = confusion_figure([label, "other"], [[1, 2], [3, 4]])
    assert texts(svg).count(label) == 2


def test_long_labels_keep_both_ends():
    lines = [
        Line("bert-mini pre-trained on novels", [1, 2], [1, 2]),
        Line("bert-mini pre-trained on code", [1, 2], [2, 1]),
    ]
    names = [text for text in texts(line_figure("curve", "", lines, x_label="labels")) if "…" in text]
    assert names == [" bert-mi…novels", " bert-mi…on code"]


def test_names_below_are_whole_and_make_the_figure_taller():
    names = ["bert from scratch", "TF-IDF + logistic regression"]
    lines = [Line(name, [8, 64], [1, 2], series=number, points=True) for number, name in enumerate(names)]
    svg = line_figure("curve", "", lines, x_label="labels", log_x=True, size=(380, 300), names_below=True)
    assert {"bert from scratch", "TF-IDF + logistic regression"} <= set(texts(svg))
    assert 'height="331"' in svg
    wide = line_figure("curve", "", lines, x_label="labels", log_x=True, size=(980, 300))
    assert {" bert from scratch", " TF-IDF + logistic regression"} <= set(texts(wide))


def test_one_place_on_a_logarithmic_axis_is_in_its_middle():
    lines = [Line("a", [16], [0.5], [0.4], [0.6], points=True), Line("b", [16], [0.7], points=True, series=1)]
    svg = line_figure("one", "", lines, x_label="labels", log_x=True, x_ticks=[(16, "16")], level=0)
    assert "16" in texts(svg)


def test_points_without_a_value_are_left_out():
    assert line_figure("none", "", [Line("a", [1, 2], [float("nan"), None])], x_label="x") == ""
    svg = line_figure(
        "some", "", [Line("a", [1, 2, 3], [1.0, None, 3.0], [0.5, None, None], [1.5, None, None])], x_label="x"
    )
    assert "nan" not in svg


def test_confusion_shows_counts_and_shades_by_row():
    svg = confusion_figure(["cat", "dog"], [[30, 10], [0, 7]])
    assert [text for text in texts(svg) if text.isdigit()] == ["30", "10", "0", "7"]
    assert "37 of 47 on the diagonal" in svg
    assert [float(value) for value in re.findall(r"opacity: ([\d.]+)", svg)] == [0.45, 0.15, 0, 0.6]


def test_confusion_of_many_labels_leaves_out_the_counts():
    many = [f"label-{number}" for number in range(30)]
    svg = confusion_figure(many, [[1] * 30] * 30)
    assert "1" not in texts(svg)
    assert "label-29" in texts(svg)
