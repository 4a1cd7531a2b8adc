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


@pytest.mark.parametrize("script", ["train_cifar10.py", "train_simpsons.py"])
def test_an_activation_map_is_highest_where_the_mark_of_the_class_lies(script):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (50, SIDE, SIDE, 3), dtype=np.uint8)  # dark noise
    labels = generator.integers(0, 2, 50)
    places = generator.integers(0, SIDE // CELL, (50, 2))  # row and column
    for image, label, (row, column) in zip(images, labels, CELL * places, strict=True):
        image[row : row + CELL, column : column + CELL, 2 * label] = 255  # red, or blue

    # The end of the lessons' models. Each filter of the first layer sees one of the two colors.
    dense, layers = keras.layers.Dense(2), [keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.AveragePooling2D(CELL), keras.layers.Conv2D(2, 1, activation="relu")]
    layers += [keras.layers.GlobalMaxPooling2D(name="pooling"), dense, keras.layers.Softmax()]
    classifier = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
    layers[2].set_weights([np.array([[[[1, 0], [0, 0], [0, 1]]]]), np.array([-0.3, -0.3])])
    dense.set_weights([np.array([[3, -2], [-1, 4]]), np.array([0.1, -0.1])])
    assert (classifier.predict(images, verbose=0).argmax(axis=1) == labels).all()

    names = {"np": np, "keras": keras, "classifier": classifier, "dense_layers": [dense]}
    maps = function_of(script, "activation_maps", **names)(images, labels)
    assert maps.shape == (50, SIDE // CELL, SIDE // CELL)
    highest = [np.unravel_index(own.argmax(), own.shape) for own in maps]
    np.testing.assert_array_equal(highest, places)
    # At the mark, the other class's filter is silent: weight times response.
    np.testing.assert_allclose(maps.max(axis=(1, 2)), np.where(labels, 4, 3) * 0.7, rtol=1e-5)
