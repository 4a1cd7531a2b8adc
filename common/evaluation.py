"""Labels and probabilities -> figures. The counting is scikit-learn's."""

import numpy as np
from sklearn import metrics

ABOUT_FIT = """
During fit, validation can exceed training: fit's training figures are means over an epoch
in which the network still improves, with dropout and distortions, if any, at work. Those
above are of the trained network, without either.
"""


def evaluate(labels, probabilities, class_names):
    """Judge predictions.

    Args:
        labels: True classes, integers, shape (count,).
        probabilities: Predicted ones, floats, shape (count, classes); each row sums to 1.
        class_names: One name a class.

    Returns:
        A dict: `loss` (mean cross-entropy in nats), `accuracy`, `macro_precision`,
        `macro_recall`, `macro_f1` (means over the classes that occur in `labels`, each counting
        the same), and `per_class`, a dict by name of `precision`, `recall`, `f1` and `support`.
        All floats are from 0 to 1 but the loss. A class that is never predicted has a precision
        of 0.
    """
    classes = range(len(class_names))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=0
    )
    there = support > 0
    return {
        "loss": cross_entropy(labels, probabilities),
        "accuracy": float(metrics.accuracy_score(labels, predicted)),
        "macro_precision": float(precision[there].mean()),
        "macro_recall": float(recall[there].mean()),
        "macro_f1": float(f1[there].mean()),
        "per_class": {
            name: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(class_names)
        },
    }


def cross_entropy(labels, probabilities):
    """The mean of -ln(probability of the true class), as Keras's loss computes it."""
    of_truth = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    smallest = np.finfo(np.float32).tiny  # a probability of 0 would cost infinitely much
    return float(-np.log(np.maximum(of_truth, smallest)).mean())


def report(labels, probabilities, class_names):
    """scikit-learn's table of precision, recall, F1 and support, as text."""
    return metrics.classification_report(
        labels,
        probabilities.argmax(axis=1),
        labels=range(len(class_names)),
        target_names=class_names,
        digits=4,
        zero_division=0,
    )


def confusion_matrix(labels, probabilities):
    """How often class i (row) was taken for class j (column): integers, (classes, classes)."""
    classes = range(probabilities.shape[1])
    return metrics.confusion_matrix(labels, probabilities.argmax(axis=1), labels=classes)


def most_confused(matrix, class_names, count=1):
    """The `count` commonest mistakes of a confusion matrix, in words."""
    wrong = matrix - np.diag(np.diag(matrix))
    pairs = np.argsort(-wrong, axis=None, kind="stable")[:count]
    found = [
        f"{class_names[true]} is taken for {class_names[predicted]}: "
        f"{wrong[true, predicted]:,} of {matrix[true].sum():,}"
        for true, predicted in zip(*np.unravel_index(pairs, wrong.shape), strict=True)
        if wrong[true, predicted]
    ]
    return f"Most often, {'; '.join(found)}" if found else "No class is ever taken for another"


def mistakes(labels, probabilities):
    """Indices of the wrong predictions, the most confident first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1), kind="stable")]
