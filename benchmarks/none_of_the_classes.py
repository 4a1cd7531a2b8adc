"""Leave three classes out of the training, and ask the model about them, too.

    python benchmarks/none_of_the_classes.py --images signs --seeds 0 1 2

The lesson is trained on twenty images of each other class. Then its model is asked about the last
60 images of each class, those of the three classes as well. Printed is, for each limit of the
highest probability, which share of both is below it: of the unknown classes, that is what
`predict.py --min-confidence` catches; of the known ones, what it costs.
"""

import json
import tempfile
import time
from pathlib import Path

import few_images
import numpy as np
import shared

from common import devices, options

LEFT_OUT, COUNT, TEST = 3, 20, 60
LIMITS = 0.5, 0.9, 0.99


def main():
    parser = shared.parser(__doc__, "none-of-the-classes")
    parser.option("--seeds", "of the choice, and the lesson's", [0], nargs="+", type=int)
    args = parser.parse_args()
    options.explain_errors()
    with devices.quiet():
        images, groups, _ = shared.split(args, seed=0)
    record = {"processor": devices.cpu_name(), "date": time.strftime("%Y-%m-%d"), "runs": {}}
    for seed in args.seeds:
        training, test = few_images.choose(images, groups, COUNT, seed, TEST)
        names = np.random.default_rng(seed).permutation(images.class_names)[:LEFT_OUT]
        unknown = np.isin(images.labels, [images.class_names.index(name) for name in names])
        known_confidence, unknown_confidence = ask(
            args, images, training[~unknown[training]], test, unknown[test], seed
        )
        record["runs"][str(seed)] = {"left_out": sorted(names.tolist())} | {
            str(limit): {
                "known_below": round(float((known_confidence < limit).mean()), 4),
                "unknown_below": round(float((unknown_confidence < limit).mean()), 4),
            }
            for limit in LIMITS
        }
        shared.write(args.output, record)
        print(f"seed {seed}: without {', '.join(sorted(names))}", flush=True)
    print(*table(record["runs"]), f"Figures: {args.output}", sep="\n")


def table(runs):
    """The lines of a Markdown table: means over the seeds, and in brackets the range."""
    lines = ["| limit | unknown classes, below it | known classes, below it |", "|---|---|---|"]
    for limit in map(str, LIMITS):
        cells = [limit]
        for key in ("unknown_below", "known_below"):
            shares = [100 * run[limit][key] for run in runs.values()]
            cells.append(f"{np.mean(shares):.0f}% ({min(shares):.0f} to {max(shares):.0f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def ask(args, images, training, test, unknown, seed):
    """Train the lesson; return the confidences of known and unknown test images."""
    import keras

    with tempfile.TemporaryDirectory() as place:
        place = Path(place).resolve()
        chosen = images.take(training)
        shared.link(place / "own", chosen, chosen.paths)
        command = ["train_simpsons.py", "--images", place / "own", "--seed", seed]
        command += ["--output-dir", place / "outputs", *shared.passed_on(args, "epochs")]
        shared.run(command)
        (path,) = place.glob("outputs/*/*/model.keras")
        with devices.quiet():  # TensorFlow, which starts
            model = keras.saving.load_model(path)
        names = json.loads((path.parent / "results.json").read_text(encoding="utf-8"))
    assert len(names["data"]["classes"]) == len(images.class_names) - LEFT_OUT
    x = np.stack([keras.utils.load_img(file) for file in images.files[test]])
    confidence = model.predict(x, verbose=0).max(axis=1)
    return confidence[~unknown], confidence[unknown]


if __name__ == "__main__":
    main()
