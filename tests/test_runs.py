"""The run's folder: what it holds while a lesson trains, after a kill, and at the end."""

import csv
import json
import math
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from common import options, runs
from common.datasets import Source

EPOCHS = 4
rng = np.random.default_rng(0)
X, Y = rng.integers(0, 256, (60, 8, 8, 1), np.uint8), rng.integers(0, 3, 60)
DEVICE = SimpleNamespace(kind="cpu", name="one", count=1, precision="float32")


class Killed(Exception):
    """The end of a training that nobody was told of."""


class Kill(keras.callbacks.Callback):
    """Ends the training in the midst of an epoch, counted from 0."""

    def __init__(self, epoch):
        super().__init__()
        self.at = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == (self.at, 3):
            raise Killed


@pytest.fixture
def begin(tmp_path):
    """Begin a run, or resume one: `begin(resume=folder)`."""
    begun = []

    def begin(resume=None, script="train_cups.py"):
        args = SimpleNamespace(
            resume=resume,
            output_dir=tmp_path,
            script=script,
            command="python",
            about=("", ""),
            seed=0,
        )
        run = runs.Run(args, DEVICE, "mlp")
        begun.append(run)
        return run

    yield begin
    for run in begun:
        end(run)


def end(run):
    """What the end of its process does: the folder is free."""
    if run._lock is not None:
        os.close(run._lock)
        run._lock = None


def build(seed=0):
    keras.utils.set_random_seed(seed)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
    return model


def train(run, name="plain", model=None, more=(), **options):
    """Train as a lesson does; the model."""
    model = model or build()
    settings = {"batch_size": 10, "epochs": EPOCHS, "verbose": 0} | options
    callbacks = [*more, *run.callbacks(name)]
    model.fit(X, Y, validation_data=(X[:20], Y[:20]), callbacks=callbacks, **settings)
    return model


def killed(run, epoch):
    with pytest.raises(Killed):
        train(run, more=[Kill(epoch)])
    end(run)
    return run.folder


