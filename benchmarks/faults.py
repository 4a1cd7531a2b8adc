"""Make five classic mistakes in copies of the MNIST lesson, and show how their training looks.

    python benchmarks/faults.py                       # about eight minutes on two CPU cores
    python benchmarks/faults.py --sample --epochs 2   # does it work?

Each fault is a change of a few lines; all else is the lesson's own code. Its curves are drawn
beside those of the sound run. The page and its plots go to `outputs/faults`, or to `--output-dir`;
what is in its `faults.json` already is not trained again.
"""

import csv
import difflib
import hashlib
import json
import tomllib
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import shared

from common import options, plots

SCRIPT = "train_mnist.py"

FAULTS = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
NO_NUMBER = "not a number"  # as the lesson says of its loss, where it ends


def main():
    parser = shared.parser(__doc__)
    parser.add_argument("--faults", nargs="+", metavar="NAME", help=f"{', '.join(FAULTS)}; all")
    default = shared.HOME / "outputs" / "faults"
    parser.option("--output-dir", "where the page goes", default, type=Path, metavar="DIR")
    args = parser.parse_args()
    names = shared.chosen(parser, args.faults, FAULTS)
    options.explain_errors()

    path = args.output_dir / "faults.json"
    source = (shared.HOME / SCRIPT).read_text(encoding="utf-8")
    histories = {"code": digest(source)}
    if path.exists():
        histories = json.loads(path.read_text(encoding="utf-8"))
    texts = copies(source, names)
    missing = [name for name in texts if name not in histories]
    if missing and histories.get("code") != digest(source):
        what = f"of an older version of {SCRIPT}, and without {missing[0]}"
        raise options.Mistake(f"{path}: {what}. Choose another --output-dir.")
    for name in missing:
        print(f"{name} …", flush=True)
        command = shared.passed_on(args, "data_dir", "sample", "epochs")
        histories[name] = train(texts[name], command)
        shared.write(path, histories)
    plots.set_up(show=False)
    for name in names:
        draw(args.output_dir / f"{name}.png", histories[sound(name)], histories[name], name)
    text = page(source, histories, names)
    (args.output_dir / "README.md").write_text(text, encoding="utf-8")
    print(f"Page: {args.output_dir / 'README.md'}")


def sound(name):
    """The name of the training that a fault is compared with."""
    return f"sound-{name}" if "sound" in FAULTS[name] else "the-lesson"


def copies(source, names=FAULTS):
    """The lesson's text in each training that these faults need, by the training's name."""
    texts = {}
    for name in names:
        changes = FAULTS[name].get("sound", [])
        for training, added in [(sound(name), []), (name, FAULTS[name]["changes"])]:
            pairs = [(change["old"], change["new"]) for change in [*changes, *added]]
            texts[training] = shared.change(source, pairs, SCRIPT, name)
    return texts


def digest(source):
    """A SHA-256 of a lesson's code; its docstring, its prose and its comments are left out."""
    lines = [line.partition("  # ")[0] for line in source.split('"""', 2)[-1].splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def train(text, command):
    """Train a changed copy of the lesson.

    Returns:
        What its `history.csv` holds: a dict of lists, a number per epoch. The last is None where
        the loss was not a number: that ends the lesson, and is a result, too.
    """
    with shared.trained(SCRIPT, text, command, accepted=NO_NUMBER) as (folder, errors):
        rows = list(csv.DictReader((folder / "cnn" / "history.csv").read_text().splitlines()))
    ended = [None] if NO_NUMBER in errors else []
    keys = ("loss", "val_loss", "accuracy", "val_accuracy")
    return {key: [float(row[key]) for row in rows] + ended for key in keys}


def draw(path, good, bad, name):
    """The curves of a fault in red, beside those of the sound run in blue."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
    for axis, key, label in zip(axes, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        for history, color, who in ((good, "tab:blue", "sound"), (bad, "tab:red", "mistake")):
            for part, style in (("", "--"), ("val_", "-")):
                values = np.array(history[part + key], dtype=float)  # None becomes NaN: no point
                epochs = np.arange(1, len(values) + 1)
                what = f"{who}, {'validation' if part else 'training'}"
                axis.plot(epochs, values, style, color=color, marker="o", markersize=3, label=what)
        axis.set(xlabel="Epoch", ylabel=label)
    axes[0].set_yscale("log")
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("{title}: {shows}".format(**FAULTS[name]))
    plots.save(figure, path)


ABOUT = """\
# Classic mistakes, and how they look

Five classic mistakes, each made on purpose in a copy of `train_mnist.py`, in one run.
Its curves are red, those of the sound run blue; training dashed, validation solid. The
axis of the loss is logarithmic. Training has augmentation and dropout, validation has
not, so it can look better. `python benchmarks/faults.py` makes this page.

Guessing, with a probability of 1/10 for each digit, has a loss of -ln(1/10) = 2.30. Who
always predicts the most frequent digit has an accuracy of 11.2%. To tell the mistakes
apart, look at the first epochs.
"""
OLDER = "\nThe figures and plots are of an older version of the lesson; the changes fit today's.\n"
SECTION = """
## {title}

```diff
{diff}
```

![Loss and accuracy over the epochs: {title}]({name}.png)

**How you would notice.** {notice}

| last epoch | training loss | validation loss | validation accuracy |
|---|---|---|---|
{good}
{bad}
"""


def page(source, histories, names=FAULTS):
    """The text of the page: of each fault its change, its plot, and how you would notice."""
    texts = copies(source, names)
    text = ABOUT + (OLDER if histories.get("code") != digest(source) else "")
    for name in names:
        before, after = texts[sound(name)].splitlines(), texts[name].splitlines()
        diff = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
        text += SECTION.format(
            name=name,
            title=FAULTS[name]["title"],
            notice=" ".join(FAULTS[name]["notice"].split()),
            diff="\n".join("" if line.startswith("@@") else line for line in diff).strip("\n"),
            good=row("sound", histories[sound(name)]),
            bad=row("mistake", histories[name]),
        )
    return text


def row(name, history):
    """A row of Markdown: the figures of the last epoch."""
    *losses, accuracy = (history[key][-1] for key in ("loss", "val_loss", "val_accuracy"))
    shown = ["not a number" if value is None else f"{value:.3f}" for value in losses]
    shown.append("none" if accuracy is None else f"{accuracy:.1%}")
    return f"| {name} | {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
