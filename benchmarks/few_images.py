"""Train the lesson on folders with few images of each class, and test it on many others.

    python benchmarks/few_images.py --images signs --counts 6 20 --seeds 0 1 2
    python benchmarks/few_images.py --images five --counts 20 60 --model cnn

Of each class, the last 60 images are the test set (`--test all`: all that are not trained on, nor
near-duplicates of those). The seed draws the images to train on from the others; near-duplicates
are drawn together. The lesson gets these as a folder of its own, and the test set as
`--test-images`, which chooses nothing. Printed are the lesson's own figures, which are from few
images, and those of the test set, also of the saved model. What is in `--output` is not trained
again.
"""

import json
import tempfile
import time
from pathlib import Path

import numpy as np
import shared

from common import devices, options, report

PARTS = "validation", "test", "cross-validated", "published test"


def main():
    parser = shared.parser(__doc__, "few-images")
    parser.option("--counts", "images of each class", [20], nargs="+", type=int, metavar="N")
    parser.option("--seeds", "of the choice, and the lesson's", [0], nargs="+", type=int)
    parser.add_argument("--model", choices=["cnn", "pretrained"], help="default: the lesson's")
    parser.option("--test", "test images of each class, or all others", 60, type=_count)
    args = parser.parse_args()
    options.explain_errors()

    record = {"processor": devices.cpu_name(), "date": time.strftime("%Y-%m-%d"), "runs": {}}
    if args.output.exists():
        record = json.loads(args.output.read_text(encoding="utf-8"))
    with devices.quiet():
        images, groups, _ = shared.split(args, seed=0)
    data = args.images.name if args.images else "simpsons"
    for count in args.counts:
        for seed in args.seeds:
            key = f"{data}, {count} of each, {args.model or 'default'}, seed {seed}"
            if key not in record["runs"]:
                training, test = choose(images, groups, count, seed, args.test)
                record["runs"][key] = train(args, images, training, test, seed)
                shared.write(args.output, record)
            print(key, *lines(record["runs"][key]), sep="\n  ", flush=True)
    print(*table(record["runs"]), f"Figures: {args.output}", sep="\n")


def _count(text):
    return None if text == "all" else int(text)


def choose(images, groups, count, seed, test):
    """The indices of the images to train on and of those to test on.

    Args:
        images, groups: What `shared.split` returned.
        count: Images of each class to train on.
        seed: Of the choice.
        test: The number of each class's last images that are for testing; None: all others.
    """
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    last = np.zeros(len(groups), bool)
    for label in range(len(images.class_names)):
        if test:
            last[np.flatnonzero(images.labels == label)[-test:]] = True
    training = []
    for label in range(len(images.class_names)):
        own = []
        for i in shuffled:
            if images.labels[i] == label and not last[i] and i not in own and len(own) < count:
                together = np.flatnonzero((groups == groups[i]) & ~last)
                own += together.tolist()[: count - len(own)]
        training += own
    if not test:
        last = ~np.isin(groups, groups[training])
    return np.array(training), np.flatnonzero(last)


def train(args, images, training, test, seed):
    """Train the lesson; return its figures, and those of the test set."""
    with tempfile.TemporaryDirectory() as place:
        place = Path(place).resolve()
        for name, indices in (("own", training), ("others", test)):
            chosen = images.take(indices)
            shared.link(place / name, chosen, chosen.paths)
        command = ["train_simpsons.py", "--images", place / "own", "--test-images"]
        command += [place / "others", "--seed", seed, "--output-dir", place / "outputs"]
        started = time.perf_counter()
        more = shared.passed_on(args, "epochs", "model")
        shared.run([*command, *more])
        seconds = time.perf_counter() - started
        (path,) = place.glob("outputs/*/*/results.json")
        results = json.loads(path.read_text(encoding="utf-8"))
        saved = test_saved(path.with_name("model.keras"), images.take(test))
    figures = {"seconds": round(seconds, 1), "test": args.test or "all", "data": results["data"]}
    del figures["data"]["path"]
    return figures | {"models": results["models"], "saved": saved}


def test_saved(path, images):
    """Accuracy and macro F1 of a saved model, on files that are prepared as `predict.py` does."""
    import keras
    from sklearn import metrics

    import predict

    with devices.quiet():  # TensorFlow, which starts
        model = keras.saving.load_model(path)
    shape = model.input_shape[1:]
    x = np.stack([predict.prepare(file, shape, "folder")[0] for file in images.paths])
    predicted = model.predict(x, verbose=0).argmax(axis=1)
    f1 = metrics.f1_score(images.labels, predicted, average="macro", zero_division=0)
    accuracy = metrics.accuracy_score(images.labels, predicted)
    return {"accuracy": round(accuracy, 6), "macro_f1": round(f1, 6)}


def lines(run):
    """A line per model."""
    found = []
    for name, own in run["models"].items():
        text = ", ".join(
            f"{part} {report.accuracy(own[part]['accuracy'], run['data'][part])}"
            for part in PARTS
            if part in own
        )
        f1 = own["published test"]["macro_f1"]
        found.append(f"{name}: {text}, macro F1 {f1:.3f}; fit {own['fit_seconds']} s")
    own = run["saved"]
    text = report.accuracy(own["accuracy"], run["data"]["published test"])
    found.append(f"the saved model: published test {text}, macro F1 {own['macro_f1']:.3f}")
    return [*found, f"in all {run['seconds']} s"]


def table(runs):
    """The lines of a Markdown table: means over the seeds, and in brackets the range.

    Of classes that are equally frequent in the test set it is the accuracy, else the macro F1.
    """
    rows = {}  # by data, count and measure: the figures of each column
    for key, run in runs.items():
        data, count, _, _ = key.split(", ")
        metric = "macro_f1" if run["test"] == "all" else "accuracy"
        columns = rows.setdefault((data, int(count.split()[0]), metric), {})
        for name, own in run["models"].items():
            columns.setdefault(name, []).append(own["published test"][metric])
        if "fine-tuned" in run["models"]:
            columns.setdefault("saved", []).append(run["saved"][metric])
    names = "plain", "regularized", "frozen", "fine-tuned", "saved"
    lines = [f"| images | {' | '.join(names)} |", f"|{(1 + len(names)) * '---|'}"]
    for (data, count, metric), columns in sorted(rows.items()):
        cells = [f"{data}, {count} of each class"]
        for name in names:
            found = columns.get(name)
            cells.append(spread(found, percent=metric == "accuracy") if found else "")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread(shares, percent):
    """A mean and its range, in percent or as a share."""
    mean, low, high = np.mean(shares), min(shares), max(shares)
    if percent:
        return f"{mean:.1%} ({100 * low:.1f} to {100 * high:.1f})"
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()
