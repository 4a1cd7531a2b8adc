"""Change one idea in a copy of a lesson, train both, and compare them.

    python benchmarks/ideas.py mnist --seeds 0 1 2                   # each of its ideas
    python benchmarks/ideas.py cifar10 --seeds 0 1 --ideas without-label-smoothing
    python benchmarks/ideas.py cifar10 --sample --epochs 1           # does it work?
    python benchmarks/ideas.py cifar10 --output FILE                 # adds what FILE lacks

Each idea is a change of a few lines; most take away something that the lesson has, or all but one
thing (`only-…`). All else is the lesson's own code. The lesson itself is trained first, with the
same seeds. One training follows another, and each takes about as long as the lesson's. Of a
lesson's several models, those that are not compared get one epoch.

Compare the validation accuracies. The test accuracies stand beside them, and choose nothing.
"""

import json
import time
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import shared

from common import devices, options, plots


def no_dropout(*units):
    """Pairs: no dropout before the dense layers of so many units."""
    return [
        (f"0.3),\n        keras.layers.Dense({own}", f"0.0),\n        keras.layers.Dense({own}")
        for own in units
    ]


WITHOUT_LABEL_SMOOTHING = [(", label_smoothing=0.1", "")]
WITHOUT_IDENTITY_FILTERS = [("for layer in model.layers:", "for layer in []:")]
WITHOUT_AUGMENTATION = [('"regularized", model, training_data', '"regularized", model, plain_data')]
WITHOUT_DROPOUT = [("        keras.layers.Dropout(0.3),\n", "")]
WITHOUT_WEIGHT_DECAY = [("weight_decay=0.1", "weight_decay=0.0")]
WITHOUT_THESE_THREE = [*WITHOUT_AUGMENTATION, *WITHOUT_DROPOUT, *WITHOUT_WEIGHT_DECAY]
WITH_A_RANDOM_SPLIT = [("args.seed, args.near_duplicates)", "args.seed, None)")]
LAST_LAYER = (
    'keras.layers.Dense(len(class_names), dtype="float32"),  # logits'  # of the plain model
)
# Of MNIST's final model: without one of its four ideas, it is the first model with three.
PLAIN_DATA = ("    augmented_data,\n", "    training_data,\n")
NO_DROPOUT = no_dropout("128", "len")
THIRD = '        keras.layers.Conv2D(64, kernel_size=3, activation="relu"),\n'
TWO_CONVOLUTIONS = (f"{THIRD}        keras.layers.Flatten()", "        keras.layers.Flatten()")
CONSTANT_RATE = ("Adam(learning_rate)", "Adam(args.learning_rate)")
# Of Fashion-MNIST's larger network: its two hidden layers alone, trained as the plain network is.
NO_NORMALIZATION = [
    (f"Dense({units}),\n        keras.layers.BatchNormalization(),\n", f"Dense({units}),\n")
    for units in (768, 512)
]
ONLY_CAPACITY = [
    *NO_NORMALIZATION,
    *no_dropout("512", "len"),
    ("AdamW(learning_rate, weight_decay=0.1)", "Adam(args.learning_rate)"),
    *WITHOUT_LABEL_SMOOTHING,
]
# Of CIFAR-10's deep CNN: how it is trained, and additions from speed records (Jordan, 2024).
TOP = "top, model, augmented_data, x_validation, adamw, args.epochs)"
CONSTANT = "keras.optimizers.Adam(args.learning_rate)"
ONE_HOT = "keras.utils.to_categorical(y_{}, len(class_names))"
SHIFT = 'fill_mode="reflect", interpolation="nearest"),\n'
ERASING = "        keras.layers.RandomErasing((0.5, 0.5), scale=(0.02, 0.2), fill_value=127),\n"
DECAY = "AdamW(learning_rate, weight_decay=0.5"
AVERAGED = "use_ema=True, ema_momentum=0.978, ema_overwrite_frequency=len(augmented_data)"
# Filter i begins with a 1 at the center of its weights for feature map i, and 0 elsewhere.
IDENTITY = """    for layer in model.layers:
        if getattr(layer, "kernel_size", None) == (3, 3):
            kernel = layer.get_weights()[0]
            for i in range(min(kernel.shape[2:])):
                kernel[:, :, :, i] = 0
                kernel[1, 1, i, i] = 1
            layer.set_weights([kernel])
"""
# The first layer turns patches of 2x2 pixels into sums that do not repeat each other (PCA).
WHITENING = """def whitening():
    from sklearn.decomposition import PCA

    patches = np.lib.stride_tricks.sliding_window_view(x_train[:1000], (2, 2, 3), axis=(1, 2, 3))
    pca = PCA(12).fit(patches.reshape(-1, 12).astype("float32") / 127.5)
    kernel = pca.components_.T / np.sqrt(pca.explained_variance_ + 1e-3)
    kernel = kernel.reshape(2, 2, 3, 12)
    layer = keras.layers.Conv2D(24, kernel_size=2, use_bias=False, trainable=False)
    layer.build((None, 32, 32, 3))
    layer.set_weights([np.concatenate([kernel, -kernel], axis=-1)])
    return [layer, keras.layers.ReLU()]


"""
FIRST = "            *block(filters[0]),"
DEEP = "def build_deep(filters):\n"
# Its ladder, from the foot: each rung has what the one before has, and one thing more.
LADDER = {
    "the-plain-cnn": "plain CNN",
    "only-depth": "1: + depth, batch normalization",
    "only-depth-and-augmentation": "2: + augmentation",
    "the lesson": "3: + schedule, weight decay",
    "with-more-filters": "4: + more filters",
}


