"""Make five classic mistakes in copies of the MNIST lesson, and show how their training looks.

    python benchmarks/faults.py                       # about eight minutes on two CPU cores
    python benchmarks/faults.py --sample --epochs 2   # does it work?

Each fault is a change of a few lines; all else is the lesson's own code. Its curves are drawn
beside those of the sound run. The page and its plots go to `outputs/faults`, or to `--output-dir`;
what is in its `faults.json` already is not trained again.
"""

import argparse
import csv
import difflib
import json
import sys
from pathlib import Path
from typing import NamedTuple

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

import ideas
import matplotlib.pyplot as plt
import numpy as np

from common import options, plots

SCRIPT = "train_mnist.py"
SGD = [("keras.optimizers.Adam(learning_rate)", "keras.optimizers.SGD(0.1)")]
DEFAULT = "batch_size=200, learning_rate=4e-3)"
RESCALING = "        keras.layers.Rescaling(1 / 255),  # 0..255 -> 0..1; a part of the model\n"
SHUFFLE = "    .shuffle(len(x_train), seed=args.seed)\n"
CORES = "num_parallel_calls=device.cores)\n"


class Fault(NamedTuple):
    """A mistake.

    Attributes:
        title: Of its section.
        shows: What the curves show, in a few words.
        notice: How you would notice it.
        changes: Pairs of old and new text.
        sound: Changes of the run that it is compared with; none: the lesson itself.
    """

    title: str
    shows: str
    notice: str
    changes: list
    sound: tuple = ()


FAULTS = {
    "no-rescaling": Fault(
        "No rescaling, with plain SGD",
        "the loss is not a number",
        "Both runs of this section use plain SGD with a learning rate of 0.1: an optimizer that "
        "follows the gradient, and does not adapt its steps as Adam does. Pixels up to 255 make "
        "large gradients. Without rescaling, the untrained loss is 12 instead of 2.3. In the "
        "first epoch, the loss is not a number any more, and `TerminateOnNaN` ends the training, "
        "so there is no red loss. With another seed, the training loss was 10 to the power of 14, "
        "and the model guessed. With Adam, the lesson learns also without rescaling (a test "
        "accuracy of 99.47%, one run).",
        [*SGD, (RESCALING, "")],
        tuple(SGD),
    ),
    "high-learning-rate": Fault(
        "A learning rate 30 times as high",
        "the loss jumps to that of guessing",
        "The loss falls at first, while the learning rate still warms up. Then it jumps to 2.30, "
        "that of guessing, and stays there, also in training. Lower the rate until the loss keeps "
        "falling.",
        [(DEFAULT, "batch_size=200, learning_rate=0.12)")],
    ),
    "shuffled-labels": Fault(
        "Labels that do not belong to their images",
        "no loss is better than that of guessing",
        "From the first epoch to the last, both losses are 2.30, that of guessing: there is "
        "nothing to learn. (The red lines lie on each other; the validation set is split from the "
        "same images.) Look at `examples.png`: the images do not show what their rows say.",
        [
            (
                "examples = [x_train[y_train == label]",
                "y_train = np.random.default_rng(0).permutation(y_train)\n"
                "examples = [x_train[y_train == label]",
            )
        ],
    ),
    "cached-augmentation": Fault(
        "The cache after the augmentation",
        "the validation loss does not follow the training loss",
        "The training loss ends at a third of that of the sound run, and the validation loss does "
        "not follow: it ends higher, with 0.020 instead of 0.015. Every epoch repeats the "
        "augmented images of the first, and the model memorizes them. The accuracy hardly suffers "
        "here, in eleven epochs.",
        [
            ("    .cache()\n" + SHUFFLE, SHUFFLE),
            (CORES + "    .prefetch(4)", CORES + "    .cache()\n    .prefetch(4)"),
        ],
    ),
    "sorted-classes": Fault(
        "Sorted by class, and not shuffled",
        "the training accuracy falls below that of guessing",
        "In the second epoch, the training accuracy falls to nearly 0, below guessing. Each batch "
        "has one class, and the model learns to predict that of the batches before. Later it "
        "always predicts one digit. On the validation images, which have all classes, it is no "
        "better than guessing.",
        [
            (
                "augment = keras.layers.Pipeline(",
                "x_train, y_train = x_train[np.argsort(y_train)], np.sort(y_train)\n"
                "augment = keras.layers.Pipeline(",
            ),
            (SHUFFLE, ""),
        ],
    ),
}


