"""The run's folder, and the callbacks that fill it: for the lessons that still use them."""

import atexit
import contextlib
import csv
import datetime
import hashlib
import json
import math
import os
import signal
import sys
import time
import zipfile

import keras
import numpy as np

from common import pipeline, report
from common.devices import versions
from common.options import BEGUN, FINISHED, HOME, Mistake
from common.runs import make_new, remove_if_empty, write_json

BACKUP = "backup"
_PARTS = "train", "validation", "test"
_PREPARATIONS = {"fashion": "clothing"}  # of the others: as they read their images


class TrainingError(Mistake):
    """A training that cannot be gone on with; the message says why and what to do."""


class Run:
    """A folder of its own for one run of a lesson: `outputs/<lesson>-<model>/<date>-<time>`.

    Attributes:
        folder: Its path. A run that ends before anything is written takes it away again; with
            `--resume`, it is that of the run that was cut off.
        verbose: For `fit`: a progress bar on a terminal, a line an epoch in a file.
        callbacks: For `fit`: they keep `history.csv`, the best weights and a backup for
            `--resume`, and end the training at Ctrl-C or at a loss that is not a number. For
            one `fit`. An `EarlyStopping` that is appended to this list goes on counting, too;
            other callbacks begin anew when a run is gone on with.
        baseline_callbacks: The same for a first, plainer model, where a lesson trains two;
            its history is `history-baseline.csv`.
    """

    def __init__(self, lesson, model, options):
        self.lesson, self.model, self.options = lesson, model, options
        self._begun = dict(options.begun)
        if options.resume:
            self.folder = options.resume
            self._lock()
            self._begun = json.loads((self.folder / BEGUN).read_text(encoding="utf-8"))
        else:
            stem = options.output_dir / f"{lesson}-{model}" / time.strftime("%Y%m%d-%H%M%S")
            self.folder = make_new(stem)
            self._lock()
            atexit.register(remove_if_empty, self.folder)
            write_json(self.folder / BEGUN, self._begun)
        precision = keras.config.dtype_policy().name
        if self._begun.setdefault("precision", precision) != precision:
            raise TrainingError(
                f"{self.folder} was begun in {self._begun['precision']}, and this machine computes "
                f"in {precision}. Go on where it began, or begin anew, without --resume."
            )
        self.verbose = 1 if sys.stdout.isatty() or "ipykernel" in sys.modules else 2
        self.callbacks = self._callbacks("")
        self.baseline_callbacks = self._callbacks("-baseline")
        print(f"Run folder: {self.folder}{', resumed' if options.resume else ''}")

    def check_data(self, *arrays):
        """Note what the data are; where a run is gone on with, make sure that they are the same.

        Args:
            arrays: NumPy arrays that tell the data apart, such as pictures and labels.

        Raises:
            TrainingError: They are others than those that the run began with.
        """
        digest = hashlib.sha256()
        for array in arrays:
            digest.update(f"{array.shape} {array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
        first = self._begun.get("data", digest.hexdigest()) if self.options.resume else None
        if first not in (None, digest.hexdigest()):
            raise TrainingError(
                f"the data are not those that {self.folder} began with. Put those back, or "
                "begin anew, without --resume."
            )
        self._begun["data"] = digest.hexdigest()
        write_json(self.folder / BEGUN, self._begun)

    def finish(self, device, source, parameters, history, results, *, baseline=None):
        """Write `report.html`, and `results.json`, the last file of a run.

        Args:
            device: The `devices.Device`.
            source: The `datasets.Source`.
            parameters: Number of the model's parameters.
            history: What `fit` returned.
            results: Dict of `train`, `validation` and `test`, each of `evaluation.evaluate`.
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
            "options": self._begun["options"],
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
        if baseline:
            record["baseline"] = _training(self.baseline_callbacks, *baseline)
        record["script"] = self._begun["script"]
        record["preparation"] = _PREPARATIONS.get(self.lesson, "square")
        page = {"about": self.options.about, "command": self._begun["command"]}
        report.write(self.folder / "report.html", record, note=source.note, **page)
        write_json(self.folder / FINISHED, record)
        forget(self.folder)
        print(f"Run folder: {self.folder}")

    def _lock(self):
        """Make sure that no other process is at work in the folder; the system unlocks it."""
        try:
            import fcntl
        except ModuleNotFoundError:  # Windows
            return
        try:
            self._locked = os.open(self.folder, os.O_RDONLY)
            fcntl.flock(self._locked, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(f"{self.folder}: another process is at work on this run.") from None
        except OSError:
            pass  # a file system without locks

    def _callbacks(self, suffix):
        """The callbacks of one training, whose history and backup are named with this suffix."""
        callbacks = [_StopAtNaN(self.folder), _StopAtInterrupt()]
        paths = self.folder / f"history{suffix}.csv", self.folder / f"{BACKUP}{suffix}.npz"
        how = {"timed": not self.options.deterministic, "resume": bool(self.options.resume)}
        callbacks.insert(1, _Record(*paths, callbacks, **how))
        return callbacks


def _training(callbacks, parameters, history, results):
    """The figures of one training, for `results.json`."""
    record = next(c for c in callbacks if isinstance(c, _Record))
    return {
        "parameters": parameters,
        "epochs": len(history.epoch),
        "best_epoch": record.best_epoch,
        "fit_seconds": round(record.seconds, 1),
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


def forget(folder):
    """Take away what only `--resume` needs; a run that is finished does not need it."""
    for path in [*folder.glob(f"{BACKUP}*"), folder / BEGUN]:
        with contextlib.suppress(OSError):
            path.unlink()


def _summary(results):
    return {key: value for key, value in results.items() if key != "per_class"}


def _only(results, *keys):
    return {key: results[key] for key in keys}


class _Record(keras.callbacks.History):
    """Writes a row an epoch to a CSV file, keeps the best epoch's weights, and backs all up.

    Best is the highest validation accuracy; among equals, the lowest validation loss. Its weights
    are put back at the end. They are kept in memory and in the backup: a training that fails
    leaves no model behind that looks like a good one.

    The backup holds all that the training goes on from: weights, optimizer, random state, the
    history. It is written at the end of each epoch and, where epochs are long, within them, and is
    replaced as a whole. (Keras's `BackupAndRestore` does neither keep what other callbacks have
    counted, nor the place within an epoch; and a program that is killed while it writes leaves
    half a file.)
    """

    columns = ("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")
    # Seconds from one backup to the next, within an epoch (JAX has the weights elsewhere there).
    within = 60.0 if keras.backend.backend() == "tensorflow" else None

    def __init__(self, path, backup, callbacks, *, timed, resume):
        super().__init__()
        self.path, self.backup, self.callbacks = path, backup, callbacks
        self.timed, self._resume = timed, resume

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.history, self._rows, self._left = {}, [self.columns], None
        self._train, self._interrupted = None, False
        self.best_epoch, self._best, self._weights = 0, (-math.inf, -math.inf), None
        self.seconds = 0.0  # of the whole training, compilation and validation included
        self._began = self._epoch_began = self._saved = time.perf_counter()
        if self._resume and self.backup.exists():
            self._restore()
        self._resume = False  # once: a notebook's cell that is run again trains anew
        self._write()

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch, self._epoch_began = epoch, time.perf_counter()
        pipeline.begin_epoch(epoch)
        if self._left:
            self._go_on_within(epoch)

    def on_train_batch_end(self, batch, logs=None):
        if self.within is None or self.model.steps_per_execution > 1 or self._train:
            return
        if time.perf_counter() - self._saved > self.within:
            self._save(self._epoch, batch + 1)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        figures = {key: f"{logs[key]:.6f}" for key in self.columns[1:5]}
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        figures |= {"epoch": epoch + 1, "learning_rate": f"{rate:.6g}"}
        seconds = time.perf_counter() - self._epoch_began
        figures["seconds"] = f"{seconds:.2f}" if self.timed else ""
        self._rows.append([figures[column] for column in self.columns])
        self._write()
        reached = logs["val_accuracy"], -logs["val_loss"]
        if reached > self._best:
            self.best_epoch, self._best = epoch + 1, reached
            self._weights = self.model.get_weights()
        self._interrupted = self.model.stop_training  # by Ctrl-C: this epoch is not a whole one
        if not self._interrupted:
            self._save(epoch + 1)

    def on_train_end(self, logs=None):
        self._train_again()
        self.model._initial_epoch = None
        self.seconds += time.perf_counter() - self._began
        self._began = time.perf_counter()
        if self._weights is not None:
            self.model.set_weights(self._weights)
        if not self._interrupted:
            self._save(self.params["epochs"])
        # What Keras traced for `fit` holds memory; it traces anew where there is a need.
        self.model.train_function = self.model.test_function = None
        pipeline.return_freed_memory()

    def _write(self):
        with open(self.path, "w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(self._rows)

    def _variables(self):
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.variables, *optimizer.variables]

    def _save(self, epoch, batch=0):
        """Back up a training that goes on with this batch of this epoch."""
        variables = {"variable": self._variables()}
        if batch:  # the figures of the epoch so far
            variables["metric"] = self.model.metrics_variables
        now = time.perf_counter()
        state = {
            "epoch": epoch,
            "batch": batch,
            "history": self.history,
            "rows": self._rows,
            "best": [self.best_epoch, *self._best],
            "seconds": self.seconds + now - self._began,
            "epoch_seconds": now - self._epoch_began,
        }
        arrays = {f"best{i}": array for i, array in enumerate(self._weights or [])}
        for kind, own in variables.items():
            arrays |= {f"{kind}{i}": _to_numpy(variable) for i, variable in enumerate(own)}
        partial = self.backup.with_name(f"{self.backup.name}.part")
        with open(partial, "wb") as file:
            state = json.dumps(state, default=lambda value: np.asarray(value).tolist())
            np.savez(file, state=state, **arrays)
        partial.replace(self.backup)
        self._saved = time.perf_counter()

    def _restore(self):
        try:
            with np.load(self.backup, allow_pickle=False) as file:
                kept = dict(file)
            state = json.loads(str(kept["state"]))
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
            raise TrainingError(
                f"{self.backup} is damaged. Begin anew, without --resume."
            ) from None
        variables = self._variables()
        arrays, metrics, weights = (
            [kept[name] for name in kept if name.startswith(kind)]
            for kind in ("variable", "metric", "best")
        )
        if [v.shape for v in variables] != [array.shape for array in arrays]:
            raise TrainingError(
                f"{self.backup} is of another network or another optimizer. Begin anew, without "
                "--resume."
            )
        self.history, self._rows = state["history"], state["rows"]
        self.epoch = list(range(len(self._rows) - 1))
        self.best_epoch, *best = state["best"]
        self._best = tuple(best)
        self._weights = weights or None
        self.seconds = state["seconds"]
        self._left = state | {"metric": metrics}
        stopped = self._replay()
        _assign(variables, arrays)
        ended = stopped or state["epoch"] >= self.params["epochs"]
        self.model._initial_epoch = self.params["epochs"] if ended else state["epoch"]
        where = f"within epoch {state['epoch'] + 1}" if state["batch"] else ""
        where = where or f"after epoch {state['epoch']}"
        print("This training had ended." if ended else f"Going on {where}.")

    def _replay(self):
        """Let `EarlyStopping` count the epochs before; return whether it ends the training."""
        before, self.model.stop_training = self.model.stop_training, False
        for callback in self.callbacks:
            if not isinstance(callback, keras.callbacks.EarlyStopping):
                continue
            callback.on_train_begin()
            for epoch in self.epoch:
                logs = {key: values[epoch] for key, values in self.history.items()}
                # It cannot tell a metric's better side before the metrics are made.
                with contextlib.suppress(ValueError):
                    callback.on_epoch_end(epoch, logs)
            callback.best_weights = None  # those were not the weights of that epoch
        stopped, self.model.stop_training = self.model.stop_training, before
        return stopped

    def _go_on_within(self, epoch):
        """At the first epoch after a backup: pass over the batches that are behind."""
        state, self._left = self._left, None
        self._replay()  # once more, because `fit` has begun them anew since
        self._epoch_began -= state["epoch_seconds"] if state["batch"] else 0
        if not state["batch"]:
            return
        self._train, behind = self.model.train_function, state["batch"]

        def pass_over(iterator):
            nonlocal behind
            batch = next(iterator)
            if behind == state["batch"]:
                of_one = self.model.distribute_strategy.experimental_local_results(batch)[0]
                self.model.test_on_batch(*of_one)  # makes the metrics' variables
                _assign(self.model.metrics_variables, state["metric"])
            behind -= 1
            if not behind:
                self._train_again()
            return self.model.get_metrics_result()

        self.model.train_function = pass_over

    def _train_again(self):
        if self._train:
            self.model.train_function, self._train = self._train, None


def _to_numpy(variable):
    return keras.ops.convert_to_numpy(variable)


def _assign(variables, arrays):
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


class _StopAtNaN(keras.callbacks.Callback):
    """Ends the training at the first loss that is not a finite number.

    The run cannot be gone on with: its options would most likely lead there again.
    """

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_epoch_begin(self, epoch, logs=None):
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch, logs=None):
        if not math.isfinite(logs["loss"]):
            forget(self.folder)
            raise TrainingError(
                f"the loss is not a number any more (epoch {self._epoch}, step {batch + 1}): "
                "try a smaller --learning-rate. No model was saved, and --resume leaves this run "
                "alone."
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
