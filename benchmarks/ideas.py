"""Change one idea in a copy of a lesson, train both, and compare them.

    python benchmarks/ideas.py cifar10-cnn                           # each of its ideas
    python benchmarks/ideas.py cifar10-mlp --seeds 0 1 2 --ideas without-whitening
    python benchmarks/ideas.py cifar10-mlp --sample --epochs 1       # does it work?
    python benchmarks/ideas.py cifar10-mlp --output FILE             # adds what FILE lacks

Each idea is a change of a few lines; most take away something that the lesson has. All else is the
lesson's own code. The lesson itself is trained first, with the same seeds. One training follows
another, and each takes about as long as the lesson's.

Compare the validation accuracies. The test accuracies stand beside them, and choose nothing.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from common import devices, options

WITHOUT_LABEL_SMOOTHING = [(", label_smoothing=0.1", "")]
WITHOUT_AVERAGED_WEIGHTS = [("use_ema=True", "use_ema=False")]
WITHOUT_ERASING = [("RandomErasing((0.5, 0.5),", "RandomErasing((0.0, 0.0),")]
WITHOUT_IDENTITY_FILTERS = [("for layer in model.layers:", "for layer in []:")]
WITHOUT_AUGMENTATION = [("train(model, training_data)", "train(model, plain_data)")]
WITHOUT_DROPOUT = [("        keras.layers.Dropout(0.3),\n", "")]
WITHOUT_WEIGHT_DECAY = [("weight_decay=0.1", "weight_decay=0.0")]
WITH_A_RANDOM_SPLIT = [
    ("n_splits = folders", "groups = np.arange(len(groups))\nn_splits = folders")
]
# Fashion-MNIST's plain network and remedies get one epoch, in every copy: they are not compared.
SHORT = (("epochs=args.epochs,", "epochs=args.epochs if name == args.model else 1,"),)


class Lesson(NamedTuple):
    """Texts are changed in pairs of old and new.

    Attributes:
        script: Its file.
        options: Of its command line.
        ideas: For each idea, what it changes.
        always: What is changed in every copy.
        model: Where `results.json` has its figures; none: at the top.
    """

    script: str
    options: list
    ideas: dict
    always: tuple = ()
    model: str = ""


LESSONS = {
    "fashion-mlp": Lesson(
        "train_fashion.py",
        [],
        {
            "without-batch-normalization": [
                ("Dense(units, use_bias=False),", "Dense(units),"),
                (
                    "BatchNormalization(momentum=0.9),  # forgets",
                    'Activation("linear"),  # forgets',
                ),
            ],
            "without-label-smoothing": WITHOUT_LABEL_SMOOTHING,
        },
        SHORT,
    ),
    "fashion-cnn": Lesson(
        "train_fashion.py",
        ["--model", "cnn"],
        {
            "without-first-convolution": [("[first_layer, *block(48)", "[*block(48)")],
            "without-label-smoothing": WITHOUT_LABEL_SMOOTHING,
        },
        SHORT,
    ),
    "cifar10-mlp": Lesson(
        "train_cifar10.py",
        [],
        {
            "without-whitening": [("Flatten(), whitening,", "Flatten(),")],
            "without-label-smoothing": WITHOUT_LABEL_SMOOTHING,
            "without-averaged-weights": WITHOUT_AVERAGED_WEIGHTS,
            "with-random-erasing": [
                ('if args.model == "cnn":\n    changes', "if True:\n    changes")
            ],
        },
    ),
    "cifar10-cnn": Lesson(
        "train_cifar10.py",
        ["--model", "cnn"],
        {
            "without-whitening": [
                ("hidden = [whitening,", "hidden = [keras.layers.Conv2D(24, kernel_size=2),")
            ],
            "without-identity-filters": WITHOUT_IDENTITY_FILTERS,
            "without-label-smoothing": WITHOUT_LABEL_SMOOTHING,
            "without-random-erasing": WITHOUT_ERASING,
            "without-averaged-weights": WITHOUT_AVERAGED_WEIGHTS,
        },
    ),
    "simpsons": Lesson(
        "train_simpsons.py",
        ["--skip-baseline"],
        {
            "without-augmentation": WITHOUT_AUGMENTATION,
            "without-global-pooling": [
                ("GlobalMaxPooling2D(name=", "Flatten(name="),
                (
                    "maps = activation_maps(x_chosen, predicted[chosen])",
                    "maps = np.zeros((len(chosen), 1, 1))",
                ),
            ],
            "without-dropout": WITHOUT_DROPOUT,
            "without-weight-decay": WITHOUT_WEIGHT_DECAY,
            "without-these-three": [
                *WITHOUT_AUGMENTATION,
                *WITHOUT_DROPOUT,
                *WITHOUT_WEIGHT_DECAY,
            ],
            "without-class-weights": [("class_weight=class_weight", "class_weight=None")],
            "without-identity-filters": WITHOUT_IDENTITY_FILTERS,
            "without-zero-logits": [(', kernel_initializer="zeros"', "")],
            "with-a-random-split": WITH_A_RANDOM_SPLIT,
        },
    ),
    "simpsons-plain": Lesson(
        "train_simpsons.py",
        [],
        {
            "with-augmentation": [("train(plain, plain_data,", "train(plain, training_data,")],
            "with-global-pooling": [("layers.Flatten(),", "layers.GlobalMaxPooling2D(),")],
            "with-dropout": [
                (
                    'layers.Dense(128, activation="relu"),',
                    'layers.Dense(128, activation="relu"),\n        keras.layers.Dropout(0.3),',
                )
            ],
            "with-weight-decay": [("optimizers.Adam()", "optimizers.AdamW(weight_decay=0.1)")],
            "with-a-random-split": WITH_A_RANDOM_SPLIT,
        },
        (("epochs=args.epochs,", "epochs=args.epochs if suffix else 1,"),),
        "baseline",
    ),
}


def main():
    parser = options.Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("lesson", choices=LESSONS)
    parser.add_argument("--ideas", nargs="+", metavar="IDEA", help="default: all of the lesson's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N")
    parser.add_argument("--epochs", type=int, help="default: the lesson's")
    parser.add_argument("--sample", action="store_true", help="on the small sample")
    parser.add_argument("--images", type=options.existing_folder, help="for the Simpsons lesson")
    parser.add_argument("--data-dir", type=options.existing_folder, default=HOME / "data")
    parser.add_argument("--output", type=Path, help="JSON file (default: in outputs/ideas)")
    options.answer_mistakes(parser.prog)
    args = parser.parse_args()
    script, command, ideas, always, model = LESSONS[args.lesson]
    if unknown := sorted(set(args.ideas or []) - set(ideas)):
        parser.error(f"unknown idea {unknown[0]}; known are {', '.join(ideas)}")
    command = [*command, *(["--sample"] if args.sample else [])]
    command += ["--epochs", str(args.epochs)] if args.epochs else []
    places = ["--data-dir", str(args.data_dir.resolve())]
    places += ["--images", str(args.images.resolve())] if args.images else []

    output = args.output or HOME / "outputs" / "ideas" / time.strftime("%Y%m%d-%H%M%S.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {"lesson": args.lesson, "options": command, "processor": devices.cpu_name()}
    record |= {"date": time.strftime("%Y-%m-%d"), "runs": {}}
    if output.exists():  # go on with it
        stored = json.loads(output.read_text(encoding="utf-8"))
        if [stored[key] for key in ("lesson", "options")] != [args.lesson, command]:
            parser.error(f"{output} has other runs: {stored['lesson']}, {stored['options']}")
        record = stored
    source = (HOME / script).read_text(encoding="utf-8")
    for idea in ["the lesson", *(args.ideas or ideas)]:
        changed = change(source, [*always, *ideas.get(idea, [])])
        runs = record["runs"].setdefault(idea, {})
        for seed in args.seeds:
            if str(seed) in runs:
                continue
            results = json.loads(train(script, changed, [*command, *places, "--seed", str(seed)]))
            runs[str(seed)] = figures(results[model] if model else results)
            output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        if idea == "the lesson":
            print("| | training | validation | test | lesson - copy |\n|---|---|---|---|---|")
        print(row(idea, record["runs"]), flush=True)
    print(f"Figures: {output}")


def change(text, pairs):
    """Replace each old text by the new one; the old one occurs exactly once."""
    for old, new in pairs:
        if text.count(old) != 1:
            raise options.Mistake(
                f"this is in the lesson {text.count(old)} times, not once: {old!r}"
            )
        text = text.replace(old, new)
    return text


def train(script, text, command, wanted="results.json", accepted=None):
    """Run a changed lesson in a folder of its own.

    Returns:
        The text of the file `wanted` that the run leaves. The run has to end well, or to say
        `accepted`.
    """
    with tempfile.TemporaryDirectory() as place:
        place = Path(place)
        (place / script).write_text(text, encoding="utf-8")
        for folder in ("common", "data/sample"):
            shutil.copytree(HOME / folder, place / folder)
        command = [sys.executable, script, *command, "--output-dir", str(place / "outputs")]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True)
        found = list(place.glob(f"outputs/*/*/{wanted}"))
        well = not done.returncode or (accepted and accepted in done.stderr)
        if not (well and found):
            raise options.Mistake(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
        return found[0].read_text(encoding="utf-8")


def figures(results):
    """Those of a model that are compared."""
    parts = ("train", "validation", "test")
    keys = ("parameters", "epochs", "best_epoch", "fit_seconds", *parts)
    return {key: results[key] for key in keys}


def row(idea, runs):
    """A row of a Markdown table: accuracies in percent, means over the seeds.

    Of the Simpsons, whose classes are not equally frequent, it is the macro F1 instead. The gain is
    that of the lesson over the changed copy, in points of the validation set's, with the lowest and
    the highest of several seeds in brackets. The seeds are those that both were trained with.
    """
    seeds = sorted(set(runs["the lesson"]) & set(runs[idea]))
    runs = {name: {seed: runs[name][seed] for seed in seeds} for name in ("the lesson", idea)}
    accuracy = {part: percent(runs[idea], part) for part in ("train", "validation", "test")}
    means = [f"{np.mean(values):.2f}" for values in accuracy.values()]
    gains = np.subtract(percent(runs["the lesson"], "validation"), accuracy["validation"])
    gain = f"{gains.mean():+.2f} ({gains.min():+.2f} to {gains.max():+.2f})"
    if idea == "the lesson":
        gain = ""
    elif len(gains) == 1:
        gain = f"{gains[0]:+.2f} (one seed)"
    return f"| {' | '.join([idea, *means, gain])} |"


def percent(runs, part):
    """Accuracy (of the Simpsons: macro F1) of each seed on a part of the data, in percent."""
    return [
        100 * figures[part]["macro_f1" if "macro_f1" in figures["validation"] else "accuracy"]
        for figures in runs.values()
    ]


if __name__ == "__main__":
    main()
