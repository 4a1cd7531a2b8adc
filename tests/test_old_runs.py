"""The run's folder of the lessons that still use `old_runs`; it goes with them."""

import argparse
import csv
import json
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import REPO, run_folder

from common import datasets, options, pipeline
from common import old_runs as runs

rng = np.random.default_rng(0)
X, Y = rng.integers(0, 256, (120, 8, 8, 1), np.uint8), rng.integers(0, 3, 120)
EPOCHS = 6


class Killed(Exception):
    """The end of a training that nobody was told of."""


class Kill(keras.callbacks.Callback):
    """Ends the training at a batch of an epoch, both counted from 0."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


def network(units=8):
    keras.utils.set_random_seed(5)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Flatten(),
            keras.layers.Dense(units),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(3),
        ]
    )
    rates = keras.optimizers.schedules.CosineDecay(0.05, 8 * EPOCHS)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer=keras.optimizers.Adam(rates), metrics=["accuracy"])
    return model


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Train in a run folder, perhaps to be killed: the run, the model, what `fit` returned."""
    monkeypatch.setattr(runs._Record, "within", 0)  # a backup after each batch
    locks = []

    def train(name, *, resume=False, kill=None, others=(), units=8):
        folder = tmp_path / name
        if not resume:
            folder.mkdir()
            (folder / options.BEGUN).write_text('{"script": "a.py", "options": {"epochs": 6}}')
        while locks:  # as the system does, when a process ends
            os.close(locks.pop())
        args = SimpleNamespace(resume=folder, deterministic=True, epochs=EPOCHS, begun={})
        run = runs.Run("a", "b", args)
        locks.append(run._locked)
        run.check_data(X, Y)
        augment = keras.layers.RandomTranslation(0.2, 0.2, dtype="uint8")
        training = pipeline.training_batches(X, Y, 16, augment, seed=3)
        model = network(units)
        run.callbacks.extend(others)
        if kill:
            run.callbacks.append(Kill(*kill))
        history = model.fit(
            training,
            validation_data=pipeline.evaluation_batches(X, Y, 16),
            epochs=EPOCHS,
            shuffle=False,
            verbose=0,
            callbacks=run.callbacks,
        )
        return run, model, history

    return train


def weights(model):
    return [*model.get_weights(), *(np.asarray(v) for v in model.optimizer.variables)]


@pytest.mark.parametrize("moment", [(0, 0), (3, 3), (5, 7)], ids=str)
def test_a_training_that_was_cut_off_ends_as_if_it_had_not_been(train, moment):
    whole, model, history = train("whole")
    with pytest.raises(Killed):
        train("cut", kill=moment)
    cut, again, gone_on = train("cut", resume=True)
    for one, other in zip(weights(model), weights(again), strict=True):
        np.testing.assert_array_equal(one, other)
    assert gone_on.history == history.history
    assert gone_on.epoch == history.epoch == list(range(EPOCHS))
    rows = [(run.folder / "history.csv").read_bytes() for run in (whole, cut)]
    assert rows[0] == rows[1]
    best = [next(c for c in run.callbacks if isinstance(c, runs._Record)) for run in (whole, cut)]
    assert best[0].best_epoch == best[1].best_epoch > 0


def test_one_that_is_cut_off_twice_does_so_too(train):
    _, model, history = train("whole")
    with pytest.raises(Killed):
        train("cut", kill=(1, 4))
    with pytest.raises(Killed):
        train("cut", resume=True, kill=(1, 6))  # two batches on
    with pytest.raises(Killed):
        train("cut", resume=True, kill=(4, 0))
    _, again, gone_on = train("cut", resume=True)
    assert gone_on.history == history.history
    for one, other in zip(weights(model), weights(again), strict=True):
        np.testing.assert_array_equal(one, other)


def test_early_stopping_goes_on_counting(train):
    def stopping():
        return keras.callbacks.EarlyStopping("accuracy", mode="min", patience=2)

    _, _, history = train("whole", others=[stopping()])
    assert len(history.epoch) < EPOCHS  # it learns, so that min has no patience for it
    with pytest.raises(Killed):
        train("cut", others=[stopping()], kill=(len(history.epoch) - 1, 2))
    _, _, gone_on = train("cut", resume=True, others=[stopping()])
    assert gone_on.history == history.history
    for _ in range(2):  # it has ended: nothing more is trained
        _, _, ended = train("cut", resume=True, others=[stopping()])
        assert ended.history == history.history


