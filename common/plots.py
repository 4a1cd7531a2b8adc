"""Figures -> pictures, 8 inches wide at 150 dots an inch: legible at 800 pixels, and in grey.

Each function draws one picture and writes it to `path`. Pictures are uint8 arrays of shape
(count, height, width, channels), one channel for grey, three for color. Titles are the caller's:
what a picture answers, the lesson says.
"""

import sys

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator, PercentFormatter

RIGHT, WRONG = "tab:blue", "tab:red"
WIDTH = 8  # inches

_show = "ipykernel" in sys.modules  # a notebook shows each picture below its cell


def set_up(show):
    """Choose where pictures go besides their files: `show` opens a window for each."""
    global _show
    if show:
        _show = True
        if matplotlib.get_backend().lower() == "agg":
            _show = False
            print("Notice: no window can be opened here; the pictures are in the run's folder.")
    elif not _show:
        matplotlib.use("agg")  # needs no screen


def grid(path, pictures, captions, title, columns=10, *, colors=None):
    """Pictures in rows of `columns`, each under its caption."""
    rows = max(1, -(-len(pictures) // columns))
    cell = WIDTH / columns
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    height = rows * (cell + 0.17 * lines) + 0.5
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, picture, caption) in enumerate(zip(axes.flat, pictures, captions, strict=False)):
        _picture(axis, picture)
        axis.set_title(caption, fontsize=9, pad=3, color=colors[i] if colors else "black")
    figure.suptitle(title, fontsize=12)
    _finish(figure, path)


def rows(path, groups, title, names=("as it is", "distorted", "again")):
    """One row of pictures for each group, named at the left; the last name serves the rest."""
    names = [names[min(i, len(names) - 1)] for i in range(len(groups))]
    columns = max(len(pictures) for pictures in groups)
    height = len(groups) * WIDTH / (columns + 1.2) + 0.7
    figure, axes = plt.subplots(len(groups), columns, figsize=(WIDTH, height), squeeze=False)
    for row, pictures, name in zip(axes, groups, names, strict=True):
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, picture in zip(row, pictures, strict=False):
            _picture(axis, picture)
    figure.suptitle(title, fontsize=12)
    _finish(figure, path)


def curves(path, history, title):
    """Loss and accuracy over epochs, the best epoch marked.

    Args:
        history: Dict of lists, one entry an epoch: `loss`, `accuracy`, `val_loss`,
            `val_accuracy`.
    """
    epochs = np.arange(1, len(history["loss"]) + 1)
    best = best_epoch(history)
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 3.4))
    for axis, name in zip(axes, ["loss", "accuracy"], strict=True):
        axis.plot(epochs, history[name], "--o", color=RIGHT, ms=3, mfc="white", label="training")
        axis.plot(epochs, history[f"val_{name}"], "-o", color=RIGHT, ms=3, label="validation")
        at_best = history[f"val_{name}"][best - 1]
        axis.plot(
            best,
            at_best,
            "o",
            color=WRONG,
            markersize=9,
            markerfacecolor="none",
            clip_on=False,  # a loss near 0 is at the border
            label=f"best: epoch {best}",
        )
        axis.set_xlabel("Epoch")
        axis.set_xlim(0.5, len(epochs) + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Loss (cross-entropy, nats)")
    axes[0].set_ylim(bottom=0)
    axes[0].legend(frameon=False)
    axes[1].set_ylabel("Accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    figure.suptitle(title, fontsize=12)
    _finish(figure, path)


def best_epoch(history):
    """The epoch, counted from 1, with the highest `val_accuracy`; of equals, lowest `val_loss`."""
    order = np.lexsort((history["val_loss"], -np.asarray(history["val_accuracy"])))
    return int(order[0]) + 1


def confusion_matrix(path, matrix, class_names, title):
    """Counts of true classes (rows) taken for predicted ones (columns), mistakes in red."""
    count = len(class_names)
    wrong = matrix - np.diag(np.diag(matrix))
    figure, axis = plt.subplots(figsize=(WIDTH, 6.4))
    shades = np.ma.masked_equal(wrong, 0)  # no mistake: white
    axis.imshow(shades, cmap="Reds", vmin=0, vmax=max(1, 2 * wrong.max()))
    for i in range(count):
        for j in range(count):
            if matrix[i, j]:
                weight = "bold" if i == j else "normal"
                color = RIGHT if i == j else "black"
                axis.text(
                    j, i, f"{matrix[i, j]:,}", ha="center", va="center", color=color, weight=weight
                )
    axis.set_xticks(range(count), class_names)
    axis.set_yticks(range(count), class_names)
    axis.set_xlabel("Predicted class")
    axis.set_ylabel("True class")
    axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="lightgrey", linewidth=0.5)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_color("lightgrey")
    figure.suptitle(title, fontsize=12)
    _finish(figure, path)


def predictions(path, pictures, labels, probabilities, class_names, which, title):
    """Pictures with the predicted class and its probability: right in blue, wrong in red.

    Ten in a row, or as many as the captions leave room for.

    Args:
        labels: True classes, integers, shape (count,).
        probabilities: Predicted ones, shape (count, classes).
        which: Indices of the pictures to draw.
    """
    which = np.asarray(which, dtype=int)
    captions, colors = _verdicts(labels[which], probabilities[which], class_names)
    longest = max((len(line) for caption in captions for line in caption.split("\n")), default=0)
    columns = min(10, int(WIDTH / (0.1 + 0.078 * longest)))  # 9 points: 0.078 inches a character
    grid(path, pictures[which], captions, title, columns, colors=colors)


def _verdicts(labels, probabilities, class_names):
    """A caption and a color for each prediction; only a wrong one names the true class."""
    captions, colors = [], []
    for label, row in zip(labels, probabilities, strict=True):
        caption = f"{class_names[row.argmax()]} ({_percent(row.max())})"
        right = row.argmax() == label
        captions.append(caption if right else f"{caption}\nis {class_names[label]}")
        colors.append(RIGHT if right else WRONG)
    return captions, colors


def _percent(probability):
    return f"{probability:.0%}" if probability < 0.995 else ">99%"


def _picture(axis, picture):
    """Draw one picture; grey ones as ink: the higher the value, the darker."""
    if picture.shape[-1] == 1:
        axis.imshow(picture[..., 0], cmap="gray_r", vmin=0, vmax=255)
    else:
        axis.imshow(picture.astype(np.uint8))


def _finish(figure, path):
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    if _show:
        plt.show()
    plt.close(figure)