def top(network, data, optimizer):
    """A pair: the deep CNN's training with another network, data or optimizer."""
    return TOP, f"top, {network}, {data}, x_validation, {optimizer}, args.epochs)"


class Lesson(NamedTuple):
    """A lesson, and its ideas.

    Attributes:
        script: Its file.
        options: Of its command line.
        ideas: For each idea, what it changes: pairs of old and new text.
        model: Of those that the lesson trains, the one that is compared.
    """

    script: str
    options: list
    ideas: dict
    model: str


LESSONS = {
    "mnist": Lesson(
        "train_mnist.py",
        [],
        {
            "the-first-model": [PLAIN_DATA, *NO_DROPOUT, TWO_CONVOLUTIONS, CONSTANT_RATE],
            "only-augmentation": [*NO_DROPOUT, TWO_CONVOLUTIONS, CONSTANT_RATE],
            "only-dropout": [PLAIN_DATA, TWO_CONVOLUTIONS, CONSTANT_RATE],
            "only-third-convolution": [PLAIN_DATA, *NO_DROPOUT, CONSTANT_RATE],
            "only-schedule": [PLAIN_DATA, *NO_DROPOUT, TWO_CONVOLUTIONS],
        },
        "final",
    ),
    "fashion": Lesson(
        "train_fashion.py",
        [],
        {
            "only-capacity": ONLY_CAPACITY,
            "without-batch-normalization": NO_NORMALIZATION,
            "without-label-smoothing": WITHOUT_LABEL_SMOOTHING,
        },
        "larger",
    ),
    "cifar10": Lesson(
        "train_cifar10.py",
        ["--model", "deep"],
        {
            "the-plain-cnn": [top("build_cnn()", "pipeline(x_train)", CONSTANT)],
            "only-depth": [top("model", "pipeline(x_train)", CONSTANT)],
            "only-depth-and-augmentation": [top("model", "augmented_data", CONSTANT)],
            "without-weight-decay": [("weight_decay=0.5", "weight_decay=0.0")],
            # What speed records have, and the lesson has not.
            "with-more-filters": [('"deep": [32, 64, 128]', '"deep": [64, 256, 256]')],
            "with-label-smoothing": [
                ("Sparse", ""),
                ("from_logits=True)", "from_logits=True, label_smoothing=0.1)"),
                ("(x, y_train)", f"(x, {ONE_HOT.format('train')})"),
                ("(x_validation, y_validation)", f"(x_validation, {ONE_HOT.format('validation')})"),
            ],
            "with-random-erasing": [(SHIFT, SHIFT + ERASING)],
            "with-identity-filters": [(f"    train({TOP}", f"{IDENTITY}    train({TOP}")],
            "with-whitening": [
                (DEEP, WHITENING + DEEP),
                (FIRST, f"            *whitening(),\n{FIRST}"),
            ],
            "with-averaged-weights": [(DECAY, f"{DECAY}, {AVERAGED}")],
        },
        "deep-cnn",
    ),
    "simpsons": Lesson(
        "train_simpsons.py",
        [],
        {
            "without-augmentation": WITHOUT_AUGMENTATION,
            # Without a layer of that name, the lesson draws no activation maps.
            "without-global-pooling": [('GlobalMaxPooling2D(name="pooling")', "Flatten()")],
            "without-dropout": WITHOUT_DROPOUT,
            "without-weight-decay": WITHOUT_WEIGHT_DECAY,
            "without-these-three": WITHOUT_THESE_THREE,
            "without-class-weights": [("            class_weight=class_weight,\n", "")],
            "without-identity-filters": WITHOUT_IDENTITY_FILTERS,
            "without-zero-logits": [(', kernel_initializer="zeros"', "")],
            "with-a-random-split": WITH_A_RANDOM_SPLIT,
        },
        "regularized",
    ),
    "simpsons-plain": Lesson(
        "train_simpsons.py",
        [],
        {
            "with-augmentation": [('"plain", plain, plain_data', '"plain", plain, training_data')],
            "with-global-pooling": [("layers.Flatten(),", "layers.GlobalMaxPooling2D(),")],
            "with-dropout": [(LAST_LAYER, f"keras.layers.Dropout(0.3),\n        {LAST_LAYER}")],
            "with-weight-decay": [("optimizers.Adam()", "optimizers.AdamW(weight_decay=0.1)")],
            "with-a-random-split": WITH_A_RANDOM_SPLIT,
        },
        "plain",
    ),
}


