"""Plots, 8 inches wide at 150 dots per inch: legible at 800 pixels, and in grey.

Each function draws one plot and writes it to `path`. Images are uint8 arrays of shape
(count, height, width, channels), one channel for grey, three for color. Titles are the caller's:
what a plot answers, the lesson says.
"""

import sys
import textwrap
import warnings

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

CORRECT, ERROR = "tab:blue", "tab:red"
WIDTH = 8  # inches

_show = "ipykernel" in sys.modules  # a notebook shows each plot below its cell
_note = ""


def set_note(text):
    """Say this at the foot of every plot from now on; "": nothing."""
    global _note
    _note = text


def set_up(show):
    """Choose where plots go besides their files: `show` opens a window for each."""
    global _show
    if show:
        _show = True
        if matplotlib.get_backend().lower() == "agg":
            _show = False
            print("Notice: no window can be opened here; the plots are in the run's folder.")
    elif not _show:
        matplotlib.use("agg")  # needs no screen


def save(figure, path, *, foot=0.0):
    """Lay out a Matplotlib figure, write it, show it where asked, and close it.

    Logarithmic axes get plain numbers, 0.02 and not 2x10^-2, and epochs whole ones; `foot` inches
    at the foot stay free.
    """
    for axis in figure.axes:
        if axis.get_xlabel() == "Epoch":
            axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        if axis.get_yscale() == "log":
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter("{x:g}")
            axis.yaxis.set_minor_formatter(NullFormatter())
    if _note:
        figure.text(0.995, 0.004, _note, ha="right", va="bottom", fontsize=8, color="dimgrey")
        foot += 0.25
    with warnings.catch_warnings():
        # Of a script that Matplotlib's font has not, such as Chinese: boxes are drawn.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.tight_layout(rect=(0, foot / figure.get_figheight(), 1, 1))
        figure.savefig(path, dpi=150)
    if _show:
        plt.show()
    plt.close(figure)


