"""Sections of the lessons, taken out of them and tried on inputs whose answer is known."""

import ast

import keras
import numpy as np
import pytest
from conftest import REPO

SIDE, CELL = 48, 8


def function_of(script, name, **names):
    """A function that a lesson defines, which finds these names."""
    tree = ast.parse((REPO / script).read_text(encoding="utf-8"))
    (own,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    exec(compile(ast.Module([own], []), script, "exec"), names)
    return names[name]


def marked_images(count, seed):
    """Noise, and in one cell the mark of the class, a red or a blue square; and where it lies."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, SIDE, SIDE, 3), dtype=np.uint8)
    labels = generator.integers(0, 2, count)
    places = generator.integers(0, SIDE // CELL, (count, 2))  # row and column
    for image, label, (row, column) in zip(images, labels, places, strict=True):
        image[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL, 2 * label] = 255
    return images, labels, places


@pytest.fixture(scope="module")
def classifier():
    """A network with the end of the lessons' ones, trained to tell the two marks."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, padding="same", activation="relu"),
            keras.layers.AveragePooling2D(CELL),
            keras.layers.Conv2D(16, 1, activation="relu"),
            keras.layers.GlobalMaxPooling2D(name="pooling"),
            keras.layers.Dense(2),
            keras.layers.Softmax(),
        ]
    )
    model.compile(loss="sparse_categorical_crossentropy", optimizer=keras.optimizers.Adam(0.01))
    images, labels, _ = marked_images(600, seed=0)
    model.fit(images, labels, epochs=8, verbose=0)
    return model


@pytest.mark.parametrize("script", ["train_cifar10.py", "train_simpsons.py"])
def test_an_activation_map_is_highest_where_the_mark_of_the_class_lies(classifier, script):
    images, labels, places = marked_images(100, seed=1)
    predicted = classifier.predict(images, verbose=0).argmax(axis=1)
    assert (predicted == labels).mean() > 0.95
    activation_maps = function_of(
        script, "activation_maps", np=np, keras=keras, classifier=classifier
    )
    maps = activation_maps(images, predicted)
    assert maps.shape == (100, SIDE // CELL, SIDE // CELL)
    highest = [np.unravel_index(own.argmax(), own.shape) for own in maps]
    assert (np.array(highest) == places).all(axis=1).mean() > 0.95


@pytest.mark.parametrize("script", ["train_cifar10.py", "train_simpsons.py"])
def test_the_largest_values_of_the_maps_make_the_logit(classifier, script):
    """With one feature map at a time, its largest value times its weight is its share."""
    images, labels, _ = marked_images(20, seed=2)
    activation_maps = function_of(
        script, "activation_maps", np=np, keras=keras, classifier=classifier
    )
    maps = activation_maps(images, labels)
    pooled = keras.Model(classifier.inputs, classifier.layers[-2].output)
    logits = pooled.predict(images, verbose=0) - classifier.layers[-2].get_weights()[1]
    own = logits[np.arange(20), labels]
    weights = classifier.layers[-2].get_weights()[0]
    features = keras.Model(classifier.inputs, classifier.get_layer("pooling").input)
    features = features.predict(images, verbose=0)
    rebuilt = (features.max(axis=(1, 2)) * weights[:, labels].T).sum(axis=1)
    np.testing.assert_allclose(own, rebuilt, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(maps, np.einsum("nhwc,cn->nhw", features, weights[:, labels]), 1e-4)
