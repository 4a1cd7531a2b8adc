"""Plots, 8 inches wide at 150 dots per inch: legible at 800 pixels, and in grey.

Each function draws one plot and writes it to `path`. Images are uint8 arrays of shape
(count, height, width, channels), one channel for grey, three for color. Titles are the caller's:
what a plot answers, the lesson says.
"""

import itertools
import sys
import textwrap
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from PIL import Image

CORRECT, ERROR = "tab:blue", "tab:red"
WIDTH, CAPTION = 8, 8.5  # inches; points

_show = "ipykernel" in sys.modules  # a notebook shows each plot below its cell
_note = ""


def set_up(show, note=""):
    """Choose what all plots have in common.

    Args:
        show: Whether to open a window for each, besides its file.
        note: What stands at the foot of each, such as that the images are a sample.
    """
    global _show, _note
    _note = note
    if show:
        _show = matplotlib.get_backend().lower() != "agg"
        if not _show:
            print("Notice: no window can be opened here; the plots are in the run's folder.")
    elif not _show:
        matplotlib.use("agg")  # needs no screen


def save(figure, path):
    """Lay out a Matplotlib figure, write it, show it where asked, and close it.

    Logarithmic axes get plain numbers, 0.02 and not 2x10^-2, and epochs whole ones.
    """
    foot = 0.25 if _note else 0  # inches
    for axis in figure.axes:
        if axis.get_xlabel() == "Epoch":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axis.get_yscale() == "log":
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
    if _note:
        figure.text(0.995, 0.004, _note, ha="right", va="bottom", fontsize=8, color="dimgrey")
    with warnings.catch_warnings():
        # Of a script that Matplotlib's font has not, such as Chinese: boxes are drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.tight_layout(rect=(0, foot / figure.get_figheight(), 1, 1))
        figure.savefig(path, dpi=150)
    if _show:
        plt.show()
    plt.close(figure)