def grid(path, images, captions, title, columns=10, *, colors=None):
    """Images in rows of `columns`, or of as many as the captions leave room for."""
    size = 9 if _room_for(captions, 9) >= min(5, columns) else 7  # points
    columns = min(columns, _room_for(captions, size))
    rows = max(1, -(-len(images) // columns))
    if rows > 1:
        columns = -(-len(images) // rows)  # ten in rows of 5 and 5, not 7 and 3
    cell = WIDTH / columns
    lines = 1 + max((caption.count("\n") for caption in captions), default=0)
    height = rows * (cell + 0.2 * lines) + 0.5 + (0.25 if _note else 0)
    figure, axes = plt.subplots(rows, columns, figsize=(WIDTH, height), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, image, caption) in enumerate(zip(axes.flat, images, captions, strict=False)):
        _image(axis, image)
        axis.set_title(
            _plain(caption), fontsize=size, pad=3, color=colors[i] if colors else "black"
        )
    _title(figure, title)
    save(figure, path)


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


def pixels(path, image, title):
    """One grey image, large, with the scale of its values."""
    figure, axis = plt.subplots(figsize=(WIDTH, 5))
    shades = axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=255)
    figure.colorbar(shades, ax=axis, label="Value of a pixel", ticks=[0, 50, 100, 150, 200, 255])
    axis.set(xlabel="Column", ylabel="Row")
    _title(figure, title)
    save(figure, path)


def rows(path, groups, title, names=("original", "augmented")):
    """One row of images for each group, named at the left; the last name serves the rest."""
    names = [names[min(i, len(names) - 1)] for i in range(len(groups))]
    columns = max(len(images) for images in groups)
    height = len(groups) * WIDTH / (columns + 1.2) + 0.7
    figure, axes = plt.subplots(len(groups), columns, figsize=(WIDTH, height), squeeze=False)
    for row, images, name in zip(axes, groups, names, strict=True):
        row[0].set_ylabel(_short(name), rotation=0, ha="right", va="center", fontsize=10)
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        for axis, image in zip(row, images, strict=False):
            _image(axis, image)
    _title(figure, title)
    save(figure, path)


def curves(path, history, title, *, baseline=None, names=("plain", "second"), test=None):
    """Loss and accuracy over epochs, the best epoch marked.

    Args:
        history: Dict of lists, one entry an epoch: `loss`, `accuracy`, `val_loss`,
            `val_accuracy`.
        baseline: The same of a first model, drawn into the same axes.
        names: What the first model and this one are called there.
        test: The test accuracies of both, drawn as dotted levels.
    """
    figure, axes = plt.subplots(1, 2, figsize=(WIDTH, 4.4 if baseline else 3.4))
    first, second = (f"{name}, " for name in names) if baseline else ("", "")
    if baseline:
        _draw_curves(axes, baseline, first, "tab:orange", "s")
    _draw_curves(axes, history, second, CORRECT, "o")
    last = max(len(h["loss"]) for h in [history, baseline] if h)
    for axis in axes:
        axis.set_xlabel("Epoch")
        axis.set_xlim(0.5, last + 0.5)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Loss (cross-entropy, nats)")
    axes[0].set_ylim(bottom=0)
    if test:
        for level, name, color in zip(test, (first, second), ("tab:orange", CORRECT), strict=True):
            axes[1].axhline(level, color=color, linestyle=":", linewidth=2, label=f"{name}test")
    if baseline:
        handles, labels = axes[1].get_legend_handles_labels()
        order = sorted(range(len(labels)), key=lambda i: labels[i].startswith(second))
        figure.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="lower center",
            bbox_to_anchor=(0.5, 0.25 / figure.get_figheight() if _note else 0),
            ncols=2,
            frameon=False,
            fontsize=9,
        )
    else:
        axes[0].legend(frameon=False)
    axes[1].set_ylabel("Accuracy")
    axes[1].yaxis.set_major_formatter(PercentFormatter(1))
    _title(figure, title)
    save(figure, path, foot=0.85 if baseline else 0)


def _draw_curves(axes, history, name, color, marker):
    """The lines of one model: training dashed, validation solid, its best epoch circled."""
    epochs = np.arange(1, len(history["loss"]) + 1)
    best = best_epoch(history)
    size = 3 if len(epochs) <= 40 else 0
    for axis, figure in zip(axes, ["loss", "accuracy"], strict=True):
        lines = {"marker": marker, "markersize": size, "color": color}
        axis.plot(epochs, history[figure], "--", mfc="white", label=f"{name}training", **lines)
        axis.plot(epochs, history[f"val_{figure}"], "-", label=f"{name}validation", **lines)
        axis.plot(
            best,
            history[f"val_{figure}"][best - 1],
            marker,
            color=ERROR,
            markersize=9,
            markerfacecolor="none",
            linestyle="none",
            clip_on=False,  # a loss near 0 is at the border
            label=f"{name}best: epoch {best}",
        )


def best_epoch(history):
    """The epoch, counted from 1, with the highest `val_accuracy`; of equals, lowest `val_loss`."""
    order = np.lexsort((history["val_loss"], -np.asarray(history["val_accuracy"])))
    return int(order[0]) + 1


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
    axis.set_xlabel("Predicted class")
    axis.set_ylabel("True class")
    axis.set_xticks(np.arange(count + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(count + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="lightgrey", linewidth=0.5)
    axis.tick_params(which="both", length=0)
    axis.spines[:].set_color("lightgrey")
    _title(figure, title)
    save(figure, path)


def most_common_confusions(matrix, class_names):
    """The largest off-diagonal counts of a confusion matrix, in words; ties are all named."""
    errors = matrix - np.diag(np.diag(matrix))
    if not errors.any():
        return "No test image is misclassified"
    most = errors.max()
    pairs = [
        f"{_cut(class_names[true])} → {_cut(class_names[predicted])}, "
        f"{most:,} of {matrix[true].sum():,}"
        for true, predicted in np.argwhere(errors == most)
    ]
    more = f"; {len(pairs) - 3} more" if len(pairs) > 3 else ""
    return f"Most common confusion{'s'[: len(pairs) > 1]}: {'; '.join(pairs[:3])}{more}"


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


def probabilities(path, images, labels, probabilities, class_names, which, title):
    """Images, each beside the bars of its probabilities: the true class in blue.

    Arguments are those of `predictions`. Where the longest bar is another than the true
    class's, it is red.
    """
    which, columns = np.asarray(which, dtype=int), 3
    rows = max(1, -(-len(which) // columns))
    height = rows * max(1.3, 0.13 * len(class_names)) + 0.6
    figure, axes = plt.subplots(
        rows,
        2 * columns,
        figsize=(WIDTH, height),
        squeeze=False,
        gridspec_kw={"width_ratios": [1, 0.8] * columns},
    )
    for axis in axes.flat[2 * len(which) :]:
        axis.axis("off")
    for axis, bars, i in zip(axes.flat[::2], axes.flat[1::2], which, strict=False):
        _image(axis, images[i])
        axis.axis("off")
        predicted, true = probabilities[i].argmax(), labels[i]
        colors = ["darkgrey"] * len(class_names)
        colors[predicted] = ERROR
        colors[true] = CORRECT
        bars.barh(range(len(class_names)), probabilities[i], color=colors)
        bars.set_yticks(range(len(class_names)), map(_short, class_names), fontsize=7)
        bars.invert_yaxis()
        bars.set(xlim=(0, 1), xticks=[0, 1])
        bars.xaxis.set_major_formatter(PercentFormatter(1))
        bars.tick_params(axis="x", labelsize=7, length=2)
        bars.tick_params(axis="y", length=0)
        bars.spines[["top", "right"]].set_visible(False)
    _title(figure, title)
    save(figure, path)


def _room_for(captions, size):
    """How many captions of `size` points fit side by side: at 9, a character takes 0.078 inches."""
    longest = max((len(line) for caption in captions for line in caption.split("\n")), default=0)
    return max(1, int(WIDTH / (0.1 + 0.078 * size / 9 * longest)))


def _plain(text):
    """Text in which a $ is a $, and does not begin a formula."""
    return text.replace("$", r"\$")


def _cut(name):
    """The beginning and the end of a long name: 24 characters."""
    return name if len(name) <= 24 else f"{name[:15]}…{name[-8:]}"


def _short(name):
    return _plain(_cut(name))


def _title(figure, title):
    """At the same distance from the top, however tall the figure is."""
    title = textwrap.fill(_plain(title), 90)
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


def _image(axis, image):
    """Draw one image, pixels 0 to 255; grey ones as ink: the higher the value, the darker."""
    image = np.asarray(image, np.float32).astype(np.uint8)  # also of bfloat16
    if image.shape[-1] == 1:
        axis.imshow(image[..., 0], cmap="gray_r", vmin=0, vmax=255)
    else:
        axis.imshow(image)
