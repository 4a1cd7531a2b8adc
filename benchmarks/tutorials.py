"""The tutorials, written anew from their published facts: network, epochs, batch, pipeline.

Each function trains its networks by `train`, which takes what `fit` takes. It returns the test
images, as `predict` takes them, and their labels.
"""

import atexit
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import shared
import tensorflow as tf

from common import datasets


def mnist(args, train):
    """Keras, `examples/vision/mnist_convnet.py` (Chollet, 2015, changed 2020)."""
    (x, y), (x_test, y_test), _ = datasets.load("mnist", args.data_dir, args.sample)
    x, x_test = x.astype("float32") / 255, x_test.astype("float32") / 255
    layers = [*convolutions([32, 64]), keras.layers.Flatten(), keras.layers.Dropout(0.5)]
    layers.append(keras.layers.Dense(10, activation="softmax"))
    model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    y = keras.utils.to_categorical(y, 10)
    train(model, x, y, batch_size=128, epochs=15, validation_split=0.1)
    return x_test, y_test


def fashion(args, train):
    """TensorFlow, `tutorials/keras/classification`."""
    (x, y), (x_test, y_test), _ = datasets.load("fashion-mnist", args.data_dir, args.sample)
    x, x_test = x[..., 0] / 255.0, x_test[..., 0] / 255.0
    layers = [keras.layers.Flatten(), keras.layers.Dense(128, activation="relu")]
    train(network([keras.Input((28, 28)), *layers, keras.layers.Dense(10)]), x, y, epochs=10)
    return x_test, y_test


def cifar10(args, train):
    """TensorFlow, `tutorials/images/cnn`."""
    (x, y), (x_test, y_test), _ = datasets.load("cifar10", args.data_dir, args.sample)
    x, x_test = x / 255.0, x_test / 255.0
    layers = [*convolutions([32, 64]), keras.layers.Conv2D(64, 3, activation="relu")]
    layers += [keras.layers.Flatten(), keras.layers.Dense(64, activation="relu")]
    model = network([keras.Input((32, 32, 3)), *layers, keras.layers.Dense(10)])
    train(model, x, y, epochs=10, validation_data=(x_test, y_test))
    return x_test, y_test


def simpsons(args, train):
    """TensorFlow, `tutorials/images/classification`, on the lesson's own training and test part.

    Its five flowers are replaced by the characters; of what the lesson trains and validates on, it
    takes a random fifth for validation, as it does of the flowers.
    """
    images, _, parts = shared.split(args, seed=0)
    place = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for folder, part in [("rest", "train"), ("rest", "validation"), ("test", "test")]:
        shared.link(place / folder, parts[part], parts[part].paths)
    read = keras.utils.image_dataset_from_directory
    part = {"validation_split": 0.2, "seed": 123, "image_size": (180, 180), "batch_size": 32}
    training = read(place / "rest", subset="training", **part)
    validation = read(place / "rest", subset="validation", **part)
    test = read(place / "test", image_size=(180, 180), shuffle=False)
    training = training.cache().shuffle(1000).prefetch(tf.data.AUTOTUNE)
    validation = validation.cache().prefetch(tf.data.AUTOTUNE)

    def build(first, last):
        layers = [keras.layers.Rescaling(1 / 255), *convolutions([16, 32, 64], padding="same")]
        layers += [*last, keras.layers.Flatten(), keras.layers.Dense(128, activation="relu")]
        layers.append(keras.layers.Dense(len(images.class_names)))
        return network([keras.Input((180, 180, 3)), *first, *layers])

    augment = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(0.1),
        keras.layers.RandomZoom(0.1),
    ]
    plain, regularized = build([], []), build(augment, [keras.layers.Dropout(0.2)])
    train(plain, training, validation_data=validation, epochs=10)
    train(regularized, training, validation_data=validation, epochs=15)
    return test, np.concatenate([labels for _, labels in test])


def convolutions(filters, **settings):
    """Convolutions of 3x3, with max pooling after each."""
    layers = []
    for count in filters:
        layers.append(keras.layers.Conv2D(count, 3, activation="relu", **settings))
        layers.append(keras.layers.MaxPooling2D())
    return layers


def network(layers):
    """A network that outputs logits, compiled as TensorFlow's tutorials do."""
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model


TUTORIALS = {"mnist": mnist, "fashion": fashion, "cifar10": cifar10, "simpsons": simpsons}
