"""Change a few lines in copies of a lesson, train them, and write a page: what one sees of it.

    python benchmarks/changes.py mistakes             # about ten minutes on two CPU cores
    python benchmarks/changes.py exercises-mnist      # about ten minutes, too
    python benchmarks/changes.py exercises-fashion    # those of the second lesson
    python benchmarks/changes.py mistakes --sample --epochs 2 --output-dir DIR    # does it work?

A TOML file of this name, beside this one, has the changes and the texts. All else is the lesson's
own code; a training that is not looked at gets one epoch. The page says what was
changed, and draws the curves beside those of the lesson. It is in `docs/`, or in `--output-dir`,
with its plots in a folder of its name beside it. What is in `figures.json` there is not trained
again.
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

HERE = Path(__file__).parent
NO_NUMBER = "not a number"  # as the lesson says of its loss, where it ends
PAGES = "mistakes", "exercises-mnist", "exercises-fashion"
CURVES = ("loss", "val_loss", "accuracy", "val_accuracy")
OLDER = "\nThe figures and plots are of an older version of the lesson; the changes fit today's.\n"


class Page:
    """What a TOML file says.

    Attributes:
        about: `path` of the page, `text` of its beginning, the lesson's `script`, and `names` of
            the two kinds of curves.
        changes: By name: `title`; `shows`, for the plot; `before` and `after` the change, in words;
            `training`, which is looked at; `changes` and `sound`, lists of `old` and `new` text,
            the latter also made in what it is compared with.
        source: The lesson's text.
    """

    def __init__(self, name):
        found = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))
        self.about = found.pop("page")
        self.changes = found
        self.source = (shared.HOME / self.about["script"]).read_text(encoding="utf-8")

    def sound(self, name):
        """The name of the training that a change is compared with."""
        own = self.changes[name]
        return f"sound-{name}" if "sound" in own else f"the-lesson-{own['training']}"

    def copies(self, names):
        """The lesson's text in each training that these changes need, by the training's name."""
        texts = {}
        for name in names:
            own = self.changes[name]
            for training, more in [(self.sound(name), []), (name, own["changes"])]:
                pairs = [(pair["old"], pair["new"]) for pair in [*own.get("sound", []), *more]]
                texts[training] = shared.change(self.source, pairs, self.about["script"], name)
        return texts

    def text(self, histories, names):
        """The page: of each change what was changed, its plot, and what is said of it."""
        older = histories.get("code") != digest(self.source)
        text = self.about["text"] + (OLDER if older else "")
        texts = self.copies(names)
        labels = self.about["names"]
        for name in names:
            own = self.changes[name]
            before, after = texts[self.sound(name)].splitlines(), texts[name].splitlines()
            diff = list(difflib.unified_diff(before, after, lineterm="", n=1))[2:]
            text += SECTION.format(
                title=own["title"],
                before=f"{own['before'].strip()}\n\n" if "before" in own else "",
                after=own["after"].strip(),
                diff="\n".join("" if line.startswith("@@") else line for line in diff).strip("\n"),
                plot=f"{Path(self.about['path']).name}/{name}.png",
                sound=row(labels[0], histories[self.sound(name)]),
                changed=row(labels[1], histories[name]),
            )
        return text


def main():
    parser = shared.parser(__doc__)
    parser.add_argument("page", choices=PAGES)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the page's sections")
    parser.add_argument("--output-dir", type=Path, metavar="DIR", help="default: docs/")
    args = parser.parse_args()
    page = Page(args.page)
    names = shared.chosen(parser, args.only, page.changes)
    options.explain_errors()

    target = shared.HOME / page.about["path"]
    if args.output_dir:
        target = args.output_dir / target.name
    file = target / "figures.json"
    histories = {"code": digest(page.source)}
    if file.exists():
        histories = json.loads(file.read_text(encoding="utf-8"))
    texts = page.copies(names)
    missing = [name for name in texts if name not in histories]
    if missing and histories.get("code") != digest(page.source):
        what = f"of an older version of the lesson, and without {missing[0]}"
        raise options.Mistake(f"{file}: {what}. Choose another --output-dir, or remove it.")
    for name in names:
        for training in (page.sound(name), name):
            if training not in histories:
                print(f"{training} …", flush=True)
                looked_at = page.changes[name]["training"]
                histories[training] = train(page.about["script"], texts[training], looked_at, args)
                shared.write(file, histories)
    plots.set_up(show=False)
    for name in names:
        draw(target / f"{name}.png", page, name, histories)
    target.with_suffix(".md").write_text(page.text(histories, names), encoding="utf-8")
    print(f"Page: {target.with_suffix('.md')}")


def digest(source):
    """A SHA-256 of a lesson's code; its docstring, its prose and its comments are left out."""
    lines = [line.partition("  # ")[0] for line in source.split('"""', 2)[-1].splitlines()]
    code = [line for line in lines if line and not line.startswith("#")]
    return hashlib.sha256("\n".join(code).encode()).hexdigest()


def train(script, text, training, args):
    """Train a changed copy of the lesson, its other trainings for one epoch.

    Returns:
        What `history.csv` of the training holds: a dict of lists, a number per epoch. The last is
        None where the loss was not a number: that ends the lesson, and is a result, too.
    """
    text = shared.only(text, training)
    command = shared.passed_on(args, "data_dir", "sample", "epochs")
    with shared.trained(script, text, command, accepted=NO_NUMBER) as (folder, errors):
        rows = list(csv.DictReader((folder / training / "history.csv").read_text().splitlines()))
    ended = [None] if NO_NUMBER in errors else []
    return {key: [float(row[key]) for row in rows] + ended for key in CURVES}


def draw(path, page, name, histories):
    """The curves of a changed lesson in red, beside those that it is compared with in blue."""
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.6))
    pair = histories[page.sound(name)], histories[name]
    for axis, key, label in zip(axes, ("loss", "accuracy"), ("Loss", "Accuracy"), strict=True):
        for history, color, who in zip(
            pair, ("tab:blue", "tab:red"), page.about["names"], strict=True
        ):
            for part, style in (("", "--"), ("val_", "-")):
                values = np.array(history[part + key], dtype=float)  # None becomes NaN: no point
                epochs = np.arange(1, len(values) + 1)
                what = f"{who}, {'validation' if part else 'training'}"
                axis.plot(epochs, values, style, color=color, marker="o", markersize=3, label=what)
        axis.set(xlabel="Epoch", ylabel=label)
    axes[0].set_yscale("log")
    axes[0].set_ylim(top=min(10, axes[0].get_ylim()[1]))  # a loss may be of any size
    axes[0].legend(frameon=False, fontsize=8)
    figure.suptitle("{title}: {shows}".format(**page.changes[name]))
    plots.save(figure, path)


SECTION = """
## {title}

{before}```diff
{diff}
```

![Loss and accuracy over the epochs: {title}]({plot})

{after}

| last epoch | training loss | validation loss | validation accuracy |
|---|---|---|---|
{sound}
{changed}
"""


def row(name, history):
    """A row of Markdown: the figures of the last epoch."""
    *losses, accuracy = (history[key][-1] for key in ("loss", "val_loss", "val_accuracy"))
    shown = ["not a number" if value is None else f"{value:.3f}" for value in losses]
    shown.append("none" if accuracy is None else f"{accuracy:.1%}")
    return f"| {name} | {' | '.join(shown)} |"


if __name__ == "__main__":
    main()
