"""Train a tutorial or a lesson, as its users do, and write what was measured to a JSON file.

    python benchmarks/side.py lesson mnist report.json --sample --epochs 1

Called by `shared.measure`: each side has a process of its own. The accuracy on the test images
after each epoch is computed at the end, from weights that were saved outside of the measured time.
"""

import json
import resource
import runpy
import statistics
import sys
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import shared
import tensorflow as tf  # noqa: F401


def peak_megabytes():
    """The most memory that this process has had."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes; on macOS bytes
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))


IMPORT_MEGABYTES = peak_megabytes()  # of Keras and TensorFlow alone

from common import devices, folders, runs


def main():
    side, name, report, *arguments = sys.argv[1:]
    with tempfile.TemporaryDirectory() as place:
        sides = {"tutorial": tutorial, "lesson": lesson}
        measured = sides[side](name, arguments, Path(place))
    shared.write(Path(report), {"import_megabytes": IMPORT_MEGABYTES} | measured)


class Watch(keras.callbacks.Callback):
    """Takes the time of trainings, and saves the weights after each epoch, outside of that time.

    Attributes:
        seconds: Those of all trainings so far.
        starts: What they were when each training began.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder, self.seconds, self.starts, self.epochs = folder, 0.0, [], []

    def on_train_begin(self, logs=None):
        self.starts.append(self.seconds)
        self.since = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        self.seconds += time.perf_counter() - self.since
        path = self.folder / f"{len(self.epochs)}.weights.h5"
        self.model.save_weights(path)
        self.epochs.append((self.seconds, len(self.starts), self.model, path))
        self.since = time.perf_counter()

    def on_train_end(self, logs=None):
        self.seconds += time.perf_counter() - self.since

    def measured(self, x_test, y_test):
        """The times, and for each epoch its end, the accuracy then, and its training's number."""
        epochs = []
        for seconds, training, model, path in self.epochs:
            model.load_weights(path)
            predicted = model.predict(x_test, batch_size=500, verbose=0).argmax(axis=1)
            epochs.append([round(seconds, 3), float(np.mean(predicted == y_test)), training])
        return {"fit_seconds": self.seconds, "starts": self.starts, "epochs": epochs}


def tutorial(name, arguments, place):
    import tutorials

    args = shared.parser("", "benchmarks").parse_args(arguments)
    args.precision, args.deterministic = "float32", False
    devices.start(args, convolutional=False)
    keras.utils.set_random_seed(0)
    watch = Watch(place)

    def train(model, *data, epochs, **settings):
        epochs = args.epochs or epochs
        model.fit(*data, epochs=epochs, verbose=2, callbacks=[watch], **settings)

    test_set = tutorials.TUTORIALS[name](args, train)
    measured = {"precision": "float32", "peak_megabytes": peak_megabytes()}
    measured |= watch.measured(*test_set)
    return measured | {"test_accuracy": measured["epochs"][-1][1]}


def lesson(name, arguments, place):
    """Run a lesson whose trainings have one callback more."""
    watch = Watch(place)
    callbacks = runs.Run.callbacks

    def timed(function):
        """A tutorial decodes its images in its first epoch: so that counts for both sides."""

        def call(*positional, **named):
            began = time.perf_counter()
            result = function(*positional, **named)
            watch.seconds += time.perf_counter() - began
            return result

        return call

    runs.Run.callbacks = lambda run, training: [*callbacks(run, training), watch]
    folders.load, folders.fill_cache = timed(folders.load), timed(folders.fill_cache)
    script = shared.HOME / f"train_{name}.py"
    sys.argv = [script.name, *arguments, "--output-dir", str(place)]
    names = runpy.run_path(str(script), run_name="__main__")  # the lesson's variables
    peak = peak_megabytes()
    results = json.loads((names["run"].folder / runs.FINISHED).read_text(encoding="utf-8"))
    x_test = names["evaluation_data"]["test"] if name == "simpsons" else names["x_test"]
    return {
        "device": results["device"],
        "versions": results["versions"],
        "precision": results["device"]["precision"],
        "test_accuracy": results["test"]["accuracy"],
        "peak_megabytes": peak,
        **watch.measured(x_test, names["labels"]["test"]),
        **waiting(watch.model, names.get("augmented_data") or names["training_data"]),
    }


def waiting(model, training, rounds=7):
    """How much of a step is waiting for input: real batches against one that is repeated.

    The two in turn, about ten seconds each, at most 200 steps; the median of the rounds counts, and
    all of them are kept.
    """
    if len(training) < 4:
        return {"step_seconds": None, "waiting": None}
    model.steps_per_execution = 1  # whatever the lesson's: the clock looks after each step
    model.make_train_function(force=True)
    count = int(10 / step_seconds(model, training.take(20)))
    count = min(200, max(20, count), len(training))
    repeated = training.take(1).cache().repeat(count).prefetch(4)
    pairs = []
    for _ in range(rounds + 1):
        real = step_seconds(model, training.take(count))
        pairs.append((real, step_seconds(model, repeated)))
    pairs = pairs[1:]  # the first round warms up
    shares = sorted(1 - repeated / real for real, repeated in pairs)
    return {
        "step_seconds": statistics.median(real for real, _ in pairs),
        "waiting": max(0.0, statistics.median(shares)),
        "waiting_rounds": shares,
    }


def step_seconds(model, data):
    """The mean time of a training step, without the first ten, in which buffers fill."""
    ends = []
    clock = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: ends.append(time.perf_counter())
    )
    model.fit(data.prefetch(4), shuffle=False, verbose=0, callbacks=[clock])
    ends = ends[min(10, len(ends) // 2) :]
    return (ends[-1] - ends[0]) / (len(ends) - 1)


if __name__ == "__main__":
    main()
