"""Figures agree with scikit-learn's and with Keras's `evaluate`."""

import keras
import numpy as np
import pytest
from sklearn import metrics

from common import evaluation, pipeline

NAMES = ["cat", "dog", "eel"]


@pytest.fixture
def predictions():
    """Labels and probabilities of 300 pictures in three unequal classes, a fifth of them wrong."""
    generator = np.random.default_rng(0)
    labels = generator.choice(3, 300, p=[0.6, 0.3, 0.1])
    scores = generator.normal(size=(300, 3))
    scores[np.arange(300), labels] += 2
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return labels, probabilities


def test_figures_are_those_of_scikit_learn(predictions):
    labels, probabilities = predictions
    predicted = probabilities.argmax(axis=1)
    figures = evaluation.evaluate(labels, probabilities, NAMES)
    assert figures["accuracy"] == pytest.approx(metrics.accuracy_score(labels, predicted))
    assert figures["loss"] == pytest.approx(metrics.log_loss(labels, probabilities))
    for name, score in [
        ("precision", metrics.precision_score),
        ("recall", metrics.recall_score),
        ("f1", metrics.f1_score),
    ]:
        assert figures[f"macro_{name}"] == pytest.approx(score(labels, predicted, average="macro"))
        each = [figures["per_class"][n][name] for n in NAMES]
        assert each == pytest.approx(list(score(labels, predicted, average=None)))
    supports = [figures["per_class"][name]["support"] for name in NAMES]
    assert supports == np.bincount(labels).tolist()


def test_a_class_that_is_never_predicted_has_a_precision_of_zero_and_no_warning(recwarn):
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.7, 0.3, 0.0]])
    figures = evaluation.evaluate(np.array([0, 1, 2]), probabilities, NAMES)
    assert figures["per_class"]["eel"] == {"precision": 0, "recall": 0, "f1": 0, "support": 1}
    assert np.isfinite(figures["loss"])
    assert "eel" in evaluation.report(np.array([0, 1, 2]), probabilities, NAMES)
    assert not recwarn.list


def test_figures_agree_with_evaluate():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).integers(0, 256, (500, 8, 8, 1), dtype=np.uint8)
    y = (x.mean(axis=(1, 2, 3)) > 127.5).astype(int) + (x[:, 0, 0, 0] > 200)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
    batches = pipeline.evaluation_batches(x, y, 64)
    model.fit(batches, epochs=2, verbose=0, shuffle=False)
    expected_loss, expected_accuracy = model.evaluate(batches, verbose=0)
    classifier = keras.Sequential([*model.layers, keras.layers.Softmax()])
    figures = evaluation.evaluate(y, classifier.predict(batches, verbose=0), NAMES)
    assert figures["loss"] == pytest.approx(expected_loss, rel=1e-5)
    assert figures["accuracy"] == pytest.approx(expected_accuracy, rel=1e-6)


def test_the_confusion_matrix_has_true_classes_in_rows(predictions):
    labels, probabilities = predictions
    matrix = evaluation.confusion_matrix(labels, probabilities)
    assert matrix.sum(axis=1).tolist() == np.bincount(labels).tolist()
    few = evaluation.confusion_matrix(np.array([0, 0, 0, 1]), np.eye(3)[[0, 2, 2, 1]])
    assert few.tolist() == [[1, 0, 2], [0, 1, 0], [0, 0, 0]]
    assert evaluation.most_confused(few, NAMES) == "Most often, cat is taken for eel: 2 of 3"
    assert evaluation.most_confused(np.eye(3, dtype=int), NAMES).startswith("No class")
    more = np.array([[5, 3, 0], [7, 5, 0], [0, 1, 5]])
    assert evaluation.most_confused(more, NAMES, count=2) == (
        f"Most often, {NAMES[1]} is taken for {NAMES[0]}: 7 of 12; "
        f"{NAMES[0]} is taken for {NAMES[1]}: 3 of 8"
    )
    assert evaluation.most_confused(more, NAMES, count=9).count("; ") == 2  # zeros are no mistakes


def test_mistakes_come_with_the_most_confident_first():
    labels = np.array([0, 1, 2, 0])
    probabilities = np.array([[0.1, 0.6, 0.3], [0.1, 0.8, 0.1], [0.9, 0.1, 0], [0.3, 0.3, 0.4]])
    assert evaluation.mistakes(labels, probabilities).tolist() == [2, 0, 3]
