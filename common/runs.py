"""The folder of a run: what it holds while it trains, and what it leaves."""

import atexit
import contextlib
import csv
import datetime
import itertools
import json
import math
import os
import shutil
import signal
import sys
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import precision_recall_fscore_support

from common import backups, devices, options, report
from common.options import BEGUN, FINISHED, Mistake

_PARTS = "train", "validation", "test"
_SCORES = "loss", "accuracy", "macro_f1", "calibration_error"


class Run:
    """A folder of its own for one run: `outputs/<name>-<model>/<date>-<time>`.

    The name is that of the script, without `train_` and `.py`; in a notebook's cell `notebook`.

    Args:
        args: The lesson's options.
        device: The `devices.Device`.
        model: The model's name, such as "cnn".

    Attributes:
        folder: Its path. With `--resume`, it is that of the run that was cut off. A run that
            ends before anything is written takes it away again.
        verbose: For `fit`: a progress bar on a terminal, a line per epoch in a file.
    """

    def __init__(self, args, device, model):
        self.args, self.device, self.model, self._metric = args, device, model, "val_loss"
        self.name = Path(args.begun["script"]).stem.removeprefix("train_")
        in_notebook = "ipykernel" in sys.modules
        self.verbose = 1 if in_notebook or sys.stdout.isatty() else 2
        if args.resume:
            self.folder = args.resume
            if not (self.folder / BEGUN).exists():
                raise Mistake(f"{self.folder} has been finished by another process meanwhile.")
            for path in self.folder.glob("history*.csv"):
                backups.write_rows(path, backups.rows(path))
            self._remove_caches()  # of the run that was cut off
        else:
            started = time.strftime("%Y%m%d-%H%M%S")
            self.folder = make_new(args.output_dir / f"{self.name}-{model}" / started)
            atexit.register(remove_if_empty, self.folder)
            write_json(self.folder / BEGUN, args.begun)
        atexit.register(self._remove_caches)
        print(f"Run folder: {self.folder}{', resumed' if args.resume else ''}")

    def best(self, metric, suffix=""):
        """The best value of a metric in `history.csv`: for `ModelCheckpoint`, after a resume.

        Where the run is not resumed, what an earlier `fit` has left is taken away: a notebook's
        cell that is run again trains anew.

        Args:
            metric: Such as "val_loss", of which the lowest value is the best, or "val_accuracy".
                The best epoch in `results.json` is by it, too.
            suffix: Of the files of another model, such as "-plain": `history-plain.csv`,
                `best-plain.keras`, `backup-plain/` and, when it is trained,
                `trained-plain.keras`.

        Returns:
            A float; None where no best model was saved yet, or the file was cut off.
        """
        self.is_trained(suffix)
        self._metric = metric
        if not zipfile.is_zipfile(self.folder / f"best{suffix}.keras"):
            return None
        values = [float(row[metric]) for row in backups.rows(self.folder / f"history{suffix}.csv")]
        return (min if metric.endswith("loss") else max)(values, default=None)

    def is_trained(self, suffix=""):
        """Whether a resumed run has its `trained<suffix>.keras`; else, its files are removed."""
        names = f"trained{suffix}.keras", f"best{suffix}.keras", f"history{suffix}.csv"
        trained, best, history = (self.folder / name for name in names)
        backup = self.folder / f"backup{suffix}"
        if not self.args.resume:
            for path in (trained, best, history):
                path.unlink(missing_ok=True)
            shutil.rmtree(backup, ignore_errors=True)
        # Of several processes, each may have been cut off a moment earlier than the others.
        is_trained = zipfile.is_zipfile(trained)
        if self.args.resume and not self._lowest(is_trained):
            if is_trained:
                trained.replace(best)
            epochs = backups.check(backup, self._lowest)
            rows = backups.rows(history)
            backups.write_rows(history, [row for row in rows if int(row["epoch"]) < epochs])
            is_trained = False
        return is_trained

    def _lowest(self, number):
        """The lowest of the numbers that all processes give; of one process, its own."""
        distribution = keras.distribution.distribution()
        return distribution.lowest(number) if distribution else number

    def history(self, suffix=""):
        """The figures of all epochs, those before a resume included; `suffix` as for `best`.

        A run that was killed between an epoch's row and its backup trains that epoch again: the
        last row of each epoch counts, and `history.csv` is written anew without the others.

        Returns:
            A dict of lists, an entry per epoch: `loss`, `accuracy`, `val_loss`, `val_accuracy`,
            or whatever `CSVLogger` wrote.

        Raises:
            Mistake: The loss was not a number. The run is left without a model, and is not
                resumed: it would most likely end there again.
        """
        path = self.folder / f"history{suffix}.csv"
        rows = backups.rows(path)
        backups.write_rows(path, rows)
        for row in rows:
            if not all(math.isfinite(float(value)) for value in row.values()):
                self._forget()
                raise Mistake(
                    f"the loss is not a number any more (epoch {int(row['epoch']) + 1}): try a "
                    "smaller --learning-rate. No model was saved."
                )
        return {key: [float(row[key]) for row in rows] for key in rows[0] if key != "epoch"}

    def best_of(self, model, source, class_names, test_count):
        """What `results.json` holds of the best finished run of another model on the same data.

        Best is the highest validation accuracy, of the runs in `--output-dir` and of those that
        the repository keeps.

        Args:
            model: Its name, such as "mlp".
            source: The `datasets.Source` of this run: a sample is compared with a sample.
            class_names: What both tell apart.
            test_count: How many test images both are evaluated on.

        Returns:
            A dict; None where there is no such run.
        """
        best, highest = None, -1.0
        for place in (self.args.output_dir, options.HOME / "outputs" / "reference"):
            for path in place.glob(f"*-{model}/*/{FINISHED}"):  # in a notebook, of any name
                with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # damaged
                    results = json.loads(path.read_text(encoding="utf-8"))
                    data, accuracy = results["data"], results["validation"]["accuracy"]
                    same = (data["source"] == "sample") == (source.kind == "sample")
                    same = same and (data["classes"], data["test"]) == (class_names, test_count)
                    if same and accuracy > highest:
                        best, highest = results, accuracy
        return best

    def cache_file(self, part):
        """The name of a file for `tf.data`'s cache, or "", which keeps it in memory."""
        if self.args.cache == "memory":
            return ""
        self._remove_caches(part)  # of a notebook's cell that is run again
        return str(self.folder / f"cache-{part}")

    def finish(
        self,
        *, source, class_names, preparation, model, history, fit_seconds, labels, scores,
        probabilities, files=None, baseline=None, remedies=None,
    ):  # fmt: skip
        """Write `mistakes.csv`, `results.json` and `report.html`, the last files of a run.

        Args:
            source: The `datasets.Source`.
            class_names: A name per class.
            preparation: How `predict.py` is to prepare an image: "digit", "clothing", "square"
                or "folder" (see `prepare` in `predict.py`).
            model: The trained Keras model; its parameters are counted.
            history: What `history()` returned.
            fit_seconds: How long `fit` took; after a resume, the last time.
            labels: A dict of `train`, `validation` and `test`: their true classes, integers,
                shape (count,) each.
            scores: The same with a dict of `loss` (mean cross-entropy in nats), `accuracy` and,
                where they were computed, `macro_f1` and `calibration_error` (0 to 1) each. Of
                further parts, such as a published test set, too.
            probabilities: Those predicted for the test set, floats, shape (count, classes).
            files: The test images' files, for `mistakes.csv`; None: it has their indices.
            baseline: Of a first model the same model, history, fit_seconds and scores.
            remedies: The scores of each model that was tried, by its name.
        """
        macro, per_class = _per_class(labels["test"], probabilities.argmax(axis=1), class_names)
        scores = _rounded(scores)
        further = {part: scores.pop(part) for part in list(scores) if part not in _PARTS}
        scores["test"].pop("macro_f1", None)  # it stands in `macro`
        scores["test"] |= macro
        counts = {part: len(labels[part]) for part in _PARTS}
        data = {"source": source.kind, "path": str(source.path)} | counts
        record = {
            "lesson": self.name,
            "model": self.model,
            "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "options": self.args.begun["options"],
            "versions": devices.versions(),
            "device": {k: getattr(self.device, k) for k in ("kind", "name", "count", "precision")},
            "data": data | {"classes": list(class_names)},
            **self._trained(model, history, fit_seconds),
            **scores,
            "per_class": per_class,
            **({"further_tests": further} if further else {}),
            **({"baseline": self._trained(*baseline)} if baseline else {}),
            **({"remedies": {k: _rounded(v) for k, v in remedies.items()}} if remedies else {}),
            "script": self.args.begun["script"],
            "preparation": preparation,
            "resumed": bool(self.args.resume),
        }
        self._write_mistakes(class_names, labels["test"], probabilities, files)
        write_json(self.folder / FINISHED, record)
        about, command = self.args.about, self.args.begun["command"]
        network = report.network(model) if preparation == "digit" else None
        told = {"about": about, "command": command, "note": source.note, "network": network}
        report.write(self.folder, record, **told)
        self._forget()
        print(f"Run folder: {self.folder}")

    def _trained(self, model, history, fit_seconds, scores=None):
        best = np.argmin if self._metric.endswith("loss") else np.argmax
        return {
            "parameters": model.count_params(),
            "epochs": len(history["loss"]),
            "best_epoch": int(best(history[self._metric])) + 1,
            "fit_seconds": None if fit_seconds is None else round(fit_seconds, 1),
            **_rounded({part: scores[part] for part in _PARTS} if scores else {}),
        }

    def _write_mistakes(self, class_names, y_test, probabilities, files):
        """The misclassified test images, the most confident errors first."""
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        errors = np.flatnonzero(predicted != y_test)
        errors = errors[np.argsort(-confidence[errors], kind="stable")]
        names = ["index" if files is None else "file", "true", "predicted", "probability"]
        rows = []
        for i in errors:
            pair = class_names[y_test[i]], class_names[predicted[i]]
            rows.append([i if files is None else files[i], *pair, f"{confidence[i]:.4f}"])
        write_table(self.folder / "mistakes.csv", names, rows)

    def _remove_caches(self, part=""):
        for path in self.folder.glob(f"cache-{part}*"):
            with contextlib.suppress(OSError):  # Windows: it is open
                path.unlink()

    def _forget(self):
        """Take away what only `--resume` needs."""
        (self.folder / BEGUN).unlink(missing_ok=True)  # first: without it, it is not resumed
        for path in self.folder.glob("*.keras"):
            if path.name != "model.keras":
                path.unlink(missing_ok=True)
        for path in self.folder.glob("backup*"):
            shutil.rmtree(path, ignore_errors=True)


