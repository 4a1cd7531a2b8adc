"""Sections of the lessons, taken out of them and tried on inputs whose answer is known."""

import ast

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import REPO

SIDE, CELL = 48, 8


def function_of(script, name, **names):
    """A function that a lesson defines, which finds these names."""
    tree = ast.parse((REPO / script).read_text(encoding="utf-8"))
    (own,) = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name)
    exec(compile(ast.Module([own], []), script, "exec"), names)
    return names[name]


def test_the_gradient_by_hand_is_that_of_tensorflow():
    generator = np.random.default_rng(0)
    weights = generator.normal(size=(20, 4))
    x, labels = generator.random((50, 20)), generator.integers(0, 4, 50)
    one_hot = np.eye(4)[labels]
    softmax = function_of("train_mnist.py", "softmax", np=np)
    by_hand = function_of("train_mnist.py", "loss_and_gradient", np=np, softmax=softmax)
    loss, gradient = by_hand(weights, x, one_hot)
    variable = tf.Variable(weights)
    with tf.GradientTape() as tape:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, x @ variable)
        expected = tf.reduce_mean(losses)
    assert loss == pytest.approx(float(expected), abs=1e-5)
    np.testing.assert_allclose(gradient, tape.gradient(expected, variable), atol=1e-5)
    logits = 1000 * generator.normal(size=(5, 4))
    np.testing.assert_allclose(softmax(logits), tf.nn.softmax(logits), atol=1e-6)


def test_the_convolution_by_hand_is_that_of_keras():
    generator = np.random.default_rng(0)
    image = generator.random((28, 20)).astype("float32")
    layer = keras.layers.Conv2D(3, kernel_size=3, dtype="float32", bias_initializer="normal")
    expected = layer(image[np.newaxis, :, :, np.newaxis])[0]
    filters, biases = layer.get_weights()
    convolve = function_of("train_mnist.py", "convolve", np=np)
    for i in range(3):
        found = convolve(image, filters[:, :, 0, i], biases[i])
        np.testing.assert_allclose(found, expected[:, :, i], atol=1e-4)


def test_an_activation_map_is_highest_where_the_mark_of_the_class_lies():
    generator = np.random.default_rng(0)
    images = generator.integers(0, 120, (50, SIDE, SIDE, 3), dtype=np.uint8)  # dark noise
    labels = generator.integers(0, 2, 50)
    places = generator.integers(0, SIDE // CELL, (50, 2))  # row and column
    for image, label, (row, column) in zip(images, labels, CELL * places, strict=True):
        image[row : row + CELL, column : column + CELL, 2 * label] = 255  # red, or blue

    # The end of the Simpsons' models. Each filter of the first layer sees one of the two colors.
    dense, layers = keras.layers.Dense(2), [keras.layers.Rescaling(1 / 255)]
    layers += [keras.layers.AveragePooling2D(CELL), keras.layers.Conv2D(2, 1, activation="relu")]
    layers += [keras.layers.GlobalMaxPooling2D(name="pooling"), dense, keras.layers.Softmax()]
    classifier = keras.Sequential([keras.Input((SIDE, SIDE, 3)), *layers])
    layers[2].set_weights([np.array([[[[1, 0], [0, 0], [0, 1]]]]), np.array([-0.3, -0.3])])
    dense.set_weights([np.array([[3, -2], [-1, 4]]), np.array([0.1, -0.1])])
    assert (classifier.predict(images, verbose=0).argmax(axis=1) == labels).all()

    names = {"np": np, "keras": keras, "classifier": classifier, "dense_layers": [dense]}
    maps = function_of("train_simpsons.py", "activation_maps", **names)(images, labels)
    assert maps.shape == (50, SIDE // CELL, SIDE // CELL)
    highest = [np.unravel_index(own.argmax(), own.shape) for own in maps]
    np.testing.assert_array_equal(highest, places)
    # At the mark, the other class's filter is silent: weight times response.
    np.testing.assert_allclose(maps.max(axis=(1, 2)), np.where(labels, 4, 3) * 0.7, rtol=1e-5)