def main():
    parser = options.Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="NAME")
    parser.add_argument("--epochs", type=int, help="default: the lesson's")
    parser.add_argument("--sample", action="store_true", help="on the small sample")
    parser.add_argument("--data-dir", type=options.existing_folder, default=HOME / "data")
    parser.add_argument("--output-dir", type=Path, default=HOME / "outputs" / "faults")
    options.answer_mistakes(parser.prog)
    args = parser.parse_args()
    command = ["--data-dir", str(args.data_dir.resolve()), *(["--sample"] if args.sample else [])]
    command += ["--epochs", str(args.epochs)] if args.epochs else []

    args.output_dir.mkdir(parents=True, exist_ok=True)
    plots.set_up(show=False)
    path = args.output_dir / "faults.json"
    histories = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    source = (HOME / SCRIPT).read_text(encoding="utf-8")
    for name, changes in trainings(args.faults).items():
        if name not in histories:
            print(f"{name} …", flush=True)
            histories[name] = train(ideas.change(source, changes), command)
            path.write_text(json.dumps(histories, indent=1) + "\n", encoding="utf-8")
    for name in args.faults:
        path = args.output_dir / f"{name}.png"
        title = f"{FAULTS[name].title}: {FAULTS[name].shows}"
        draw(path, histories[sound(name)], histories[name], title)
    text = page(source, histories, args.faults)
    (args.output_dir / "README.md").write_text(text, encoding="utf-8")
    print(f"Page: {args.output_dir / 'README.md'}")


def sound(name):
    """The name of the training that a fault is compared with."""
    return f"sound-{name}" if FAULTS[name].sound else "the-lesson"


def trainings(names):
    """What each training for these faults changes in the lesson, by its name."""
    found = {}
    for name in names:
        found[sound(name)] = FAULTS[name].sound
        found[name] = FAULTS[name].changes
    return found


def train(text, command):
    """Train a changed copy of the lesson.

    Returns:
        What its `history.csv` holds: a dict of lists, a number per epoch; None for what is none.
    """
    # A loss that is not a number ends the lesson: that is a result, too.
    text = ideas.train(SCRIPT, text, command, "history.csv", accepted="not a number")
    rows = list(csv.DictReader(text.splitlines()))
    keys = "loss", "val_loss", "accuracy", "val_accuracy"
    values = {key: [float(row[key]) for row in rows] for key in keys}
    return {k: [v if np.isfinite(v) else None for v in own] for k, own in values.items()}


def draw(path, good, bad, title):
    """The curves of a fault in red, beside those of the sound run in blue."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
    for axis, key, label in zip(axes, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        for history, color, name in ((good, "tab:blue", "sound"), (bad, "tab:red", "mistake")):
            for part, style in (("", "--"), ("val_", "-")):
                values = np.array(history[part + key], dtype=float)
                epochs = np.arange(1, len(values) + 1)
                what = f"{name}, {'validation' if part else 'training'}"
                axis.plot(epochs, values, style, color=color, marker="o", markersize=3, label=what)
        axis.set(xlabel="Epoch", ylabel=label)
    axes[0].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    plots.save(figure, path)


def page(source, histories, names=FAULTS):
    """The text of the page: of each fault its change, its plot, and how you would notice."""
    lines = [
        "# Classic mistakes, and how they look",
        "",
        "Five classic mistakes, each made on purpose in a copy of `train_mnist.py`, in one run.",
        "Its curves are red, those of the sound run blue; training dashed, validation solid. The",
        "axis of the loss is logarithmic. Training has augmentation and dropout, validation has",
        "not, so it can look better. `python benchmarks/faults.py` makes this page.",
        "",
        "Guessing, with a probability of 1/10 for each digit, has a loss of -ln(1/10) = 2.30. Who",
        "always predicts the most frequent digit has an accuracy of 11.2%. To tell the mistakes",
        "apart, look at the first epochs.",
    ]
    for name in names:
        fault = FAULTS[name]
        before = ideas.change(source, fault.sound).splitlines()
        after = ideas.change(source, fault.changes).splitlines()
        diff = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
        diff = ["" if line.startswith("@@") else line for line in diff]
        diff = "\n".join(diff).strip("\n").splitlines()
        lines += ["", f"## {fault.title}", "", "```diff", *diff, "```", ""]
        lines += [f"![Loss and accuracy over the epochs: {fault.title}]({name}.png)", ""]
        lines += [f"**How you would notice.** {fault.notice}", ""]
        good, bad = histories[sound(name)], histories[name]
        lines += ["| last epoch | training loss | validation loss | validation accuracy |"]
        lines += ["|---|---|---|---|", row("sound", good), row("mistake", bad)]
    return "\n".join(lines) + "\n"


def row(name, history):
    """A row of Markdown: the figures of the last epoch."""
    last = [history[key][-1] for key in ("loss", "val_loss", "val_accuracy")]
    shown = ["not a number" if value is None else f"{value:.3f}" for value in last[:2]]
    return f"| {name} | {' | '.join(shown)} | {last[2]:.1%} |"


if __name__ == "__main__":
    main()
