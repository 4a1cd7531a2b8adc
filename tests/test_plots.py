"""Pictures are written, as wide as promised, and not blank."""

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
HISTORY = {
    "loss": [2, 1, 0.5, 0.4],
    "accuracy": [0.3, 0.6, 0.8, 0.9],
    "val_loss": [0.7, 0.9, 0.8, 0.8],
    "val_accuracy": [0.5, 0.75, 0.75, 0.75],
}


@pytest.fixture(autouse=True)
def no_screen():
    plots.set_up(show=False)


def ink(path):
    """How much of a picture is not white, from 0 to 1; its width is checked on the way."""
    picture = plt.imread(path)[..., :3]
    assert picture.shape[1] == 1200
    return (picture.min(axis=-1) < 0.9).mean()


@pytest.mark.parametrize("pictures", [GREY, COLOR], ids=["grey", "color"])
def test_grids_and_predictions(tmp_path, pictures):
    path = tmp_path / "picture.png"
    plots.grid(path, pictures, [NAMES[y] for y in LABELS], "Title")
    assert ink(path) > 0.05
    plots.predictions(path, pictures, LABELS, PROBABILITIES, NAMES, [3, 1, 2], "Title")
    assert ink(path) > 0.02
    plots.rows(path, [pictures[:10], pictures[10:]], "Title")
    assert ink(path) > 0.05


def test_no_mistakes_are_no_mistake(tmp_path):
    plots.predictions(tmp_path / "p.png", GREY, LABELS, PROBABILITIES, NAMES, [], "None is wrong")
    assert ink(tmp_path / "p.png") > 0


def test_curves_of_many_epochs_and_of_one(tmp_path):
    plots.curves(tmp_path / "p.png", HISTORY, "Title")
    assert ink(tmp_path / "p.png") > 0.01
    plots.curves(tmp_path / "p.png", {k: v[:1] for k, v in HISTORY.items()}, "Title")
    assert ink(tmp_path / "p.png") > 0.01


def test_curves_of_two_models_with_their_test_accuracies(tmp_path):
    longer = {k: v * 3 for k, v in HISTORY.items()}
    levels = (0.7, 0.72)
    plots.curves(tmp_path / "p.png", HISTORY, "Title", baseline=longer, test=levels)
    assert ink(tmp_path / "p.png") > 0.01


def test_ten_pictures_are_two_rows_of_five_where_ten_captions_do_not_fit(monkeypatch, tmp_path):
    made = []
    monkeypatch.setattr(plots, "save", lambda figure, path: made.append(figure))
    plots.grid(tmp_path / "p.png", COLOR[:10], ["automobile (12%)"] * 10, "Title")
    plots.grid(tmp_path / "p.png", COLOR[:10], ["3"] * 10, "Title")
    shapes = [figure.axes[0].get_gridspec().get_geometry() for figure in made]
    assert shapes == [(2, 5), (1, 10)]


def test_one_picture_with_its_scale_and_pictures_with_their_probabilities(tmp_path):
    plots.pixels(tmp_path / "p.png", GREY[0], "Title")
    assert ink(tmp_path / "p.png") > 0.05
    for pictures in [GREY, COLOR]:
        judged = (pictures, LABELS, PROBABILITIES, NAMES)
        plots.probabilities(tmp_path / "p.png", *judged, range(4), "Title")
        assert ink(tmp_path / "p.png") > 0.02


def test_a_note_is_at_the_foot_of_every_picture(monkeypatch, tmp_path):
    plots.grid(tmp_path / "without.png", GREY, ["a"] * 20, "Title")
    monkeypatch.setattr(plots, "_note", "")
    plots.set_note("Drawings, not photographs")
    plots.grid(tmp_path / "with.png", GREY, ["a"] * 20, "Title")
    feet = [plt.imread(tmp_path / f"{name}.png")[-25:, 900:, 0] for name in ("without", "with")]
    assert (feet[0] < 0.8).mean() < (feet[1] < 0.8).mean()


def test_of_epochs_with_equal_accuracy_the_best_has_the_lowest_loss():
    assert plots.best_epoch(HISTORY) == 3


def test_confusion_matrices_with_and_without_mistakes(tmp_path):
    for matrix in [np.eye(10, dtype=int) * 1000, GENERATOR.integers(0, 1000, (10, 10))]:
        plots.confusion_matrix(tmp_path / "p.png", matrix, NAMES, "Title")
        assert ink(tmp_path / "p.png") > 0.01


def test_right_and_wrong_differ_by_more_than_color():
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


def test_a_title_stands_clear_of_the_captions_of_a_tall_picture(tmp_path):
    generator = np.random.default_rng(0)
    names = ["abraham_grampa_simpson", "lisa_simpson"]
    predicted = (
        generator.integers(0, 256, (20, 16, 16, 3), dtype=np.uint8),
        np.tile([0, 1], 10),
        np.tile([[0.2, 0.8]], (20, 1)),
    )
    plots.predictions(tmp_path / "tall.png", *predicted, names, range(20), "A title")
    picture = plt.imread(tmp_path / "tall.png")[..., :3]
    assert picture.shape[0] > 1500
    ink = np.flatnonzero((picture < 0.9).any(axis=(1, 2)))
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
