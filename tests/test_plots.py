"""Plots are written, as wide as promised, and not blank."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from common import plots

GENERATOR = np.random.default_rng(0)
GREY = GENERATOR.integers(0, 256, (20, 28, 28, 1), dtype=np.uint8)
COLOR = GENERATOR.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(20) % 10
NAMES = [f"class {i}" for i in range(10)]
PROBABILITIES = GENERATOR.dirichlet(np.ones(10), 20)


@pytest.fixture(autouse=True)
def no_screen():
    plots.set_up(show=False)


def ink(path):
    """How much of a plot is not white, from 0 to 1; its width is checked on the way."""
    plot = plt.imread(path)[..., :3]
    assert plot.shape[1] == 1200
    return (plot.min(axis=-1) < 0.9).mean()


@pytest.mark.parametrize("images", [GREY, COLOR], ids=["grey", "color"])
def test_grids_and_predictions(tmp_path, images):
    path = tmp_path / "p.png"
    plots.grid(path, images, [NAMES[y] for y in LABELS], "Title")
    assert ink(path) > 0.05
    plots.predictions(path, images, LABELS, PROBABILITIES, NAMES, [3, 1, 2], "Title")
    assert ink(path) > 0.02
    plots.rows(path, [images[:10], images[10:]], "Title")
    assert ink(path) > 0.05


def test_no_errors_are_no_mistake(tmp_path):
    plots.predictions(
        tmp_path / "p.png", GREY, LABELS, PROBABILITIES, NAMES, [], "None is misclassified"
    )
    assert ink(tmp_path / "p.png") > 0


@pytest.mark.parametrize("count", [1, 8, 20])
def test_activation_maps_are_brighter_where_they_are_higher(tmp_path, count):
    maps = GENERATOR.random((count, 4, 4))
    drawn = []
    for name, values in [("maps", maps), ("none", -maps)]:  # what is negative is drawn as 0
        where = tmp_path / f"{name}.png"
        images = np.zeros_like(COLOR[:count])
        plots.activation_maps(
            where, images, values, LABELS[:count], PROBABILITIES[:count], NAMES, "Title", columns=4
        )
        assert ink(where) > 0.05
        drawn.append(plt.imread(where)[..., :3].sum())
    assert drawn[0] > drawn[1]


def test_a_reliability_diagram_of_one_model_and_of_three(tmp_path):
    x, y = np.array([0.3, 0.6, 0.99]), np.array([0.0, 0.5, 1.0])
    counts = np.array([3, 40, 900])
    for names in (["the model"], ["plain", "early-stopping", "mlp"]):
        plots.reliability(tmp_path / "p.png", {name: (x, y, counts) for name in names}, "Title")
        assert ink(tmp_path / "p.png") > 0.005
    plots.reliability(tmp_path / "p.png", {"the model": (x[:1], y[:1], counts[:1])}, "Title")


def test_gaps_of_one_model_and_of_several(tmp_path):
    accuracies = np.array([[99.1, 90, 88.7, 10.4], [92, 91, 91.5, 0.5], [89, 90, 89.4, -0.4]])
    plots.gaps(tmp_path / "one.png", accuracies[:1], ["plain"])
    plots.gaps(tmp_path / "all.png", accuracies, ["plain", "dropout", "weight decay"])
    assert ink(tmp_path / "all.png") > 0.01
    heights = [plt.imread(tmp_path / f"{name}.png").shape[0] for name in ("one", "all")]
    assert heights[1] - heights[0] == 120  # 0.4 inches for each model


def test_ten_images_are_two_rows_of_five_where_ten_captions_do_not_fit(tmp_path):
    heights = []
    for caption in ["automobile (12%)", "3"]:
        plots.grid(tmp_path / "p.png", COLOR[:10], [caption] * 10, "Title")
        heights.append(plt.imread(tmp_path / "p.png").shape[0])
    assert heights[0] > 1.5 * heights[1]


def test_a_note_is_at_the_foot_of_every_plot(monkeypatch, tmp_path):
    plots.grid(tmp_path / "without.png", GREY, ["a"] * 20, "Title")
    monkeypatch.setattr(plots, "_note", "")
    plots.set_note("Drawings, not photographs")
    plots.grid(tmp_path / "with.png", GREY, ["a"] * 20, "Title")
    feet = [plt.imread(tmp_path / f"{name}.png")[-25:, 900:, 0] for name in ("without", "with")]
    assert (feet[0] < 0.8).mean() < (feet[1] < 0.8).mean()


def test_confusion_matrices_with_and_without_errors(tmp_path):
    for matrix in [np.eye(10, dtype=int) * 1000, GENERATOR.integers(0, 1000, (10, 10))]:
        plots.confusion_matrix(tmp_path / "p.png", matrix, NAMES, "Title")
        assert ink(tmp_path / "p.png") > 0.01


def test_correct_and_misclassified_differ_by_more_than_color():
    probabilities = np.eye(10)[[4, 9]] * 0.9
    captions, colors = plots._verdicts(np.array([4, 4]), probabilities, NAMES)
    assert captions == ["class 4 (90%)", "class 9 (90%)\ntrue class 4"]
    assert colors == [plots.CORRECT, plots.ERROR]


def test_short_names_leave_room_for_a_word_more():
    captions, _ = plots._verdicts(np.array([4]), np.eye(10)[[9]] * 0.9, list("0123456789"))
    assert captions == ["predicted 9 (90%)\ntrue 4"]


def test_the_most_common_confusions_are_named_with_their_ties():
    matrix = np.diag([50, 50, 50])
    assert plots.most_common_confusions(matrix, "abc") == "No test image is misclassified"
    matrix[0, 1] = 3
    assert plots.most_common_confusions(matrix, "abc") == "Most common confusion: a → b, 3 of 53"
    matrix[2, 0] = 3
    told = plots.most_common_confusions(matrix, "abc")
    assert told == "Most common confusions: a → b, 3 of 53; c → a, 3 of 53"


def test_of_several_confusions_the_largest_is_first_and_the_last_has_its_ties():
    matrix = np.array([[50, 3, 0], [7, 50, 3], [0, 1, 50]])
    told = plots.most_common_confusions(matrix, "abc", count=2)
    assert told == ("Most common confusions: b → a, 7 of 60; a → b, 3 of 53; b → c, 3 of 60")
    told = plots.most_common_confusions(matrix, "abc", count=9)
    assert told.endswith("; c → b, 1 of 51")  # zeros are no errors
    assert told.count("; ") == 3


def test_of_more_than_three_confusions_the_others_are_counted():
    matrix = np.full((3, 3), 2) + np.diag([48, 48, 48])
    told = plots.most_common_confusions(matrix, "abc")
    assert told == (
        "Most common confusions: a → b, 2 of 54; a → c, 2 of 54; b → a, 2 of 54; 3 more"
    )
    matrix[2, 1] = 5
    told = plots.most_common_confusions(matrix, "abc", count=4)
    assert told.startswith("Most common confusions: c → b, 5 of 57; a → b, 2 of 54; ")
    assert told.endswith("; b → a, 2 of 54; 2 more")


def test_a_dollar_sign_is_one(tmp_path):
    plots.grid(tmp_path / "p.png", GREY[:2], ["$5 and $6", "$x"], "$ and $\\frac")
    assert ink(tmp_path / "p.png") > 0.01


def test_logarithmic_axes_have_plain_numbers(tmp_path):
    for values in [[2.0, 0.3, 0.04], [0.0, 0.0], [0.1]]:
        figure, axis = plt.subplots(figsize=(8, 3))
        axis.plot(range(1, len(values) + 1), values)
        axis.set(yscale="log", xlabel="Epoch")
        plots.save(figure, tmp_path / "p.png")
        labels = [label.get_text() for label in axis.get_yticklabels()]
        assert all("$" not in label for label in labels)
        epochs = [label.get_text() for label in axis.get_xticklabels()]
        assert all("." not in epoch for epoch in epochs)


def test_show_without_a_screen_says_so(capsys):
    plots.set_up(show=True)
    assert "no window can be opened" in capsys.readouterr().out


def test_a_title_stands_clear_of_the_captions_of_a_tall_plot(tmp_path):
    generator = np.random.default_rng(0)
    names = ["abraham_grampa_simpson", "lisa_simpson"]
    predicted = (
        generator.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8),
        np.tile([0, 1], 10),
        np.tile([[0.2, 0.8]], (20, 1)),
    )
    plots.predictions(tmp_path / "tall.png", *predicted, names, range(20), "A title")
    plot = plt.imread(tmp_path / "tall.png")[..., :3]
    assert plot.shape[0] > 1500
    ink = np.flatnonzero((plot < 0.9).any(axis=(1, 2)))
    title = ink[: np.argmax(np.diff(ink) > 1) + 1]
    assert len(title) < 35  # 12 points at 150 dots an inch, and no caption with them


def test_long_names_are_cut(tmp_path):
    names = ["begin" + 40 * "very " + "end a", "begin" + 40 * "very " + "end b"]
    matrix = np.array([[5, 2], [2, 5]])
    title = plots.most_common_confusions(matrix, names)
    assert title.startswith("Most common confusions: beginvery very …ry end a → beginvery very …")
    plots.confusion_matrix(tmp_path / "p.png", matrix, names, title)
    plots.rows(tmp_path / "q.png", [COLOR[:3], COLOR[3:6]], "Title", names)
    for name in "pq":
        assert ink(tmp_path / f"{name}.png") > 0.01
