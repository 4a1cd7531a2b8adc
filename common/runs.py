"""The run's folder, and the callbacks that fill it."""

import atexit
import contextlib
import csv
import datetime
import json
import math
import platform
import signal
import sys
import time
from pathlib import Path

import keras
import numpy as np

HOME = Path(__file__).resolve().parent.parent  # the folder that the lessons are in


_PARTS = "train", "validation", "test"


class TrainingError(Exception):
    """A training that cannot be gone on with; the message says why and what to do."""


class Run:
    """A folder of its own for one run of a lesson: `outputs/<lesson>-<model>/<date>-<time>`.

    Attributes:
        folder: Its path. A run that ends before anything is written takes it away again.
        verbose: For `fit`: a progress bar on a terminal, a line an epoch in a file.
        callbacks: For `fit`: they keep `history.csv` and the best weights, and end the
            training at Ctrl-C or at a loss that is not a number.
        baseline_callbacks: The same for a first, plainer model, where a lesson trains two;
            its history is `history-baseline.csv`.
    """

    def __init__(self, lesson, model, options):
        self.lesson, self.model, self.options = lesson, model, options
        stem = options.output_dir / f"{lesson}-{model}" / time.strftime("%Y%m%d-%H%M%S")
        self.folder = _make_new(stem)
        atexit.register(_remove_if_empty, self.folder)
        self.verbose = 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
        self.callbacks = _callbacks(self.folder / "history.csv")
        self.baseline_callbacks = _callbacks(self.folder / "history-baseline.csv")
        print(f"Run folder: {self.folder}")

    def finish(self, device, source, parameters, history, results, *, baseline=None):
        """Write `results.json`, the last file of a run.

        Args:
            device: The `devices.Device`.
            source: The `datasets.Source`.
            parameters: Number of the model's parameters.
            history: What `fit` returned.
            results: Dict of `train`, `validation` and `test`, each of `evaluation.evaluate`;
                of further tests, too, where there are any.
            baseline: The last three of the first model, where there is one.
        """
        counts = {
            part: sum(figures["support"] for figures in results[part]["per_class"].values())
            for part in _PARTS
        }
        test = results["test"]
        record = {
            "lesson": self.lesson,
            "model": self.model,
            "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "options": {k: _plain(v) for k, v in vars(self.options).items()},
            "versions": versions(),
            "device": {
                "kind": device.kind,
                "name": device.name,
                "count": device.count,
                "precision": device.precision,
            },
            "data": {
                "source": source.kind,
                "path": str(source.path),
                **counts,
                "classes": list(test["per_class"]),
            },
            **_training(self.callbacks, parameters, history, results),
            "per_class": test["per_class"],
        }
        if further := {part: results[part] for part in results if part not in _PARTS}:
            record["further_tests"] = {part: _summary(further[part]) for part in further}
        if baseline:
            record["baseline"] = _training(self.baseline_callbacks, *baseline)
        partial = self.folder / "results.json.part"
        partial.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(self.folder / "results.json")
        print(f"Run folder: {self.folder}")


def _training(callbacks, parameters, history, results):
    """The figures of one training, for `results.json`."""
    best = next(c for c in callbacks if isinstance(c, _BestWeights))
    file = next(c for c in callbacks if isinstance(c, _HistoryFile))
    return {
        "parameters": parameters,
        "epochs": len(history.epoch),
        "best_epoch": best.epoch,
        "fit_seconds": round(file.seconds, 1),
        "train": _only(results["train"], "loss", "accuracy"),
        "validation": _only(results["validation"], "loss", "accuracy"),
        "test": _summary(results["test"]),
    }