def grid(path, images, captions, title, columns=10, *, colors=None):
    """Images in rows of `columns`, or of as many as the captions leave room for.

    All images have the same shape; a caption stands above each, and may have several lines.
    """
    captions = ["\n".join(_cut(line, 40) for line in text.split("\n")) for text in captions]
    columns = max(1, min(columns, len(images), _room_for(captions)))
    columns = -(-len(images) // max(1, -(-len(images) // columns)))  # 5 and 5, not 7 and 3
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    cell = WIDTH / max(1, columns)  # inches
    gap = (0.17 * lines + 0.06) / cell  # for a caption, in widths of a cell
    mosaic, corners = _mosaic(images, columns, above=gap, beside=0.06)
    height = WIDTH * mosaic.shape[0] / mosaic.shape[1] + 0.5 + (0.25 if _note else 0)
    figure, axis = plt.subplots(figsize=(WIDTH, height))
    axis.imshow(mosaic)
    axis.axis("off")
    for i, ((top, middle), caption) in enumerate(zip(corners, captions, strict=False)):
        style = {"ha": "center", "va": "bottom", "fontsize": CAPTION, "linespacing": 1.1}
        color = colors[i] if colors else "black"
        axis.text(middle, top - 1, _plain(caption), color=color, **style)
    _title(figure, title)
    save(figure, path)


def _mosaic(images, columns, above=0.0, beside=0.0):
    """Images side by side, as one. Small ones are enlarged: nothing is blurred.

    Args:
        images: A sequence of arrays, shape (height, width, channels); None: an empty place.
        columns: Images in a row.
        above, beside: White space above and right of each, in widths of an image.

    Returns:
        The mosaic, uint8, shape (height, width, 3); of each image its top and its middle column.
    """
    if not len(images):
        return np.full((1, 10, 3), 255, np.uint8), []
    images = [None if image is None else _rgb(image) for image in images]
    high, wide = max(image.shape[:2] for image in images if image is not None)
    zoom = max(1, 100 // wide)  # so that white space is fine beside small images
    high, wide = zoom * high, zoom * wide
    step = round(wide * above) + high, round(wide * beside) + wide
    rows = -(-len(images) // columns)
    mosaic = np.full((rows * step[0], columns * step[1] - round(wide * beside), 3), 255, np.uint8)
    corners = []
    for i, image in enumerate(images):
        bottom, left = (i // columns + 1) * step[0], i % columns * step[1]
        if image is not None:
            large = Image.fromarray(image).resize((wide, high), Image.Resampling.NEAREST)
            mosaic[bottom - high : bottom, left : left + wide] = large
        corners.append((bottom - high, left + wide / 2))
    return mosaic, corners


def counts(path, counts, class_names, title):
    """How many images each class has, as bars."""
    figure, axis = plt.subplots(figsize=(WIDTH, 1.2 + 0.28 * len(counts)))
    bars = axis.barh(range(len(counts)), counts, color=CORRECT)
    axis.bar_label(bars, [f"{count:,}" for count in counts], padding=3)
    axis.set_yticks(range(len(counts)), map(_short, class_names))
    axis.invert_yaxis()
    axis.set_xlabel("Images")
    axis.spines[["top", "right"]].set_visible(False)
    _title(figure, title)
    save(figure, path)


def rows(path, groups, title, names=("original", "augmented")):
    """One row of images for each group, named at the left; the last name serves the rest."""
    names = [names[min(i, len(names) - 1)] for i in range(len(groups))]
    columns = max(5, *(len(images) for images in groups))
    images = [image for own in groups for image in [*own, *[None] * (columns - len(own))]]
    mosaic, corners = _mosaic(images, columns, above=0.06, beside=0.06)
    height = WIDTH * mosaic.shape[0] / mosaic.shape[1] * columns / (columns + 1.2) + 0.7
    figure, axis = plt.subplots(figsize=(WIDTH, height))
    axis.imshow(mosaic)
    middle = (mosaic.shape[0] / len(groups) - corners[0][0]) / 2
    places = [top + middle for top, _ in corners[::columns]]
    axis.set_yticks(places, map(_short, names), fontsize=10)
    axis.set_xticks([])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    _title(figure, title)
    save(figure, path)


def confusion_matrix(path, matrix, class_names, title):
    """Counts of true classes (rows) and predicted ones (columns); the errors in red."""
    count = len(class_names)
    errors = matrix - np.diag(np.diag(matrix))
    figure, axis = plt.subplots(figsize=(WIDTH, 6.4 if count <= 10 else 7.6))
    size = min(10, 120 / count)  # points: 6 of them for 20 classes
    shades = np.ma.masked_equal(errors, 0)  # no error: white
    axis.imshow(shades, cmap="Reds", vmin=0, vmax=max(1, 2 * errors.max()))
    for i in range(count):
        for j in range(count):
            if matrix[i, j]:
                style = {"color": CORRECT, "weight": "bold"} if i == j else {"color": "black"}
                text = f"{matrix[i, j]:,}"
                axis.text(j, i, text, ha="center", va="center", fontsize=size, **style)
    slant = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    names = [_short(name) for name in class_names]
    axis.set_xticks(range(count), names, **(slant if max(map(len, names)) > 5 else {}))
    axis.set_yticks(range(count), names)
    axis.set(xlabel="Predicted class", ylabel="True class")
    axis.tick_params(length=0)
    axis.spines[:].set_color("lightgrey")
    _title(figure, title)
    save(figure, path)


def most_common_confusions(matrix, class_names, count=1):
    """The `count` largest off-diagonal counts of a confusion matrix, in words; ties are named, too.

    Where none is above 1, none is called the most common. Of more than three, and more than were
    asked for, the others are counted.
    """
    errors = matrix - np.diag(np.diag(matrix))
    if not errors.any():
        return "No test image is misclassified"
    if errors.sum() > errors.max() == 1:
        return f"{errors.sum()} misclassified; no confusion occurs twice"
    least = max(1, np.sort(errors, axis=None)[-min(count, errors.size)])
    found = sorted(np.argwhere(errors >= least).tolist(), key=lambda pair: -errors[*pair])
    pairs = [
        f"{_cut(class_names[true])} → {_cut(class_names[predicted])}, "
        f"{errors[true, predicted]:,} of {matrix[true].sum():,}"
        for true, predicted in found
    ]
    shown = max(3, count)
    more = f"; {len(pairs) - shown} more" if len(pairs) > shown else ""
    return f"Most common confusion{'s'[: len(pairs) > 1]}: {'; '.join(pairs[:shown])}{more}"


def predictions(path, images, labels, probabilities, class_names, which, title):
    """Images with the predicted class and its probability: correct in blue, else red.

    Args:
        labels: True classes, integers, shape (count,).
        probabilities: Predicted ones, shape (count, classes).
        which: Indices of the images to draw.
    """
    which = np.asarray(which, dtype=int)
    captions, colors = _verdicts(labels[which], probabilities[which], class_names)
    grid(path, images[which], captions, title, colors=colors)


def activation_maps(path, images, maps, labels, probabilities, class_names, title, columns=8):
    """Images, and below each its map, laid over the image in gray: the brighter, the higher.

    Args:
        maps: Floats, shape (count, rows, columns), stretched over the image. What is negative is
            drawn as 0, and each map has its own scale.
        labels: True classes, integers, shape (count,).
        probabilities: Predicted ones, shape (count, classes).
    """
    captions, colors = _verdicts(labels, probabilities, class_names)
    captions = [caption.replace(" (", "\n(") for caption in captions]
    pairs = []
    for image, map_ in zip(images, maps, strict=True):
        image = _rgb(image)
        high, wide, _ = image.shape
        map_ = np.clip(map_ / max(map_.max(), 1e-6), 0, 1).astype(np.float32)
        map_ = np.asarray(Image.fromarray(map_).resize((wide, high), Image.Resampling.BILINEAR))
        gray = image.mean(axis=2, keepdims=True)
        overlay = 0.4 * gray + 0.6 * 255 * matplotlib.colormaps["inferno"](map_)[..., :3]
        white = np.full((max(1, high // 20), wide, 3), 255)
        pairs.append(np.concatenate([image, white, overlay]).astype(np.uint8))
    grid(path, pairs, captions, title, columns, colors=colors)


def calibration(labels, probabilities, bins=10):
    """Predictions in bins of equal width, by their confidence (Guo and others, 2017).

    Args:
        labels: True classes, integers, shape (count,).
        probabilities: Predicted ones, shape (count, classes).

    Returns:
        Of each bin that is not empty, three arrays: mean confidence, accuracy, number of images.
        The mean distance of the first two, weighted by the third, is the expected calibration
        error (Naeini and others, 2015).
    """
    confidence = np.minimum(probabilities.max(axis=1).astype(float), 1)  # rounded, it may be above
    correct = np.asarray(probabilities.argmax(axis=1) == labels, float)
    edges = np.linspace(0, 1, bins + 1)
    counts, _ = np.histogram(confidence, edges)
    confidences, _ = np.histogram(confidence, edges, weights=confidence)
    accuracies, _ = np.histogram(confidence, edges, weights=correct)
    some = counts > 0
    return confidences[some] / counts[some], accuracies[some] / counts[some], counts[some]


def reliability(path, curves, title):
    """Reliability diagram: how often predictions of about the same confidence are correct.

    Args:
        curves: For each model's name three arrays of shape (bins,): mean confidence and accuracy
            of each bin, 0 to 1, and its number of images. Points of fewer than 30 are hollow.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 5))
    axis.plot([0, 1], [0, 1], color="grey", linewidth=1, label="calibrated: on this line")
    axis.text(0.03, 0.6, "above: underconfident", color="dimgrey")
    axis.text(0.6, 0.25, "below: overconfident", color="dimgrey")
    styles = ("o-", CORRECT), ("s--", "tab:orange"), ("^:", "tab:green")
    for (name, (confidences, accuracies, counts)), (style, color) in zip(
        curves.items(), styles, strict=False
    ):
        few = counts < 30
        axis.plot(confidences[~few], accuracies[~few], style, color=color, label=name)
        axis.plot(confidences[few], accuracies[few], style[0], color=color, markerfacecolor="white")
    axis.plot([], [], "o", color="grey", markerfacecolor="white", label="fewer than 30 images")
    axis.set(xlabel="Mean confidence of a bin", ylabel="Accuracy in the bin")
    axis.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, loc="upper left")
    _title(figure, title)
    save(figure, path)


def gaps(path, points, names, title):
    """The gap of each model against its test accuracy, in this run and in others.

    Args:
        points: Percentages, shape (runs, models, 2): the gap, training minus test accuracy, and
            the test accuracy. The first run is this one; its points are filled.
        names: One per model.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 5))
    for i, (name, marker) in enumerate(zip(names, itertools.cycle("osD^vPX"), strict=False)):
        style = {"linestyle": "none", "marker": marker, "markersize": 8}
        axis.plot(*points[1:, i].T, color=CORRECT, markerfacecolor="white", **style)
        axis.plot(*points[0, i], color="tab:orange", markeredgecolor="black", **style, label=name)
    axis.set(xlabel="Gap: training minus test accuracy (points)", ylabel="Test accuracy (%)")
    axis.spines[["top", "right"]].set_visible(False)
    what = "orange: this run" + "\nblue: stored runs" * (len(points) > 1)
    legend = {"frameon": False, "loc": "upper left", "bbox_to_anchor": (1, 1)}
    axis.legend(title=what, alignment="left", **legend)
    _title(figure, title)
    save(figure, path)


def _room_for(captions):
    """How many captions fit side by side: at 9 points, a character takes 0.078 inches."""
    longest = max((len(line) for caption in captions for line in caption.split("\n")), default=0)
    return max(1, int(WIDTH / (0.1 + 0.078 * CAPTION / 9 * longest)))


def _plain(text):
    """Text in which a $ is a $, and does not begin a formula."""
    return text.replace("$", r"\$")


def _cut(name, most=24):
    """The beginning and the end of a long name."""
    return name if len(name) <= most else f"{name[: most - 9]}…{name[-8:]}"


def _short(name):
    return _plain(_cut(name))


def _title(figure, title):
    """At the same distance from the top, however tall the figure is."""
    title = textwrap.fill(_plain(title), 78)
    figure.suptitle(title, fontsize=12, y=1 - 0.07 / figure.get_figheight())


def _verdicts(labels, probabilities, class_names):
    """A caption and a color for each prediction; only an error names the true class."""
    captions, colors = [], []
    class_names = [_cut(name) for name in class_names]
    lead = "predicted " if max(map(len, class_names)) <= 3 else ""  # where there is room for it
    for label, row in zip(labels, probabilities, strict=True):
        caption = f"{class_names[row.argmax()]} ({percent(row.max())})"
        correct = row.argmax() == label
        captions.append(caption if correct else f"{lead}{caption}\ntrue {class_names[label]}")
        colors.append(CORRECT if correct else ERROR)
    return captions, colors


def percent(probability):
    """A probability in few letters; what is not certain is never shown as 100%."""
    return f"{probability:.0%}" if probability < 0.995 else ">99%"


def _rgb(image):
    """An image of pixels 0 to 255 as RGB; a gray one as ink: the higher the value, the darker."""
    image = np.asarray(image, np.float32).astype(np.uint8)  # also of bfloat16
    return np.repeat(255 - image, 3, axis=2) if image.shape[2] == 1 else image
