"""`--resume` and `--deterministic`, from the command line."""

import csv
import json
import os
import signal
import sys
import time

import pytest
from conftest import read_until, run_folder

from common import options

SMALL = ["--sample", "--epochs", "4", "--seed", "7"]


def begun(folder, script="train_mnist.py", finished=False, arguments=SMALL):
    """A run's folder, as it is left when the program is killed, or at its end."""
    folder.mkdir(parents=True)
    noted = {"script": script, "command": "", "options": {}, "arguments": list(arguments)}
    name = options.FINISHED if finished else options.BEGUN
    (folder / name).write_text(json.dumps(noted))
    return folder


@pytest.fixture
def parse(monkeypatch, tmp_path, capsys):
    """Parse a command line of train_mnist.py: the options, or exit status, output and errors."""
    monkeypatch.setattr(options, "answer_mistakes", lambda name: None)

    def parse(*arguments):
        command = ["train_mnist.py", "--output-dir", tmp_path, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        try:
            return options.parse("Title", epochs=10, batch_size=200, learning_rate=1e-3)
        except SystemExit as end:
            return end.code, *capsys.readouterr()

    return parse


def test_a_run_is_resumed_with_its_own_options(parse, tmp_path):
    own = parse(*SMALL, "--data-dir", ".", "--deterministic")
    assert own.resume is None
    folder = begun(tmp_path / "mnist-cnn" / "a", arguments=own.begun["arguments"])
    args = parse("--resume")
    assert (args.resume, args.epochs, args.seed, args.sample) == (folder, 4, 7, True)
    assert (args.data_dir, args.deterministic) == (own.data_dir, True)
    assert args.learning_rate == 1e-3  # the default of that day, if the script changes
    assert "learning-rate" in " ".join(own.begun["arguments"])


def test_the_newest_unfinished_run_of_the_script_is_meant(parse, tmp_path):
    place = tmp_path / "mnist-cnn"
    older, newer = begun(place / "older"), begun(place / "newer")
    os.utime(older / options.BEGUN, (1, 1))
    begun(tmp_path / "other-cnn" / "newest", script="train_other.py")
    begun(place / "finished", finished=True)
    assert parse("--resume").resume == newer
    assert parse("--resume", place).resume == newer  # of the lesson's folder
    assert parse("--resume", older).resume == older
    (newer / options.BEGUN).write_text("{")  # cut off before anything was known of it
    assert parse("--resume").resume == older


def test_a_finished_run_is_not_resumed(parse, tmp_path):
    folder = begun(tmp_path / "mnist-cnn" / "a", finished=True)
    nothing = "there is nothing to resume.\n"
    assert parse("--resume", folder) == (0, f"{folder} is finished; {nothing}", "")
    assert parse("--resume") == (0, f"no run is unfinished; {nothing}", "")


def test_where_there_is_no_run_one_begins(parse, tmp_path, capsys):
    assert parse("--resume").resume is None
    told = capsys.readouterr().out
    assert told == f"Notice: no run of train_mnist.py in {tmp_path}; this one begins.\n"


@pytest.mark.parametrize(
    "option", [["--seed", "8"], ["--epochs", "3"], ["--data-dir", "."], ["--deterministic"]]
)
def test_other_options_are_refused(parse, tmp_path, option):
    folder = begun(tmp_path / "mnist-cnn" / "a")
    status, _, told = parse("--resume", folder, *option)
    assert status == 2
    assert told == (
        f"train_mnist.py: error: argument {option[0]}: not with --resume, which takes the run's "
        "own\n"
    )


def test_what_is_no_run_of_the_script_is_refused(parse, tmp_path):
    folder = begun(tmp_path / "other-cnn" / "a", script="train_other.py")
    status, _, told = parse("--resume", folder)
    assert (status, told.split("error: ")[1]) == (
        2,
        f"argument --resume: '{folder}' holds no run of train_mnist.py\n",
    )
    status, _, told = parse("--resume", tmp_path / "gone")
    assert told.endswith(f"argument --resume: there is no folder '{tmp_path / 'gone'}'\n")


# When it is killed: the line of the console, and how many seconds after it. Two of the ten are
# tried here, all with ALL_MOMENTS=1 in the environment.
MOMENTS = [
    ("Epoch 2/", 0.4),  # within an epoch
    ("test: ", 0.0),  # after `fit`
    ("Epoch 1/", 0.0),
    ("Epoch 1/", 1.0),
    ("Epoch 2/", 0.0),  # between two
    ("Epoch 3/", 0.1),
    ("Epoch 4/", 0.6),
    ("Trained for", 0.0),
    ("The model misclassifies", 0.0),  # as the last files are written
    ("The first test image", 0.0),
]
MOMENTS = MOMENTS if os.environ.get("ALL_MOMENTS") else MOMENTS[:2]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL to send on Windows")
@pytest.mark.parametrize(("line", "seconds"), MOMENTS)
def test_a_killed_lesson_ends_with_every_file(start, lesson, tmp_path, line, seconds):
    process = start("train_mnist.py", *SMALL, "--output-dir", tmp_path)
    read_until(process, line)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    folder = run_folder(tmp_path)
    ended = not (folder / options.BEGUN).exists()  # it was quicker
    done = lesson("train_mnist.py", "--resume", "--output-dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    if ended:
        assert "nothing to resume" in done.stdout
    else:
        assert f"Run folder: {folder}, resumed" in done.stdout
    names = "examples augmented curves confusion_matrix predictions mistakes reliability"
    files = {f"{name}.png" for name in [*names.split(), "filters", "feature_maps"]}
    files |= {"history.csv", "mistakes.csv", "report.txt", "report.html"}
    assert {path.name for path in folder.iterdir()} == files | {"model.keras", "results.json"}
    with open(folder / "history.csv", newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("0123")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["epochs"], results["options"]["seed"]) == (4, 7)
    assert results["resumed"] == (not ended)


# Of a lesson that trains two models: the line, how often it was printed before, and the seconds.
MOMENTS_OF_TWO = [
    ("Epoch 2/", 1, 0.3),  # in the regularized model's second epoch
    ("Epoch 2/", 0, 0.0),  # in the plain model's
    ("Epoch 1/", 0, 0.5),
    ("Epoch 3/", 0, 0.3),
    ("Epoch 1/", 1, 0.0),
    ("Epoch 3/", 1, 0.5),
]
MOMENTS_OF_TWO = MOMENTS_OF_TWO if os.environ.get("ALL_MOMENTS") else MOMENTS_OF_TWO[:2]


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL to send on Windows")
@pytest.mark.parametrize(("line", "before", "seconds"), MOMENTS_OF_TWO)
def test_a_killed_lesson_of_two_models_ends_with_every_file(
    start, lesson, tmp_path, line, before, seconds
):
    small = ["--sample", "--epochs", "3", "--image-size", "32", "--cache", "disk"]
    process = start("train_simpsons.py", *small, "--output-dir", tmp_path)
    read_until(process, line, before)
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    folder = run_folder(tmp_path)
    trained = (folder / "trained-plain.keras").exists()
    done = lesson("train_simpsons.py", "--resume", "--output-dir", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = "classes examples augmented curves confusion_matrix predictions mistakes reliability"
    files = {f"{name}.png" for name in [*names.split(), "activation_maps", "doubtful", "groups"]}
    files |= {"history.csv", "history-plain.csv", "doubtful.csv"}
    files |= {"mistakes.csv", "report.txt", "report.html", "model.keras", "results.json"}
    assert {path.name for path in folder.iterdir()} == files
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["epochs"], results["baseline"]["epochs"]) == (3, 3)
    assert (results["baseline"]["fit_seconds"] is None) == trained  # it was not trained again
    for name in ["history.csv", "history-plain.csv"]:
        with open(folder / name, newline="") as file:
            assert [row["epoch"] for row in csv.DictReader(file)] == list("012")


def test_deterministic_runs_are_equal(lesson, tmp_path):
    command = ["train_mnist.py", "--sample", "--epochs", "2", "--deterministic", "--output-dir"]
    for name in "ab":
        done = lesson(*command, tmp_path / name)
        assert (done.returncode, done.stderr) == (0, "")
    one, other = (run_folder(tmp_path / name) for name in "ab")
    for name in ["history.csv", "mistakes.csv", "report.txt"]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
