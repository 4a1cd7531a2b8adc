"""Plots: as wide as promised, not blank, and their captions legible."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pytest

from common import plots

GENERATOR = np.random.default_rng(0)
GRAY = GENERATOR.integers(0, 256, (10, 28, 28, 1), dtype=np.uint8)
COLOR = GENERATOR.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
LABELS = np.arange(10)
NAMES = [f"class {i}" for i in range(10)]
LONG = [*NAMES[:7], "$\\frac$", "abraham_grampa_simpson", "begin" + 40 * "very " + "end"]
PROBABILITIES = GENERATOR.dirichlet(np.ones(10), 10)


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draw a plot, and check what holds for every plot; return its figure."""
    plots.set_up(show=False)
    monkeypatch.setattr(plt, "close", lambda figure: None)

    def draw(function, *arguments, **options):
        function(tmp_path / "p.png", *arguments, **options)
        pixels = plt.imread(tmp_path / "p.png")[..., :3]
        assert pixels.shape[1] == 1200
        assert (pixels.min(axis=-1) < 0.9).mean() > 0.005
        return plt.gcf()

    yield draw
    monkeypatch.undo()
    plt.close("all")


def texts(figure):
    return [t for t in figure.findobj(plt.Text) if t.get_visible() and t.get_text().strip()]


@pytest.mark.parametrize("names", [NAMES, LONG], ids=["short", "long"])
@pytest.mark.parametrize("images", [GRAY, COLOR], ids=["gray", "color"])
def test_images_are_drawn_in_one_axes_and_their_captions_are_legible(draw, images, names):
    verdicts = LABELS, PROBABILITIES, names
    for function, *arguments in [
        (plots.grid, images[:9], names[:9], "$\\frac$"),
        (plots.predictions, images, *verdicts, range(10), "Title"),
        (plots.activation_maps, images, GENERATOR.random((10, 4, 4)), *verdicts, "Title " * 20),
        (plots.rows, np.split(images, 10), "Title", names),
    ]:
        figure = draw(function, *arguments)
        (axis,) = figure.axes
        assert min(text.get_fontsize() for text in texts(figure)) >= 8
        renderer = figure.canvas.get_renderer()
        boxes = [text.get_window_extent(renderer) for text in texts(figure)]
        assert not [pair for pair in itertools.combinations(boxes, 2) if pair[0].overlaps(pair[1])]
        for text in axis.texts:  # on white, and not on the image above
            box = text.get_window_extent(renderer).transformed(axis.transData.inverted())
            right, bottom, left, top = np.maximum(0, [box.x1, box.y0, box.x0, box.y1]).astype(int)
            assert (axis.images[0].get_array()[top:bottom, left:right] == 255).all()


def test_other_plots_are_drawn(draw):
    curve = np.array([0.3, 0.6, 0.99]), np.array([0.0, 0.5, 1.0]), np.array([3, 40, 900])
    for names in (["the model"], ["plain", "early-stopping", "mlp"]):
        draw(plots.reliability, dict.fromkeys(names, curve), "Title")
    for matrix in [np.eye(10, dtype=int) * 1000, GENERATOR.integers(0, 1000, (10, 10))]:
        draw(plots.confusion_matrix, matrix, LONG, "Title")
    draw(plots.counts, np.arange(10), LONG, "Title")
    draw(plots.predictions, GRAY, LABELS, PROBABILITIES, NAMES, [], "None is misclassified")
    for runs in (1, 4):
        draw(plots.gaps, GENERATOR.uniform(0, 90, (runs, 8, 2)), NAMES[:8], "Title")