def earlier(lesson, model, options, source, test_count):
    """Find a finished run of another model on the same data.

    The newest under the output folder is taken, else one that the repository keeps.

    Args:
        lesson, model, options: As for `Run`.
        source: The `datasets.Source` of this run; the other's must be of the sample if this is.
        test_count: How many test pictures both are judged on.

    Returns:
        What its `results.json` holds, and its folder; `None, None` where there is none.
    """
    kept = sorted((HOME / "outputs" / "reference").glob(f"{lesson}-{model}/*/results.json"))
    own = sorted(options.output_dir.glob(f"{lesson}-{model}/*/results.json"), reverse=True)
    for path in [*own, *kept]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            results = json.loads(path.read_text(encoding="utf-8"))
            data, accuracy = results["data"], float(results["test"]["accuracy"])
            same = (data["source"] == "sample") == (source.kind == "sample")
            if same and data["test"] == test_count and accuracy:
                return results, path.parent
    return None, None


def versions():
    """The versions of Python and of the packages that figures depend on."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }


def _callbacks(path):
    """The callbacks of one training, whose history goes to `path`."""
    return [_StopAtNaN(), _HistoryFile(path), _BestWeights(), _StopAtInterrupt()]


def _make_new(stem):
    """Make a folder at `stem`, or with -2, -3, … behind it if that is taken."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        folder = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def _remove_if_empty(folder):
    with contextlib.suppress(OSError):
        folder.rmdir()


def _plain(value):
    return str(value) if isinstance(value, Path) else value


def _summary(results):
    return {key: value for key, value in results.items() if key != "per_class"}


def _only(results, *keys):
    return {key: results[key] for key in keys}


class _HistoryFile(keras.callbacks.Callback):
    """Writes a row an epoch to a CSV file, as the training goes."""

    columns = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")

    def __init__(self, path):
        super().__init__()
        self.path = path
        self.seconds = 0.0  # of the whole training, compilation and validation included

    def on_train_begin(self, logs=None):
        self._began = self._epoch_began = time.perf_counter()
        self._write(self.columns, mode="w")

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        figures = {key: f"{logs[key]:.6f}" for key in self.columns[1:5]}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        figures |= {"epoch": epoch + 1, "learning_rate": f"{rate:.6g}"}
        figures["seconds"] = f"{time.perf_counter() - self._epoch_began:.2f}"
        self._write([figures[column] for column in self.columns])

    def on_train_end(self, logs=None):
        self.seconds = time.perf_counter() - self._began

    def _write(self, row, mode="a"):
        with open(self.path, mode, newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow(row)


class _BestWeights(keras.callbacks.Callback):
    """Keeps the weights of the best epoch, and puts them back at the end.

    Best is the highest validation accuracy; among equals, the lowest validation loss. They are
    kept in memory: a training that fails leaves no model behind that looks like a good one.
    """

    def on_train_begin(self, logs=None):
        self.epoch, self._best, self._weights = 0, (-math.inf, -math.inf), None

    def on_epoch_end(self, epoch, logs=None):
        reached = logs["val_accuracy"], -logs["val_loss"]
        if reached > self._best:
            self.epoch, self._best = epoch + 1, reached
            self._weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        if self._weights is not None:
            self.model.set_weights(self._weights)


class _StopAtNaN(keras.callbacks.Callback):
    """Ends the training at the first loss that is not a finite number."""

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise TrainingError(
                f"the loss is not a number any more (epoch {self._epoch}, step {batch + 1}): "
                "try a smaller --learning-rate. No model was saved."
            )


class _StopAtInterrupt(keras.callbacks.Callback):
    """Ends the training after the batch at which Ctrl-C is pressed; a second one is as ever."""

    def on_train_begin(self, logs=None):
        self._epoch = None
        self._former = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._interrupted)

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_end(self, logs=None):
        signal.signal(signal.SIGINT, self._former)

    def _interrupted(self, *_):
        signal.signal(signal.SIGINT, self._former)
        self.model.stop_training = True
        print(
            f"\nCtrl-C in epoch {self._epoch}: the training ends here, and the lesson goes on "
            "with the best weights so far. Press it again to end the program.",
            flush=True,
        )
