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
import tempfile
import time
import zipfile
from pathlib import Path

import keras
import numpy as np
from sklearn.metrics import f1_score, precision_recall_fscore_support

from common import devices, options, report
from common.options import Mistake

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FINISHED = "results.json"  # it is there only if the run got to its end


class Run:
    """A folder of its own for one run: `outputs/<name>-<model>/<date>-<time>`.

    The name is that of the script, without `train_` and `.py`; in a notebook's cell `notebook`.

    Args:
        args: The lesson's options.
        device: The `devices.Device`.
        model: The model's name, such as "cnn".

    It sets all random seeds to `--seed`.

    Attributes:
        folder: Its path; with `--resume`, that of the run that was cut off. A run that ends
            before anything is written takes it away again.
        verbose: For `fit`: a progress bar on a terminal, a line per epoch in a file.
        seconds: How long each training took, by its name. After `--resume`, of its last part.

    Raises:
        Mistake: The folder to resume is not one of this script's runs, is finished, or in use.
    """

    def __init__(self, args, device, model):
        self.args, self.device, self.model = args, device, model
        keras.utils.set_random_seed(args.seed)
        self.name = Path(args.script).stem.removeprefix("train_")
        self.verbose = 1 if "ipykernel" in sys.modules or sys.stdout.isatty() else 2
        self.seconds, self._folders = {}, {}
        place = args.output_dir / f"{self.name}-{model}"
        if args.resume:
            self.folder = args.resume
            if self.folder.parent.name != place.name or not any(self.folder.glob("*/history.csv")):
                raise Mistake(f"--resume: {self.folder} holds no training of {place.name}.")
            if (self.folder / FINISHED).exists():
                raise Mistake(f"--resume: {self.folder} is finished.")
        else:
            self.folder = make_new(place / time.strftime("%Y%m%d-%H%M%S"))
            atexit.register(remove_if_empty, self.folder)
        if fcntl:  # until this process ends
            with contextlib.suppress(PermissionError):
                self._lock = os.open(self.folder, os.O_RDONLY)
                try:
                    fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    what = "another process is training there"
                    raise Mistake(f"--resume: {self.folder}: {what}.") from None
                except OSError:  # a file system without locks
                    pass
        print(f"Run folder: {self.folder}{', resumed' if args.resume else ''}")

    # Trainings

    def callbacks(self, name):
        """Begin a training, and return the callbacks that every training has.

        - `ModelCheckpoint` saves the model of the lowest validation loss as `best.keras`;
        - `CSVLogger` writes each epoch's figures to `history.csv`;
        - `TerminateOnNaN` ends the program where the loss is not a number;
        - `StopAtCtrlC` ends the training at Ctrl-C, and the lesson goes on;
        - `BackupAndRestore` saves weights and optimizer after each epoch, for `--resume`.

        Args:
            name: Of the training, such as "plain"; the files are in a folder of this name in the
                run's. Where it was used before, as by a notebook's cell that is run again, the
                folder is `plain-2`. With `--resume`, the training continues in its folder.

        Returns:
            A list; put callbacks that change the model's weights before it.
        """
        folder = self.folder / name
        if not self._continues(name) or not folder.is_dir():
            folder = make_new(folder)
        self._folders[name] = folder
        best = folder / "best.keras"
        losses = [_number(row["val_loss"]) for row in _rows(folder / "history.csv")]
        # After --resume: the lowest so far, if its model is there whole.
        lowest = np.nanmin(losses) if losses and zipfile.is_zipfile(best) else None
        return [
            keras.callbacks.ModelCheckpoint(
                best, monitor="val_loss", save_best_only=True, initial_value_threshold=lowest
            ),
            keras.callbacks.CSVLogger(folder / "history.csv", append=True),
            _StopAtNaN(raise_error=True),
            *([] if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ else [StopAtCtrlC()]),
            _Watch(self.seconds, name),
            _Backup(folder / "backup", double_checkpoint=True, delete_checkpoint=False),
        ]

    def path(self, name, file):
        """The path of a training's file, such as `run.path("plain", "best.keras")`."""
        return self._folders.get(name, self.folder / name) / file

    def is_trained(self, name):
        """Whether `--resume` found the `trained.keras` that a training leaves at its end."""
        return self._continues(name) and zipfile.is_zipfile(self.path(name, "trained.keras"))

    def _continues(self, name):
        return bool(self.args.resume) and name not in self._folders

    def history(self, name):
        """The figures of all epochs of a training, those before `--resume` included.

        Returns:
            A dict of lists, a float per epoch: `loss`, `accuracy`, `val_loss`, `val_accuracy`, or
            whatever `CSVLogger` wrote; NaN where it wrote none, as with `validation_freq=2`.

        Raises:
            Mistake: The file is gone, or the validation loss was not a number.
        """
        path = self.path(name, "history.csv")
        rows = _rows(path)
        if not rows:
            raise Mistake(f"{path}: no epoch is in it. Was the folder removed?")
        for row in rows:
            if "nan" in row.values() or "inf" in row.values():
                raise Mistake(_NO_NUMBER.format(int(row["epoch"]) + 1))
        return {key: [_number(row[key]) for row in rows] for key in rows[0] if key != "epoch"}

    # The end

    def stored(self, trainings, source, class_names, test_count):
        """The figures of runs that the repository keeps: of the same models on the same data.

        Args:
            trainings: The names of the models.
            source: The `datasets.Source` of this run: a sample is compared with a sample.
            class_names: What both tell apart.
            test_count: How many test images both are evaluated on.

        Returns:
            For each run, the seeds in order, a dict like `scores` of `finish`; an empty list where
            no run is kept, as beside a copy of the lesson.
        """
        place, found = options.HOME / "outputs" / "reference", []
        for path in sorted(place.glob(f"*-{self.model}/seed-?/{FINISHED}")):  # also a notebook's
            results = json.loads(path.read_text(encoding="utf-8"))
            data, models = results["data"], results.get("models", {})
            same = (data["source"] == "sample") == (source.kind == "sample")
            same = same and (data["classes"], data["test"]) == (class_names, test_count)
            if same and list(models) == list(trainings):
                found.append(models)
        return found

    def cache_file(self, part):
        """The name of a file for `tf.data`'s cache, or "", which keeps it in memory.

        The file is in a temporary folder in the run's, which goes when the program ends.
        """
        if self.args.cache == "memory":
            return ""
        folder = tempfile.mkdtemp(prefix="cache-", dir=self.folder)
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return os.path.join(folder, part)

    def finish(
        self,
        *, source, class_names, preparation, models, scores, labels, probabilities, files=None,
    ):  # fmt: skip
        """Write `mistakes.csv`, `results.json` and `report.html`; remove the backups.

        Args:
            source: The `datasets.Source`.
            class_names: A name per class.
            preparation: How `predict.py` is to prepare an image: "digit", "clothing", "square"
                or "folder" (see `prepare` in `predict.py`).
            models: The trained Keras models by the names of their trainings; the last is the
                final one.
            scores: For each of these names a dict of `train`, `validation`, `test` and perhaps
                further parts; of each a dict of `loss` (mean cross-entropy in nats), `accuracy`
                and, where they were computed, `macro_f1` and `calibration_error` (0 to 1).
            labels: A dict of `train`, `validation`, `test` and perhaps further parts: their true
                classes, integers, shape (count,) each.
            probabilities: Those that the final model predicts for the test set, floats, shape
                (count, classes).
            files: The test images' files, for `mistakes.csv`; None: it has their indices.
        """
        figures = {name: self._figures(name, models[name], scores[name]) for name in models}
        final = figures[list(models)[-1]]
        predicted = probabilities.argmax(axis=1)
        macro, per_class = _per_class(labels["test"], predicted, class_names)
        final["test"]["macro_f1"] = macro
        counts = {part: len(own) for part, own in labels.items()}
        kept = {k: v for k, v in vars(self.args).items() if k not in _NOT_OPTIONS}
        data = {"source": source.kind, "path": str(source.path)} | counts
        record = {
            "lesson": self.name,
            "model": self.model,
            "finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "options": {k: str(v) if isinstance(v, Path) else v for k, v in kept.items()},
            "versions": devices.versions(),
            "device": {k: getattr(self.device, k) for k in ("kind", "name", "count")}
            | {"precision": keras.config.dtype_policy().name},
            "data": data | {"classes": list(class_names)},
            **final,
            "per_class": per_class,
            "models": figures,
            "script": self.args.script,
            "preparation": preparation,
            "resumed": bool(self.args.resume),
        }
        self._write_mistakes(class_names, labels["test"], probabilities, files)
        write_json(self.folder / FINISHED, record)
        network = report.network(list(models.values())[-1]) if preparation == "digit" else None
        self._page = {"record": record, "note": source.note, "network": network}
        if files is None and counts["test"] < report.ENOUGH:
            print(f"Test accuracy: {report.accuracy(final['test']['accuracy'], counts['test'])}")
        self.write_page()
        for path in self.folder.glob("*/backup"):
            shutil.rmtree(path, ignore_errors=True)

    def write_page(self):
        """Write `report.html`, with the plots that are there; after `finish`."""
        about, command = self.args.about, self.args.command
        report.write(self.folder, about=about, command=command, **self._page)
        print(f"Run folder: {self.folder}")

    def _figures(self, name, model, scores):
        history = self.history(name)
        seconds = None if self.args.resume else self.seconds.get(name)
        return {
            "parameters": model.count_params(),
            "epochs": len(history["loss"]),
            "best_epoch": int(np.nanargmin(history["val_loss"])) + 1,
            "fit_seconds": seconds and round(seconds, 1),
            **{
                part: {key: round(float(value), 6) for key, value in own.items()}
                for part, own in scores.items()
            },
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


_NOT_OPTIONS = "script", "command", "about", "resume"
_NO_NUMBER = "the loss is not a number any more (epoch {}): try a smaller --learning-rate. "
_NO_NUMBER += "No model was saved."


class StopAtCtrlC(keras.callbacks.Callback):
    """Ends the training after the step in which Ctrl-C is pressed; a second one is as ever."""

    def on_train_begin(self, logs=None):
        self.epoch = 1
        self.former = signal.getsignal(signal.SIGINT)
        other = getattr(self.former, "__self__", None)
        if isinstance(other, StopAtCtrlC):  # of a training that ended in an error
            self.former = other.former
        signal.signal(signal.SIGINT, self._stop)

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_train_end(self, logs=None):
        signal.signal(signal.SIGINT, self.former)

    def _stop(self, *_):
        signal.signal(signal.SIGINT, self.former)
        self.model.stop_training = True
        what = f"Ctrl-C in epoch {self.epoch}: training ends here, and the lesson goes on."
        print(f"\n{what} Press it again at once to end the program.", flush=True)


class _StopAtNaN(keras.callbacks.TerminateOnNaN):
    """Ends the program with a sentence, before the weights reach the backup."""

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch + 1

    def on_batch_end(self, batch, logs=None):
        try:
            super().on_batch_end(batch, logs)
        except RuntimeError:
            raise Mistake(_NO_NUMBER.format(self.epoch)) from None


class _Watch(keras.callbacks.Callback):
    """Looks whether the model outputs logits, and takes the time."""

    def __init__(self, seconds, name):
        super().__init__()
        self.seconds, self.name = seconds, name

    def on_train_begin(self, logs=None):
        last = self.model.layers[-1]
        softmax = getattr(last, "activation", None) is keras.activations.softmax
        if softmax or isinstance(last, keras.layers.Softmax):
            raise Mistake(
                f"the model ends in a softmax ({last.name}). Leave it out, and keep "
                "from_logits=True: a softmax is appended after the training."
            )
        self.started = time.perf_counter()

    def on_train_end(self, logs=None):
        self.seconds[self.name] = time.perf_counter() - self.started


class _Backup(keras.callbacks.BackupAndRestore):
    """Says so where Keras cannot read a backup, nor the one before it."""

    def on_train_begin(self, logs=None):
        try:
            super().on_train_begin(logs)
        except (OSError, ValueError):
            what = "cannot be read, or is of another model. Begin a new run, without --resume"
            raise Mistake(f"{self.backup_dir}: {what}.") from None


def _rows(path):
    """The last row of each epoch that `CSVLogger` wrote: dicts of texts."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list({row["epoch"]: row for row in csv.DictReader(file)}.values())
    except FileNotFoundError:
        return []


def _number(text):
    return math.nan if text in ("", "NA") else float(text)


def _per_class(y_test, predicted, class_names):
    """The macro F1, and by name precision, recall, F1 and support of each class."""
    settings = {"labels": range(len(class_names)), "zero_division": 0}
    columns = precision_recall_fscore_support(y_test, predicted, **settings)
    per_class = {}
    for name, values in zip(class_names, zip(*columns, strict=True), strict=True):
        keys = "precision", "recall", "f1", "support"
        per_class[name] = dict(zip(keys, (value.item() for value in values), strict=True))
    macro = f1_score(y_test, predicted, average="macro", **settings)
    return round(float(macro), 6), per_class


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
        folder.rmdir()
