"""The canvas of MNIST's page, in a real browser: the same answers as Keras, and a drawn digit."""

import json

import chromium
import keras
import numpy as np
import pytest
from lessons import LESSONS, sample_test_set

from common import report

browser = pytest.mark.skipif(not chromium.BROWSER, reason="no Chromium")
# Of the screen: a desktop's with a mouse, a telephone's with a finger.
SCREENS = {"desktop": (1000, 900, False), "telephone": (390, 844, True)}
SHOWN = "bars.map((bar) => bar.value)"


@pytest.fixture
def run(finished):
    """A run of MNIST's lesson on its sample, with a canvas in its page."""
    return finished(LESSONS[0]).folder


@pytest.fixture(params=SCREENS)
def page(run, request, tmp_path):
    with chromium.Page(run / "report.html", tmp_path, *SCREENS[request.param]) as page:
        yield page


@browser
def test_its_probabilities_are_those_of_keras(run, tmp_path):
    images = sample_test_set(LESSONS[0])[0][:200]
    model = keras.saving.load_model(run / "model.keras")
    expected = model.predict(images, verbose=0)
    pixels = json.dumps(images.reshape(200, -1).tolist())
    with chromium.Page(run / "report.html", tmp_path) as page:
        found = page.run(f"{pixels}.map((image) => [...predict(network, image)])")
    np.testing.assert_allclose(found, expected, atol=0.01)
    np.testing.assert_allclose(np.sum(found, axis=1), 1, atol=1e-4)


@browser
def test_a_drawn_digit_is_answered_and_cleared(page):
    page.draw("#canvas", [(0.15, 0.2), (0.22, 0.25), (0.3, 0.8)])  # somewhere, and small: a one
    one = page.run(SHOWN)
    assert np.argmax(one) == 1
    assert sum(one) == pytest.approx(1, abs=1e-3)
    page.run("document.getElementById('clear').click()")
    assert page.run(SHOWN) == [0] * 10

    page.draw("#canvas", [(0.3, 0.2), (0.7, 0.2), (0.6, 0.5), (0.45, 0.85)])
    assert np.argmax(page.run(SHOWN)) == 7
    text = page.run("document.querySelector('#bars .best').textContent")
    assert text.startswith("7") and text.endswith("%")


@browser
def test_the_canvas_and_its_bars_are_on_the_screen(page):
    assert page.run("innerWidth") == (390 if page.touch else 1000)
    width = page.run("document.documentElement.clientWidth")  # without a scroll bar
    assert page.run("document.documentElement.scrollWidth") == width
    for element in ("#canvas", "#bars output", "#clear"):
        box = page.run(f"document.querySelector({element!r}).getBoundingClientRect().toJSON()")
        assert box["left"] >= 0 and box["right"] <= width
    top = page.run("document.querySelector('#canvas').getBoundingClientRect().top")
    last = page.run("bars.at(-1).parentElement.getBoundingClientRect().bottom")
    assert last - top < page.run("innerHeight") / 1.5  # both are seen at a time
    page.draw("#canvas", [(0.5, 0.9), (0.5, 0.1)])  # a finger on it draws, and does not scroll
    assert page.run("scrollY") == 0


@browser
def test_a_drawing_is_centered_as_mnist_is(page):
    page.draw("#canvas", [(0.1, 0.1), (0.1, 0.4), (0.15, 0.4)])
    image = np.reshape(page.run("[...prepare(canvas)]"), (28, 28))
    rows = np.nonzero(image > 100)[0]
    assert 19 <= np.ptp(rows) + 1 <= 21  # the longer side fills a box of 20
    weights = image / image.sum()
    center = (weights.sum(axis=1) @ np.arange(28), weights.sum(axis=0) @ np.arange(28))
    np.testing.assert_allclose(center, (13.5, 13.5), atol=0.6)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.BatchNormalization(),
        keras.layers.Conv2D(4, 3, padding="same"),
        keras.layers.Conv2D(4, 3, activation="tanh"),
        keras.layers.Conv2D(4, 3, use_bias=False),
        keras.layers.MaxPooling2D(3),
    ],
    ids=["BatchNormalization", "same", "tanh", "no bias", "pooling of 3"],
)
def test_with_a_layer_that_it_does_not_know_there_is_none(layer):
    model = keras.Sequential([keras.Input((28, 28, 1)), layer, keras.layers.Flatten()])
    assert report.network(model) == ""


@pytest.mark.parametrize("shape", [(24, 24, 1), (28, 28, 3)])
def test_for_other_images_there_is_none(shape):
    model = keras.Sequential([keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(10)])
    assert report.network(model) == ""
