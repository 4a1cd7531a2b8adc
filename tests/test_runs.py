"""The run's folder: what it holds while a lesson trains, and what is made of it after a kill."""

import csv
import json
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


class Killed(Exception):
    """The end of a training that nobody was told of."""


class Kill(keras.callbacks.Callback):
    """Ends the training at the beginning of an epoch, counted from 0, or in its midst."""

    def __init__(self, epoch, batch=None):
        super().__init__()
        self.at = epoch, batch

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        if (epoch, None) == self.at:
            raise Killed

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            raise Killed


def arguments(folder, resume=False):
    begun = {"script": "train_cups.py", "command": "", "options": {}, "arguments": []}
    return SimpleNamespace(resume=folder if resume else None, output_dir=folder, begun=begun)


@pytest.fixture
def train(tmp_path):
    """Train as a lesson does: the run, and the optimizer's steps; perhaps to be killed."""

    def train(resume=None, kill=()):
        run = runs.Run(arguments(resume or tmp_path, bool(resume)), None, "mlp")
        keras.utils.set_random_seed(0)
        layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(3)]
        model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
        callbacks = [
            keras.callbacks.ModelCheckpoint(
                run.folder / "best.keras",
                monitor="val_accuracy",
                save_best_only=True,
                initial_value_threshold=run.best("val_accuracy"),
            ),
            keras.callbacks.CSVLogger(run.folder / "history.csv", append=True),
            keras.callbacks.TerminateOnNaN(),
            runs.StopAtCtrlC(),
            *([Kill(*kill)] if kill else []),
            keras.callbacks.BackupAndRestore(
                run.folder / "backup", double_checkpoint=True, delete_checkpoint=False
            ),
        ]
        data = {"x": X, "y": Y, "validation_data": (X[:20], Y[:20])}
        model.fit(**data, batch_size=10, epochs=EPOCHS, callbacks=callbacks, verbose=0)
        return run, int(model.optimizer.iterations)

    return train


def killed(train, tmp_path, *moment):
    with pytest.raises(Killed):
        train(kill=moment)
    (folder,) = (path.parent for path in tmp_path.rglob(options.BEGUN))
    return folder