def epochs(folder):
    with open(folder / "plain" / "history.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


# Trainings


def test_a_training_leaves_its_best_model_and_its_history_in_its_folder(begin, tmp_path):
    run = begin()
    train(run)
    assert run.folder.parent == tmp_path / "cups-mlp"
    history = run.history("plain")
    assert {key: len(values) for key, values in history.items()} == dict.fromkeys(
        ["accuracy", "loss", "val_accuracy", "val_loss"], EPOCHS
    )
    best = keras.saving.load_model(run.path("plain", "best.keras"))
    loss = best.evaluate(X[:20], Y[:20], verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(min(history["val_loss"]), rel=1e-5)
    assert run.seconds["plain"] > 0


def test_a_cell_that_is_run_again_begins_another_training_and_deletes_nothing(begin):
    run = begin()
    train(run)
    before = {path: path.read_bytes() for path in run.folder.rglob("*.csv")}
    assert not run.is_trained("plain")
    train(run, epochs=2)
    assert len(run.history("plain")["loss"]) == 2
    assert run.path("plain", "best.keras") == run.folder / "plain-2" / "best.keras"
    assert {path: path.read_bytes() for path in before} == before


def test_what_only_looks_changes_nothing(begin):
    folder = killed(begin(), 2)
    before = sorted(folder.rglob("*"))
    run = begin(resume=folder)
    run.is_trained("plain"), run.path("plain", "best.keras"), run.history("plain")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_training_that_was_cut_off_ends_with_each_epoch_once(begin, epoch):
    folder = killed(begin(), epoch)
    run = begin(resume=folder)
    assert not run.is_trained("plain")
    model = train(run)
    assert epochs(folder) == list(range(EPOCHS))
    assert int(model.optimizer.iterations) == EPOCHS * 6
    history = run.history("plain")
    best = keras.saving.load_model(run.path("plain", "best.keras"))
    loss = best.evaluate(X[:20], Y[:20], verbose=0, return_dict=True)["loss"]
    assert loss == pytest.approx(min(history["val_loss"]), rel=1e-5)


def test_a_best_model_of_before_is_kept_where_later_epochs_are_worse(begin):
    folder = killed(begin(), 2)
    path = folder / "plain" / "history.csv"
    header, first, *others = path.read_text().splitlines()
    values = first.split(",")
    values[-1] = "0.001"  # the validation loss, lower than any to come
    path.write_text("\n".join([header, ",".join(values), *others]) + "\n")
    best = (folder / "plain" / "best.keras").read_bytes()
    train(begin(resume=folder))
    assert (folder / "plain" / "best.keras").read_bytes() == best


@pytest.mark.parametrize("damage", ["no row yet", "best model cut off"])
def test_a_kill_while_an_epoch_is_noted_loses_nothing(begin, damage):
    folder = killed(begin(), 1)
    best, history = folder / "plain" / "best.keras", folder / "plain" / "history.csv"
    if damage == "no row yet":
        history.write_text("")
    else:
        best.write_bytes(best.read_bytes()[:-500])
    run = begin(resume=folder)
    train(run)
    loss = keras.saving.load_model(best).evaluate(X[:20], Y[:20], verbose=0, return_dict=True)
    assert loss["loss"] == pytest.approx(min(run.history("plain")["val_loss"]), rel=1e-5)


def test_a_training_that_had_ended_is_loaded_and_the_next_one_begins(begin):
    run = begin()
    train(run).save(run.path("plain", "trained.keras"))
    end(run)
    run = begin(resume=run.folder)
    assert run.is_trained("plain")
    assert len(run.history("plain")["loss"]) == EPOCHS
    assert not run.is_trained("dropout")
    train(run, "dropout", epochs=1)
    assert run.path("dropout", "history.csv") == run.folder / "dropout" / "history.csv"


def test_a_trained_model_that_was_cut_off_does_not_count(begin):
    run = begin()
    path = run.path("plain", "trained.keras")
    train(run).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    end(run)
    assert not begin(resume=run.folder).is_trained("plain")


def test_a_second_process_is_kept_out_of_a_run(begin):
    run = begin()
    train(run, epochs=1)
    with pytest.raises(options.Mistake, match="another process"):
        begin(resume=run.folder)
    end(run)
    begin(resume=run.folder)


def test_what_is_no_run_to_resume_is_refused(begin, tmp_path):
    run = begin()
    train(run, epochs=1)
    end(run)
    with pytest.raises(options.Mistake, match="no training of cups-mlp"):
        begin(resume=run.folder.parent)
    with pytest.raises(options.Mistake, match="no training of mnist-mlp"):
        begin(resume=run.folder, script="train_mnist.py")
    (run.folder / "results.json").write_text("{}")
    with pytest.raises(options.Mistake, match="finished"):
        begin(resume=run.folder)


def test_half_a_backup_is_replaced_by_the_one_before(begin):
    folder = killed(begin(), 3)
    path = folder / "plain" / "backup" / "latest.weights.h5"
    path.write_bytes(path.read_bytes()[:500])
    run = begin(resume=folder)
    train(run)
    assert len(run.history("plain")["loss"]) == EPOCHS  # of a repeated epoch, the last row counts


def test_a_backup_that_cannot_be_read_is_a_sentence(begin):
    folder = killed(begin(), 3)
    for path in (folder / "plain" / "backup").glob("*.h5*"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(options.Mistake, match="without --resume"):
        train(begin(resume=folder))


def test_a_loss_that_is_not_a_number_is_a_sentence_before_it_reaches_the_backup(begin):
    run = begin()
    model = build()
    model.compile(loss=model.loss, optimizer=keras.optimizers.SGD(1e38), metrics=["accuracy"])
    with pytest.raises(options.Mistake, match="smaller --learning-rate"):
        train(run, model=model)
    assert not list(run.folder.rglob("*.keras"))
    assert not list(run.folder.rglob("*.h5"))


def test_a_validation_loss_that_is_not_a_number_is_a_sentence_too(begin):
    run = begin()
    train(run, epochs=1)
    path = run.path("plain", "history.csv")
    path.write_text("epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1,0.5,inf\n")
    with pytest.raises(options.Mistake, match=r"epoch 1"):
        run.history("plain")


def test_a_model_that_ends_in_a_softmax_is_a_sentence(begin):
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten()]
    for last in (
        [keras.layers.Dense(3, "softmax")],
        [keras.layers.Dense(3), keras.layers.Softmax()],
    ):
        model = keras.Sequential([*layers, *last])
        model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        with pytest.raises(options.Mistake, match="ends in a softmax"):
            train(begin(), model=model)


def test_epochs_without_validation_are_blank(begin):
    run = begin()
    train(run, validation_freq=2)
    losses = run.history("plain")["val_loss"]
    assert [math.isnan(loss) for loss in losses] == [True, False, True, False]
    finish(run, {"plain": build()})  # the best epoch is one of the others
    results = json.loads((run.folder / "results.json").read_text())
    assert results["best_epoch"] == np.nanargmin(losses) + 1


def test_a_folder_that_was_removed_is_a_sentence(begin):
    run = begin()
    train(run, epochs=1)
    shutil.rmtree(run.folder)
    with pytest.raises(options.Mistake, match="removed"):
        run.history("plain")


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send on Windows")
def test_ctrl_c_ends_the_training_and_a_second_one_is_as_ever(begin):
    class Press(keras.callbacks.Callback):
        def __init__(self, times):
            super().__init__()
            self.times = times

        def on_train_batch_end(self, batch, logs=None):
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
            self.times = 0

    run = begin()
    train(run, more=[Press(1)])
    assert epochs(run.folder) == [0]
    with pytest.raises(KeyboardInterrupt):
        train(run, "second", more=[Press(2)])
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# The end


def finish(run, models, **changes):
    values = {
        "source": Source("folder", Path("data")),
        "class_names": ["a", "b", "c"],
        "preparation": "square",
        "models": models,
        "scores": {
            name: {p: {"loss": 1.0, "accuracy": 0.5} for p in ("train", "validation", "test")}
            for name in models
        },
        "labels": dict.fromkeys(("train", "validation", "test"), np.array([0, 0, 1, 1])),
        "probabilities": np.array([[1, 0, 0], [0.4, 0.6, 0], [0, 1, 0], [0.1, 0.2, 0.7]]),
    }
    run.finish(**values | changes)


def test_the_end_leaves_results_mistakes_and_a_page_but_no_backup(begin):
    run = begin()
    model = train(run)
    train(run, "regularized", epochs=2)
    finish(run, {"plain": model, "regularized": build()})
    results = json.loads((run.folder / "results.json").read_text())
    assert list(results["models"]) == ["plain", "regularized"]
    assert (results["epochs"], results["models"]["plain"]["epochs"]) == (2, 4)
    assert results["fit_seconds"] is not None
    # Of class c there is no image: its F1 counts as 0, in both figures.
    assert results["test"]["macro_f1"] == pytest.approx((2 / 3 + 0.5 + 0) / 3, abs=1e-6)
    f1 = [figures["f1"] for figures in results["per_class"].values()]
    assert results["test"]["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-6)
    with open(run.folder / "mistakes.csv", newline="") as file:
        assert [row["index"] for row in csv.DictReader(file)] == ["3", "1"]
    assert not list(run.folder.rglob("backup"))
    assert (run.folder / "report.html").exists()


def test_the_page_of_a_resumed_run_tells_no_seconds(begin):
    folder = killed(begin(), 2)
    run = begin(resume=folder)
    finish(run, {"plain": train(run)})
    results = json.loads((folder / "results.json").read_text())
    assert results["resumed"] and results["fit_seconds"] is None
    assert "resumed" in (folder / "report.html").read_text()


def test_two_runs_of_the_same_second_do_not_share_a_folder(tmp_path):
    stem = tmp_path / "mnist-cnn" / "20260101-000000"
    made = [runs.make_new(stem) for _ in range(3)]
    assert [path.name for path in made] == [stem.name, f"{stem.name}-2", f"{stem.name}-3"]


def test_json_is_there_whole_or_not_at_all(tmp_path):
    runs.write_json(tmp_path / "results.json", {"accuracy": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.write_json(tmp_path / "results.json", {"accuracy": float("nan")})
    assert json.loads((tmp_path / "results.json").read_text()) == {"accuracy": 0.5}


# Stored runs

FOLDER = Source("folder", Path("data"))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Leave a finished run: `store("one", 0.9, source="sample")`; its results."""
    monkeypatch.setattr(options, "HOME", tmp_path / "home")

    def store(name, accuracy, source="folder", test=100, place=tmp_path, models=("plain",)):
        folder = place / "cups-mlp" / name
        folder.mkdir(parents=True)
        data = {"source": source, "test": test, "classes": ["a", "b"]}
        results = {"name": name, "data": data, "validation": {"accuracy": accuracy}}
        results["models"] = {model: {"test": {"accuracy": accuracy}} for model in models}
        runs.write_json(folder / "results.json", results)
        return results

    return store


def test_stored_are_runs_of_the_same_models_on_the_same_data(begin, store):
    run, kept = begin(), options.HOME / "outputs" / "reference"
    assert run.stored(["plain"], FOLDER, ["a", "b"], 100) == []
    for seed, accuracy in enumerate([0.8, 0.9]):
        store(f"seed-{seed}", accuracy, place=kept)
    store("seed-2", 0.7, place=kept, models=["plain", "dropout"])
    store("seed-3", 0.7, place=kept, test=99)
    store("seed-4", 0.7, place=kept, source="sample")
    store("20260101-000000", 0.7)
    found = run.stored({"plain": None}, FOLDER, ["a", "b"], 100)
    assert [own["plain"]["test"]["accuracy"] for own in found] == [0.8, 0.9]