def test_a_training_that_had_ended_is_not_trained_again(train, capsys):
    run, model, history = train("whole")
    before = (run.folder / "history.csv").read_bytes()
    capsys.readouterr()
    _, again, ended = train("whole", resume=True, kill=(0, 0))
    assert "This training had ended." in capsys.readouterr().out
    assert ended.history == history.history
    assert (run.folder / "history.csv").read_bytes() == before
    for one, other in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_cell_that_is_run_again_trains_anew(train):
    run, model, history = train("whole")
    before = history.history["loss"][:2]
    again = model.fit(
        pipeline.training_batches(X, Y, 16, seed=3),
        validation_data=pipeline.evaluation_batches(X, Y, 16),
        epochs=2,
        shuffle=False,
        verbose=0,
        callbacks=run.callbacks,
    )
    assert again.epoch == [0, 1]
    assert len(again.history["loss"]) == 2
    assert again.history["loss"] != before
    rows = (run.folder / "history.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 3


def test_a_run_that_was_begun_in_another_precision_is_one_line(tmp_path):
    begun = {"script": "a.py", "options": {"epochs": 6}, "precision": "mixed_float16"}
    (tmp_path / options.BEGUN).write_text(json.dumps(begun))
    with pytest.raises(runs.TrainingError, match="was begun in mixed_float16, and this machine"):
        runs.Run("a", "b", SimpleNamespace(resume=tmp_path, deterministic=True, begun={}))


def test_a_run_that_is_still_at_work_is_left_alone(train, tmp_path):
    pytest.importorskip("fcntl")
    run, *_ = train("whole")
    with pytest.raises(runs.TrainingError, match="another process is at work on this run"):
        runs.Run("a", "b", SimpleNamespace(resume=run.folder, deterministic=True, begun={}))


def test_a_damaged_backup_is_one_line(train):
    with pytest.raises(Killed):
        train("cut", kill=(2, 0))
    backup = next(train("whole")[0].folder.with_name("cut").glob("backup.npz"))
    backup.write_bytes(backup.read_bytes()[:500])
    with pytest.raises(runs.TrainingError, match=r"backup\.npz is damaged"):
        train("cut", resume=True)


def test_half_a_backup_is_none(train):
    with pytest.raises(Killed):
        train("cut", kill=(2, 0))
    folder = train("whole")[0].folder.with_name("cut")
    backup = folder / "backup.npz"
    (folder / "backup.npz.part").write_bytes(backup.read_bytes()[:100])
    _, _, gone_on = train("cut", resume=True)
    assert len(gone_on.epoch) == EPOCHS
    runs.forget(folder)
    assert [path.name for path in folder.iterdir()] == ["history.csv"]


def test_other_data_and_another_network_are_refused(train, monkeypatch):
    with pytest.raises(Killed):
        train("cut", kill=(2, 0))
    with pytest.raises(runs.TrainingError, match="is of another network"):
        train("cut", resume=True, units=9)
    monkeypatch.setitem(globals(), "X", 255 - X)
    with pytest.raises(runs.TrainingError, match="the data are not those that"):
        train("cut", resume=True)


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL to send on Windows")
def test_a_killed_lesson_ends_with_every_file(offline, lesson, tmp_path):
    command = ["train_fashion.py", "--sample", "--epochs", "3", "--output-dir", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, *command, "--deterministic"],
        cwd=REPO,
        env=offline,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    fits = 0
    for line in process.stdout:
        fits += line.startswith("Epoch 1/")
        if fits == 2 and line.startswith("Epoch 2/"):
            process.send_signal(signal.SIGKILL)
            break
    process.communicate(timeout=60)
    folder = run_folder(tmp_path)
    assert not (folder / "results.json").exists()
    done = lesson("train_fashion.py", "--resume", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "This training had ended." in done.stdout  # of the plain network
    assert "Going on after epoch" in done.stdout
    assert run_folder(tmp_path) == folder
    left = {path.name for path in folder.iterdir()}
    assert {"results.json", "model.keras", "mistakes.png", "report.txt"} <= left
    assert not any(name.startswith(("backup", "begun")) for name in left)
    done = lesson(*command[:-1], tmp_path / "whole", "--deterministic")
    whole = run_folder(tmp_path / "whole")
    for name in ["history.csv", "history-baseline.csv", "report.txt"]:
        assert (whole / name).read_bytes() == (folder / name).read_bytes(), name
    with open(folder / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("123")


# What one run finds of others


SAMPLE = datasets.Source("sample", "somewhere")
WHOLE = datasets.Source("folder", "elsewhere")


def write_run(place, accuracy, source="sample", count=1000):
    place.mkdir(parents=True)
    results = {"data": {"source": source, "test": count}, "test": {"accuracy": accuracy}}
    (place / "results.json").write_text(json.dumps(results), encoding="utf-8")


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An output folder, and a repository that keeps no runs."""
    monkeypatch.setattr(runs, "HOME", tmp_path / "home")
    return argparse.Namespace(output_dir=tmp_path / "outputs")


def found(place, source=SAMPLE, count=1000):
    results, folder = runs.earlier("cifar10", "mlp", place, source, count)
    return (results["test"]["accuracy"], folder.name) if results else (None, folder)


def test_the_newest_finished_run_on_the_same_data_is_found(place):
    runs_of_mlp = place.output_dir / "cifar10-mlp"
    assert found(place) == (None, None)
    write_run(runs_of_mlp / "20260101-000000", 0.1)
    write_run(runs_of_mlp / "20260102-000000", 0.2)
    assert found(place) == (0.2, "20260102-000000")
    write_run(runs_of_mlp / "20260103-000000", 0.3, source="folder")
    write_run(runs_of_mlp / "20260104-000000", 0.4, count=999)
    (runs_of_mlp / "20260105-000000").mkdir()  # of a run that did not end well
    write_run(runs_of_mlp / "20260106-000000", None)
    (runs_of_mlp / "20260106-000000" / "results.json").write_text("{", encoding="utf-8")
    assert found(place) == (0.2, "20260102-000000")
    assert found(place, source=WHOLE) == (0.3, "20260103-000000")


def test_without_one_of_his_own_a_reader_gets_that_of_the_repository(place, tmp_path):
    write_run(tmp_path / "home" / "outputs" / "reference" / "cifar10-mlp" / "seed-0", 0.6)
    assert found(place) == (0.6, "seed-0")
    write_run(place.output_dir / "cifar10-mlp" / "20260101-000000", 0.5)
    assert found(place) == (0.5, "20260101-000000")
