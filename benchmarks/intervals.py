"""Does the 95% interval contain the accuracy? From twenty images of each class, with twenty seeds.

    python benchmarks/intervals.py --images signs                 # a minute or two
    python benchmarks/intervals.py --images signs --count 6

Each seed draws images of the folder, near-duplicates together. As in the lesson, the frozen
features of a pretrained model are cross-validated on these; that gives an accuracy and its
interval. Then the last layer is trained on all of them, and tested on all others.
"""

import few_images
import numpy as np
import shared
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict

from common import devices, options, report

SIDE = 128


def main():
    parser = shared.parser(__doc__, "intervals")
    parser.option("--count", "images of each class", 20, type=int, metavar="N")
    parser.option("--seeds", "how many", 20, type=int, metavar="N")
    args = parser.parse_args()
    options.explain_errors()
    with devices.quiet():
        images, groups, _ = shared.split(args, seed=0)
    x = features(images)
    runs = []
    for seed in range(args.seeds):
        training, test = few_images.choose(images, groups, args.count, seed, None)
        own = images.take(training)
        indices = np.sort(training)
        together = groups[indices]
        of_class = [len(np.unique(together[own.labels == i])) for i in range(len(own.class_names))]
        folds = StratifiedGroupKFold(min(20, *of_class), shuffle=True, random_state=seed)
        layer = LogisticRegression(class_weight="balanced", max_iter=1000)
        guesses = cross_val_predict(layer, x[indices], own.labels, cv=folds, groups=together)
        estimate = accuracy_score(own.labels, guesses)
        low, high = report.interval(estimate, len(own.labels))
        true = layer.fit(x[indices], own.labels).score(x[test], images.labels[test])
        run = {"estimate": estimate, "low": low, "high": high, "true": true}
        runs.append({name: round(float(value), 5) for name, value in run.items()})
        inside = "" if low <= true <= high else "   outside"
        text = report.accuracy(estimate, len(own.labels))
        print(f"seed {seed}: {text}; on {len(test)} others {true:.1%}{inside}", flush=True)
    covered = int(sum(run["low"] <= run["true"] <= run["high"] for run in runs))
    print(f"{covered} of {len(runs)} intervals contain the accuracy on other images")
    record = {"count": args.count, "processor": devices.cpu_name(), "covered": covered}
    shared.write(args.output, record | {"runs": runs})
    print(f"Figures: {args.output}")


def features(images):
    """What the frozen MobileNetV2 computes of each image: floats, shape (count, 1280)."""
    squares = np.stack([np.asarray(Image.open(file)) for file in images.files])
    with devices.quiet():  # TensorFlow, which starts
        import keras

        shape = (SIDE, SIDE, 3)
        layers = [
            keras.Input(shape),
            keras.layers.Rescaling(1 / 127.5, offset=-1),
            keras.applications.MobileNetV2(
                input_shape=shape, include_top=False, weights="imagenet", pooling="avg"
            ),
        ]
        return keras.Sequential(layers).predict(squares, verbose=0)


if __name__ == "__main__":
    main()