def main():
    parser = shared.parser(__doc__, "ideas")
    parser.add_argument("lesson", choices=LESSONS)
    parser.add_argument("--ideas", nargs="+", metavar="IDEA", help="default: all of the lesson's")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], metavar="N", help="default: 0")
    args = parser.parse_args()
    lesson = LESSONS[args.lesson]
    ideas = shared.chosen(parser, args.ideas, lesson.ideas)
    command = [*lesson.options, *shared.passed_on(args, "sample", "epochs")]
    record = {"lesson": args.lesson, "options": command, "processor": devices.cpu_name()}
    record |= {"date": time.strftime("%Y-%m-%d"), "runs": {}}
    if args.output.exists():  # go on with it
        stored = json.loads(args.output.read_text(encoding="utf-8"))
        if [stored[key] for key in ("lesson", "options")] != [args.lesson, command]:
            parser.error(f"{args.output} has other runs: {stored['lesson']}, {stored['options']}")
        record = stored
    options.explain_errors()

    command = [*command, *shared.passed_on(args, "data_dir", "images")]
    print("| | training | validation | test | lesson - copy |\n|---|---|---|---|---|", flush=True)
    for idea in ["the lesson", *ideas]:
        text = copy(lesson, idea)
        runs = record["runs"].setdefault(idea, {})
        for seed in map(str, args.seeds):
            if seed not in runs:
                runs[seed] = train(lesson, text, [*command, "--seed", seed])
                shared.write(args.output, record)
        print(row(idea, record["runs"]), flush=True)
    print(f"Figures: {args.output}")
    if args.lesson == "cifar10":
        plots.set_up(show=False, note="drawings" if args.sample else "")
        plots.save(ladder(record["runs"]), args.output.with_suffix(".png"))


def copy(lesson, idea="the lesson"):
    """The text of a lesson with an idea changed, and one epoch for models not compared."""
    text = (shared.HOME / lesson.script).read_text(encoding="utf-8")
    text = shared.change(text, lesson.ideas.get(idea, []), lesson.script, idea)
    return shared.only(text, lesson.model)


def train(lesson, text, command):
    """Train a changed copy; return the figures that are compared."""
    with shared.trained(lesson.script, text, command) as (folder, _):
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return figures(lesson, results)


def ladder(runs):
    """A Matplotlib figure of CIFAR-10's ladder: a bar a rung, its mean, and a point a seed."""
    rungs = {label: runs[idea] for idea, label in LADDER.items() if idea in runs}
    found = [
        [100 * own["validation"]["accuracy"] for own in seeds.values()] for seeds in rungs.values()
    ]
    means = [np.mean(own) for own in found]
    figure, axis = plt.subplots(figsize=(8, 3.2))
    axis.barh(list(rungs), means, color="tab:blue", alpha=0.6)
    for place, own in enumerate(found):
        axis.plot(own, [place] * len(own), "o", color="black", markersize=4)
        axis.text(max(own) + 1, place, f"{means[place]:.1f}%", va="center")
    axis.invert_yaxis()  # the foot of the ladder above
    axis.set(xlabel="Validation accuracy (%); points: single seeds", xlim=(0, 100))
    if len(means) > 1:
        best = np.diff(means).argmax()
        what = list(rungs)[best + 1].split("+ ")[1]
        figure.suptitle(f"The largest gain: {what}, {np.diff(means)[best]:+.1f} points")
    return figure


def figures(lesson, results):
    """Those of the model that is compared."""
    own = results["models"][lesson.model]
    keys = ("parameters", "epochs", "best_epoch", "fit_seconds", "train", "validation", "test")
    return {key: own[key] for key in keys}


def row(idea, runs):
    """A row of a Markdown table: accuracies in percent, means over the seeds.

    Of the Simpsons, whose classes are not equally frequent, it is the macro F1 instead. The gain is
    that of the lesson over the changed copy, in points of the validation set's, with the lowest and
    the highest of several seeds in brackets. The seeds are those that both were trained with.
    """
    seeds = sorted(set(runs["the lesson"]) & set(runs[idea]))

    def percent(name, part):
        found = [runs[name][seed] for seed in seeds]
        key = "macro_f1" if "macro_f1" in found[0]["validation"] else "accuracy"
        return np.array([100 * own[part][key] for own in found])

    means = [f"{percent(idea, part).mean():.2f}" for part in ("train", "validation", "test")]
    gains = percent("the lesson", "validation") - percent(idea, "validation")
    gain = f"{gains.mean():+.2f} ({gains.min():+.2f} to {gains.max():+.2f})"
    if len(gains) == 1:
        gain = f"{gains[0]:+.2f} (one seed)"
    return f"| {' | '.join([idea, *means, '' if idea == 'the lesson' else gain])} |"


if __name__ == "__main__":
    main()
