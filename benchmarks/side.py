"""One side of the comparison, in a process of its own: a tutorial's training, or a lesson's.

Called by `beside_the_tutorials.py`; writes what it measured to a JSON file. The tutorials are
written anew from their published facts: network, epochs, batch, pipeline.
"""

import argparse
import contextlib
import json
import resource
import runpy
import sys
import time
from pathlib import Path
from types import SimpleNamespace

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from common import devices


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=["import", "tutorial", "lesson"])
    parser.add_argument("name")
    parser.add_argument("report", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--goal", type=float, help="end the lesson's training above this accuracy")
    parser.add_argument("--seconds", type=float, default=0, help="… and not before this time")
    args, rest = parser.parse_known_args()
    if args.side == "import":
        import tensorflow  # noqa: F401, I001
        import keras  # noqa: F401

        measured = {}
    elif args.side == "tutorial":
        options = argparse.ArgumentParser()
        options.add_argument("--data-dir", type=Path)
        options.add_argument("--images", type=Path)
        options.add_argument("--output-dir", type=Path)
        options.add_argument("--sample", action="store_true")
        measured = tutorial(args, options.parse_known_args(rest)[0])
    else:
        measured = lesson(args, rest)
    measured.setdefault("peak_megabytes", peak_megabytes())
    args.report.write_text(json.dumps(measured, indent=2))


def peak_megabytes():
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; on macOS bytes
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


def watching(fit, find_test, goal, measured, least_seconds=0):
    """`fit`, with the accuracy on test images after each epoch, outside of the measured time.

    It ends above the accuracy `goal`, but not before `least_seconds`.
    """
    import keras

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.test = find_test()
            measured["fits"] += 1
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            measured["fit_seconds"] += time.perf_counter() - self.began
            accuracy = self.model.evaluate(**self.test, verbose=0, return_dict=True)["accuracy"]
            seconds = round(measured["fit_seconds"], 2)
            measured["epochs"].append([seconds, accuracy, measured["fits"]])
            passed = goal is not None and max(epoch[1] for epoch in measured["epochs"]) > goal
            if passed and seconds > least_seconds:
                self.model.stop_training = True
            self.began = time.perf_counter()

        def on_train_end(self, logs=None):
            measured["fit_seconds"] += time.perf_counter() - self.began

    def watched(model, *args, callbacks=(), **kwargs):
        return fit(model, *args, callbacks=[*callbacks, Watch()], **kwargs)

    return watched


def lesson(args, arguments):
    """Run a lesson as its users do, but for the watching."""
    measured = {"fit_seconds": 0.0, "epochs": [], "fits": 0, "decoded": []}
    start, original = devices.start, []

    def start_and_watch(*positional, **named):
        device = start(*positional, **named)
        import keras

        names = {}

        def find_test():
            if "evaluation_data" in names:
                return {"x": names["evaluation_data"]["test"]}
            y_test = names["y_test"]
            if names["validation_data"].element_spec[1].shape.rank == 2:  # one-hot
                y_test = keras.utils.to_categorical(y_test, len(names["class_names"]))
            return {"x": names["x_test"], "y": y_test, "batch_size": 500}

        original.append(keras.Model.fit)
        watched = watching(keras.Model.fit, find_test, args.goal, measured, args.seconds)

        def fit(model, *positional, **named):
            names.update(sys._getframe(1).f_globals)  # the lesson's own
            return watched(model, *positional, **named)

        keras.Model.fit = fit

        from common import folders

        fill = folders.fill_cache

        def fill_cache(*positional):
            """What the tutorial does in its first epoch, the lesson does before: it counts."""
            began = time.perf_counter()
            labels = fill(*positional)
            if len(measured["decoded"]) < 2:  # of training and validation, not of the test
                measured["fit_seconds"] += time.perf_counter() - began
            measured["decoded"].append(time.perf_counter() - began)
            return labels

        folders.fill_cache = fill_cache
        return device

    devices.start = start_and_watch
    script = HOME / f"train_{args.name}.py"
    sys.argv = [script.name, *arguments, *(["--epochs", str(args.epochs)] if args.epochs else [])]
    names = runpy.run_path(str(script), run_name="__main__")
    names["keras"].Model.fit = original[0]
    results = json.loads((names["run"].folder / "results.json").read_text(encoding="utf-8"))
    measured["test_accuracy"] = results["test"]["accuracy"]
    measured["peak_megabytes"] = peak_megabytes()  # of the whole lesson
    measured["precision"] = results["device"]["precision"]
    measured |= waiting(names["model"], names["training_data"])
    return measured


def waiting(model, training, rounds=7):
    """How much of a step is waiting for input: real batches against one that is repeated.

    The two in turn, about ten seconds each, at most 200 steps; the median of the rounds counts, and
    all of them are kept.
    """
    if len(training) < 4:
        return {"step_seconds": None, "waiting": None}
    model.steps_per_execution = 1  # whatever the lesson's: the clock looks after each step
    model.make_train_function(force=True)
    clock = Steps()
    model.fit(training.take(20), shuffle=False, verbose=0, callbacks=[clock.callback])
    steps = min(200, max(20, int(10 / clock.mean())), len(training))
    repeated = training.take(1).cache().repeat(steps).prefetch(4)
    real = training.take(steps)
    seconds = {"real": [], "repeated": []}
    for _ in range(rounds + 1):  # the first warms up
        for name, data in [("real", real), ("repeated", repeated)]:
            clock = Steps()
            model.fit(data, shuffle=False, verbose=0, callbacks=[clock.callback])
            seconds[name].append(clock.mean())
    pairs = list(zip(seconds["real"], seconds["repeated"], strict=True))[1:]
    shares = sorted(1 - repeated / real for real, repeated in pairs)
    return {
        "step_seconds": sorted(real for real, _ in pairs)[rounds // 2],
        "waiting": max(0.0, shares[rounds // 2]),
        "waiting_rounds": shares,
    }


class Steps:
    """The mean time of a step, without the first ten, in which buffers fill."""

    def __init__(self):
        import keras

        ends = self.ends = []
        self.callback = keras.callbacks.LambdaCallback(
            on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
        )

    def mean(self):
        first = min(10, len(self.ends) // 2)
        return (self.ends[-1] - self.ends[first]) / (len(self.ends) - 1 - first)


# The tutorials


def tutorial(args, options):
    with contextlib.redirect_stdout(sys.stderr):
        devices.start(
            SimpleNamespace(precision="float32", deterministic=False), convolutional=False
        )
    import keras

    keras.utils.set_random_seed(0)
    measured = {"fit_seconds": 0.0, "epochs": [], "fits": 0, "precision": "float32"}
    fit = keras.Model.fit

    def train(model, *positional, test, **named):
        if args.epochs:
            named["epochs"] = args.epochs
        watching(fit, lambda: test, None, measured)(model, *positional, verbose=2, **named)

    TUTORIALS[args.name](options, train)
    measured["test_accuracy"] = measured["epochs"][-1][1]
    return measured


def mnist(options, train):
    """Keras, `examples/vision/mnist_convnet.py` (Chollet, 2015, changed 2020)."""
    import keras

    from common import datasets

    (x, y), (x_test, y_test), _ = datasets.load_mnist(options.data_dir, options.sample)
    x, x_test = x.astype("float32") / 255, x_test.astype("float32") / 255
    y, y_test = keras.utils.to_categorical(y, 10), keras.utils.to_categorical(y_test, 10)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    test = {"x": x_test, "y": y_test}
    train(model, x, y, batch_size=128, epochs=15, validation_split=0.1, test=test)


def fashion(options, train):
    """TensorFlow, `tutorials/keras/classification`."""
    import keras

    from common import datasets

    (x, y), (x_test, y_test), _ = datasets.load_fashion_mnist(options.data_dir, options.sample)
    x, x_test = x[..., 0] / 255.0, x_test[..., 0] / 255.0
    layers = [keras.layers.Flatten(), keras.layers.Dense(128, activation="relu")]
    model = keras.Sequential([keras.Input((28, 28)), *layers, keras.layers.Dense(10)])
    _compile(model)
    train(model, x, y, epochs=10, test={"x": x_test, "y": y_test})


def cifar10(options, train):
    """TensorFlow, `tutorials/images/cnn`."""
    import keras

    from common import datasets

    (x, y), (x_test, y_test), _ = datasets.load_cifar10(options.data_dir, options.sample)
    x, x_test = x / 255.0, x_test / 255.0
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    _compile(model)
    test = {"x": x_test, "y": y_test}
    train(model, x, y, epochs=10, validation_data=(x_test, y_test), test=test)


def simpsons(options, train):
    """TensorFlow, `tutorials/images/classification`, on the lesson's own training and test part.

    Its five flowers are replaced by the characters; of what the lesson trains and validates on, it
    takes a random fifth for validation, as it does of the flowers.
    """
    import keras
    import tensorflow as tf
    from sklearn.cluster import DBSCAN
    from sklearn.model_selection import StratifiedGroupKFold

    from common import folders

    options.min_images, options.download = None, False
    options.begun = {"script": "train_simpsons.py"}
    images, _, _ = folders.load(
        options, kaggle=("", ""), test_folder="kaggle_simpson_testset", min_images=290
    )
    groups = DBSCAN(eps=1 - 0.95, min_samples=1, metric="cosine").fit_predict(images.thumbnails)
    folds = StratifiedGroupKFold(7, shuffle=True, random_state=0)
    *_, (rest, test) = folds.split(images.paths, images.labels, groups)
    place = folders.link({"rest": images.take(rest), "test": images.take(test)})
    read = keras.utils.image_dataset_from_directory
    split = {"validation_split": 0.2, "seed": 123, "image_size": (180, 180), "batch_size": 32}
    training = read(place / "rest", subset="training", **split)
    validation = read(place / "rest", subset="validation", **split)
    test = read(place / "test", image_size=(180, 180), shuffle=False)
    count = len(training.class_names)
    training = training.cache().shuffle(1000).prefetch(tf.data.AUTOTUNE)
    validation = validation.cache().prefetch(tf.data.AUTOTUNE)

    def network(first, last):
        layers = []
        for filters in (16, 32, 64):
            layers.append(keras.layers.Conv2D(filters, 3, padding="same", activation="relu"))
            layers.append(keras.layers.MaxPooling2D())
        layers = [*first, keras.layers.Rescaling(1 / 255), *layers, *last, keras.layers.Flatten()]
        layers += [keras.layers.Dense(128, activation="relu"), keras.layers.Dense(count)]
        model = keras.Sequential([keras.Input((180, 180, 3)), *layers])
        _compile(model)
        return model

    augment = [
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomRotation(0.1),
        keras.layers.RandomZoom(0.1),
    ]
    for model, epochs in [
        (network([], []), 10),
        (network(augment, [keras.layers.Dropout(0.2)]), 15),
    ]:
        train(model, training, validation_data=validation, epochs=epochs, test={"x": test})


def _compile(model):
    import keras

    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])


TUTORIALS = {"mnist": mnist, "fashion": fashion, "cifar10": cifar10, "simpsons": simpsons}


if __name__ == "__main__":
    main()
