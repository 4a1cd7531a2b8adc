"""`--resume` and `--deterministic`: a training that was cut off ends as if it had not been."""

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

from common import options, pipeline, runs

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
        args = SimpleNamespace(resume=folder, deterministic=True, epochs=EPOCHS)
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
        runs.Run("a", "b", SimpleNamespace(resume=tmp_path, deterministic=True))


def test_a_run_that_is_still_at_work_is_left_alone(train, tmp_path):
    pytest.importorskip("fcntl")
    run, *_ = train("whole")
    with pytest.raises(runs.TrainingError, match="another process is at work on this run"):
        runs.Run("a", "b", SimpleNamespace(resume=run.folder, deterministic=True))


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


# From the command line


def begun(folder, script="train_mnist.py", finished=False, **changed):
    """A run's folder, as it is left when the program is killed."""
    folder.mkdir(parents=True)
    own = {"epochs": 2, "batch_size": 200, "learning_rate": 0.003, "seed": 7, "sample": True}
    own |= {"data_dir": str(REPO / "data"), "output_dir": str(folder.parent.parent)}
    own |= {"precision": "auto", "deterministic": False, "show": False} | changed
    name = options.FINISHED if finished else options.BEGUN
    (folder / name).write_text(json.dumps({"script": script, "command": "", "options": own}))
    return folder


def test_a_run_is_gone_on_with_by_its_own_options(lesson, tmp_path):
    begun(tmp_path / "mnist-cnn" / "older", epochs=9)
    folder = begun(tmp_path / "mnist-cnn" / "newer")
    os.utime(tmp_path / "mnist-cnn" / "older" / options.BEGUN, (1, 1))
    begun(tmp_path / "other-cnn" / "newest", script="train_other.py")
    done = lesson("train_mnist.py", "--resume", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"Run folder: {folder}, gone on with" in done.stdout
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["options"]["seed"], results["epochs"]) == (7, 2)
    assert results["script"] == "train_mnist.py"
    left = {path.name for path in folder.iterdir()}
    assert not any(name.startswith(("backup", "begun")) for name in left)
    for place in [[], [folder], [folder.parent]]:  # of the lesson's folder, the newest
        done = lesson("train_mnist.py", "--resume", *place, "--output-dir", tmp_path)
        assert done.returncode == 0
        assert done.stdout == (
            f"{folder} is finished; there is nothing to go on with.\n"
            f"Another one is not: --resume {folder.with_name('older')} goes on with it.\n"
        )
    done = lesson("train_mnist.py", "--resume", folder, "--seed", "8")  # not the run asked for
    assert done.returncode == 2
    assert done.stderr.startswith("train_mnist.py: error: argument --seed: 8 here, 7 in ")


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--seed", "8"], "argument --seed: 8 here, 7 in "),
        (["--epochs", "3"], "argument --epochs: 3 here, 2 in "),
        (["--data-dir", "."], "argument --data-dir: "),
        (["--deterministic"], "argument --deterministic: True here, False in "),
    ],
    ids=str,
)
def test_other_options_than_the_runs_own_are_refused(lesson, tmp_path, arguments, answer):
    folder = begun(tmp_path / "mnist-cnn" / "a")
    done = lesson("train_mnist.py", "--resume", folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"train_mnist.py: error: {answer}")
    assert done.stderr.count("\n") == 1


def test_what_is_no_run_of_the_lesson_is_refused(lesson, tmp_path):
    folder = begun(tmp_path / "mnist-cnn" / "a")
    for script, place in [("train_fashion.py", folder), ("train_mnist.py", tmp_path)]:
        done = lesson(script, "--resume", place)
        assert done.returncode == 2
        assert done.stderr.endswith(f"'{place}' holds no run of {script}\n")
    done = lesson("train_mnist.py", "--resume", tmp_path / "gone")
    assert done.returncode == 2
    assert done.stderr.endswith(f"there is no folder '{tmp_path / 'gone'}'\n")


def test_the_newest_run_of_the_model_is_meant(tmp_path):
    newer = begun(tmp_path / "a-mlp" / "1", script="a.py", model="mlp")
    older = begun(tmp_path / "a-cnn" / "1", script="a.py", model="cnn")
    os.utime(older / options.BEGUN, (1, 1))
    assert options._newest_run(tmp_path, "a.py", None, "*/*") == newer
    assert options._newest_run(tmp_path, "a.py", "cnn", "*/*") == older
    assert options._newest_run(tmp_path, "b.py", None, "*/*") is None
    (newer / options.BEGUN).write_text("{")  # cut off before anything was known of it
    assert options._newest_run(tmp_path, "a.py", None, "*/*") == older


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