def test_an_activation_map_is_brighter_where_it_is_higher(draw):
    maps = np.array([np.eye(2), -np.eye(2)])  # what is negative is drawn as 0
    black = np.zeros((2, 32, 32, 3), np.uint8)
    figure = draw(plots.activation_maps, black, maps, [0, 0], PROBABILITIES[:2], NAMES, "Title")
    mosaic = figure.axes[0].images[0].get_array().mean(axis=2)
    high = wide = 96  # each image is enlarged three times; its map is at the bottom
    left, right = mosaic[-high:, :wide], mosaic[-high:, -wide:]
    assert left[0, 0] > left[high // 2, wide // 2] > left[0, -1]
    assert left[-1, -1] > 100
    assert right.max() < 5


def test_calibration_is_that_of_each_bin():
    labels = GENERATOR.integers(0, 10, 3000)
    probabilities = GENERATOR.dirichlet(np.full(10, 0.3), 3000).astype(np.float32)
    own = [[] for _ in range(10)]
    for row, label in zip(probabilities, labels, strict=True):
        own[int(10 * max(row))].append((max(row), row.argmax() == label))
    expected = [[*np.mean(pairs, axis=0), len(pairs)] for pairs in own if pairs]
    assert 5 < len(expected) < 10
    found = plots.calibration(labels, probabilities)
    np.testing.assert_allclose(np.transpose(found), expected, rtol=1e-4)


def test_a_note_is_at_the_foot_of_every_plot(draw, monkeypatch):
    monkeypatch.setattr(plots, "_note", "")
    plots.set_up(show=False, note="Drawings, not photographs")
    figure = draw(plots.grid, GRAY, NAMES, "Title")
    (note,) = (text for text in texts(figure) if "photographs" in text.get_text())
    top = note.get_window_extent(figure.canvas.get_renderer()).y1
    assert 0 < top < figure.axes[0].bbox.y0


def test_correct_and_misclassified_differ_by_more_than_color(draw):
    probabilities = np.eye(10)[[4, 9]] * 0.9
    for names, lead in [(NAMES, ""), (list("0123456789"), "predicted ")]:
        predicted = np.array([4, 4]), probabilities, names
        figure = draw(plots.predictions, GRAY, *predicted, [0, 1], "Title")
        captions = {text.get_text(): text.get_color() for text in texts(figure)}
        assert captions[f"{names[4]} (90%)"] == plots.CORRECT
        assert captions[f"{lead}{names[9]} (90%)\ntrue {names[4]}"] == plots.ERROR
    assert plots.percent(0.9999) == ">99%"


def test_the_most_common_confusions_are_named_with_their_ties():
    def told(matrix, *count, names="abc"):
        return plots.most_common_confusions(np.array(matrix), names, *count)

    assert told([[50, 3, 0], [0, 50, 0], [0, 0, 50]]) == "Most common confusion: a → b, 3 of 53"
    matrix = [[50, 3, 0], [7, 50, 3], [0, 1, 50]]
    assert told(matrix).endswith("confusion: b → a, 7 of 60")
    assert told(matrix, 2).endswith("confusions: b → a, 7 of 60; a → b, 3 of 53; b → c, 3 of 60")
    assert told(matrix, 9).endswith("; c → b, 1 of 51")  # zeros are no errors
    assert told(np.eye(3, dtype=int)).startswith("No test image")
    assert "no confusion occurs twice" in told([[5, 1], [1, 5]])
    assert told([[50, 2, 2], [2, 50, 2], [2, 2, 50]]).endswith("b → a, 2 of 54; 3 more")
    assert len(told([[5, 2], [0, 5]], names=LONG[-2:])) < 90


def test_logarithmic_axes_have_plain_numbers_and_epochs_are_whole(draw):
    def curve(path):
        figure, axis = plt.subplots(figsize=(plots.WIDTH, 3))
        axis.plot([2.0, 0.3, 0.04])
        axis.set(yscale="log", xlabel="Epoch")
        plots.save(figure, path)

    found = " ".join(text.get_text() for text in texts(draw(curve)))
    assert {"0.1", "1", "2"} <= set(found.split())
    assert not {"$", "0.25"} & set(found.replace("$", " $ ").split())


def test_show_without_a_screen_says_so(capsys):
    plots.set_up(show=True)
    assert "no window can be opened" in capsys.readouterr().out