class StopAtCtrlC(keras.callbacks.Callback):
    """Ends the training after the step in which Ctrl-C is pressed; a second one is as ever.

    One of several processes ends, and the others with it.
    """

    def on_train_begin(self, logs=None):
        self.epoch = 1
        self.former = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._stop)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_end(self, logs=None):
        signal.signal(signal.SIGINT, self.former)

    def _stop(self, *arguments):
        signal.signal(signal.SIGINT, self.former)
        if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:  # the others would wait for this one
            self.former(*arguments)
        self.model.stop_training = True
        what = f"Ctrl-C in epoch {self.epoch}: training ends here, and the lesson goes on."
        print(f"\n{what} Press it again at once to end the program.", flush=True)


def _per_class(y_test, predicted, class_names):
    """Macro precision, recall and F1, and those of each class, by name."""
    names = "precision", "recall", "f1"
    *found, support = precision_recall_fscore_support(
        y_test, predicted, labels=range(len(class_names)), zero_division=0
    )
    found = dict(zip(names, found, strict=True))  # the macro ones: of the classes that occur
    macro = {f"macro_{name}": float(own[support > 0].mean()) for name, own in found.items()}
    per_class = {}
    for i, name in enumerate(class_names):
        own = {key: float(values[i]) for key, values in found.items()}
        per_class[name] = own | {"support": int(support[i])}
    return macro, per_class


def _rounded(scores):
    return {
        part: {key: round(float(own[key]), 6) for key in _SCORES if key in own}
        for part, own in scores.items()
    }


def make_new(stem):
    """Make a folder at `stem`, or with -2, -3, … behind it if that is taken, and return it."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count(1):
        folder = stem if number == 1 else stem.with_name(f"{stem.name}-{number}")
        with contextlib.suppress(FileExistsError):
            folder.mkdir()
            return folder


def write_json(path, value):
    """Write a file that is there whole or not at all."""
    partial = path.with_name(f"{path.name}.part")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    partial.replace(path)


def write_table(path, names, rows):
    """Write a CSV file: a row of names, then the rows."""
    with open(path, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        csv.writer(file, lineterminator="\n").writerows([names, *rows])


def remove_if_empty(folder):
    with contextlib.suppress(OSError):
        if [path.name for path in folder.iterdir()] == [BEGUN]:
            (folder / BEGUN).unlink()
        folder.rmdir()