def epochs(folder):
    with open(folder / "history.csv", newline="") as file:
        return [int(row["epoch"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize("moment", [(0, 2), (1,), (2, 3), (3, 5)], ids=str)
def test_a_training_that_was_cut_off_ends_with_each_epoch_once(train, tmp_path, moment):
    folder = killed(train, tmp_path, *moment)
    run, steps = train(resume=folder)
    history = run.history()
    assert epochs(folder) == list(range(EPOCHS))
    assert {key: len(values) for key, values in history.items()} == dict.fromkeys(
        ["accuracy", "loss", "val_accuracy", "val_loss"], EPOCHS
    )
    assert steps == EPOCHS * 6
    best = keras.saving.load_model(folder / "best.keras")
    reached = best.evaluate(X[:20], Y[:20], verbose=0, return_dict=True)["accuracy"]
    assert reached == pytest.approx(max(history["val_accuracy"]))


def test_a_training_that_had_ended_is_not_trained_again(train, tmp_path):
    run, _ = train()
    before = run.history(), (run.folder / "best.keras").read_bytes()
    again, steps = train(resume=run.folder)
    assert steps == EPOCHS * 6
    assert (again.history(), (run.folder / "best.keras").read_bytes()) == before


def test_of_an_epoch_that_was_trained_twice_the_last_row_counts(train):
    run, _ = train()
    path = run.folder / "history.csv"
    lines = path.read_text().splitlines()
    repeated = lines[3].split(",")
    repeated[1] = "0.987"
    path.write_text("\n".join([*lines[:4], ",".join(repeated), *lines[4:], "4,0.5"]) + "\n")
    assert run.history()["accuracy"][2] == 0.987
    assert epochs(run.folder) == list(range(EPOCHS))


def test_a_loss_that_is_not_a_number_is_one_line_and_leaves_no_model(train):
    run, _ = train()
    path = run.folder / "history.csv"
    path.write_text("epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1,0.5,1\n1,0.1,nan,0.1,nan\n")
    with pytest.raises(options.Mistake, match=r"not a number any more \(epoch 2\): try a smaller"):
        run.history()
    assert [path.name for path in run.folder.iterdir()] == ["history.csv"]


def test_a_validation_loss_that_is_not_a_number_is_one_line_too(train):
    run, _ = train()
    path = run.folder / "history.csv"
    path.write_text("epoch,accuracy,loss,val_accuracy,val_loss\n0,0.5,1,0.5,inf\n")
    with pytest.raises(options.Mistake, match=r"not a number any more \(epoch 1\)"):
        run.history()


def test_a_cell_that_is_run_again_trains_anew(train):
    run, _ = train()
    assert run.best("val_accuracy") is None  # as the list of callbacks is made anew
    left = {path.name for path in run.folder.iterdir()}
    assert left == {options.BEGUN}


def test_a_best_model_that_was_cut_off_is_none(train):
    run, _ = train()
    run.args.resume = run.folder
    assert run.best("val_loss") == min(run.history()["val_loss"])
    assert run.best("val_accuracy") == max(run.history()["val_accuracy"])
    path = run.folder / "best.keras"
    path.write_bytes(path.read_bytes()[:-500])
    assert run.best("val_accuracy") is None


@pytest.mark.parametrize("name", ["latest.weights.h5", "training_metadata.json"])
def test_half_a_backup_is_replaced_by_the_one_before(train, tmp_path, name):
    folder = killed(train, tmp_path, 3)
    path = folder / "backup" / name
    path.write_bytes(path.read_bytes()[:-5] if name.endswith("json") else b"")
    run, _ = train(resume=folder)
    run.history()
    assert epochs(folder) == list(range(EPOCHS))


def test_a_first_backup_that_was_cut_off_is_begun_again(train, tmp_path):
    folder = killed(train, tmp_path, 1)
    (folder / "backup" / "training_metadata.json").unlink()
    run, steps = train(resume=folder)
    assert (len(run.history()["loss"]), steps) == (EPOCHS, EPOCHS * 6)


def test_a_damaged_backup_is_one_line(train, tmp_path):
    folder = killed(train, tmp_path, 3)
    for path in (folder / "backup").glob("latest*"):
        path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(options.Mistake, match=r"backup is damaged. Begin a new run, without --re"):
        train(resume=folder)


def test_a_run_that_another_process_has_finished_is_left_alone(train):
    run, _ = train()
    (run.folder / options.BEGUN).unlink()
    with pytest.raises(options.Mistake, match="has been finished by another process"):
        train(resume=run.folder)


def test_a_folder_is_named_after_the_script(train, tmp_path):
    run, _ = train()
    assert run.folder.parent == tmp_path / "cups-mlp"
    assert json.loads((run.folder / options.BEGUN).read_text())["script"] == "train_cups.py"


def test_two_runs_of_the_same_second_do_not_share_a_folder(tmp_path):
    stem = tmp_path / "mnist-cnn" / "20260101-000000"
    made = [runs.make_new(stem) for _ in range(3)]
    assert [path.name for path in made] == [stem.name, f"{stem.name}-2", f"{stem.name}-3"]


def test_json_is_there_whole_or_not_at_all(tmp_path):
    runs.write_json(tmp_path / "results.json", {"accuracy": 0.5})
    with pytest.raises(ValueError, match="not JSON compliant"):
        runs.write_json(tmp_path / "results.json", {"accuracy": float("nan")})
    assert json.loads((tmp_path / "results.json").read_text()) == {"accuracy": 0.5}
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]


# What is kept of several models


@pytest.fixture
def trained(tmp_path):
    """A run with what two trained models have left: the run, and the names of these files."""
    run = runs.Run(arguments(tmp_path), None, "cnn")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for suffix in ("", "-plain"):
        for kind in ("best", "trained"):
            model.save(run.folder / f"{kind}{suffix}.keras")
        (run.folder / f"history{suffix}.csv").write_text("epoch,val_accuracy\n0,0.5\n1,0.4\n")
        (run.folder / f"backup{suffix}").mkdir()
    return run


def names(run):
    return sorted(path.name for path in run.folder.iterdir())


OF_THE_FIRST = ["backup", "best.keras", "history.csv", "trained.keras"]


def test_a_model_of_a_run_that_is_not_resumed_is_not_trained_and_its_files_go(trained):
    before = names(trained)
    assert not trained.is_trained("-plain")
    assert names(trained) == sorted([options.BEGUN, *OF_THE_FIRST])
    assert len(before) == 1 + 2 * len(OF_THE_FIRST)


def test_a_model_of_a_resumed_run_is_trained_where_its_file_is_whole(trained):
    resumed = runs.Run(arguments(trained.folder, resume=True), None, "cnn")
    before = names(resumed)
    assert resumed.is_trained("-plain")
    assert resumed.is_trained()
    assert resumed.best("val_accuracy", "-plain") == 0.5
    assert resumed.history("-plain") == {"val_accuracy": [0.5, 0.4]}
    path = resumed.folder / "trained-plain.keras"
    path.write_bytes(path.read_bytes()[:-500])
    assert not resumed.is_trained("-plain")
    path.unlink()
    assert not resumed.is_trained("-plain")
    gone = {path.name, "backup-plain", "history-plain.csv"}  # without a backup, it begins anew
    assert names(resumed) == [name for name in before if name not in gone]


# The best run of another model


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run of the cnn, on a machine whose repository keeps no run."""
    monkeypatch.setattr(options, "HOME", tmp_path / "home")
    return runs.Run(arguments(tmp_path / "outputs"), None, "cnn")


@pytest.fixture
def finished(run):
    """Leave a finished run of the mlp: `finished("one", 0.9, source="sample")`; its results."""

    def finished(name, accuracy, source="folder", test=100, place=None):
        folder = (place or run.args.output_dir) / "cups-mlp" / name
        folder.mkdir(parents=True)
        results = {
            "name": name,
            "data": {"source": source, "test": test, "classes": ["a", "b"]},
            "validation": {"accuracy": accuracy},
        }
        runs.write_json(folder / options.FINISHED, results)
        return results

    return finished


FOLDER, SAMPLE = Source("folder", Path("data")), Source("sample", Path("data/sample"))


def test_of_several_runs_the_best_on_the_validation_set_is_compared(run, finished):
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) is None
    finished("20260101-000000", 0.81)
    best = finished("20260102-000000", 0.88)
    finished("20260103-000000", 0.42)  # one epoch, to have a look
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) == best
    assert run.best_of("cnn", FOLDER, ["a", "b"], 100) is None


def test_a_better_run_that_the_repository_keeps_is_compared(run, finished):
    finished("20260101-000000", 0.81)
    kept = finished("seed-0", 0.88, place=options.HOME / "outputs" / "reference")
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) == kept
    better = finished("20260102-000000", 0.89)
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) == better


def test_only_runs_on_the_same_data_are_compared(run, finished):
    sample = finished("sample", 0.7, source="sample")
    whole = finished("whole", 0.9, source="download")  # the same as in a folder
    finished("other count", 0.95, test=99)
    assert run.best_of("mlp", SAMPLE, ["a", "b"], 100) == sample
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) == whole
    assert run.best_of("mlp", FOLDER, ["a", "b"], 101) is None
    assert run.best_of("mlp", FOLDER, ["a", "c"], 100) is None


@pytest.mark.parametrize(
    "content",
    [
        *["", "[]", "null", "{}", '{"data": null}', '{"data": {"source": "folder"', b"\xff\xfe"],
        '{"data": {"source": "folder", "test": 100, "classes": ["a", "b"]},'
        ' "validation": {"accuracy": "0.99"}}',
    ],
)
def test_damaged_results_are_passed_over(run, finished, content):
    finished("damaged", 0.99)
    path = run.args.output_dir / "cups-mlp" / "damaged" / options.FINISHED
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) is None
    whole = finished("whole", 0.5)
    assert run.best_of("mlp", FOLDER, ["a", "b"], 100) == whole
