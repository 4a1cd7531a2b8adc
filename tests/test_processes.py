"""A lesson as a process: killed and resumed, interrupted, on a full disk, with wrong data."""

import csv
import json
import os
import signal

import pytest
from conftest import read_until, run_folder
from lessons import LESSONS

MNIST = LESSONS[0].command[0]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="no such signals on Windows")


@pytest.mark.parametrize("training", [1, 2])
def test_a_killed_lesson_is_resumed_and_ends_with_every_file(start, lesson, tmp_path, training):
    command = [MNIST, "--sample", "--epochs", "5", "--seed", "7", "--output-dir", tmp_path]
    process = start(*command)
    for _ in range(training):
        read_until(process, "Epoch 3/")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    folder = run_folder(tmp_path)
    done = lesson(*command, "--resume", folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert run_folder(tmp_path) == folder
    assert {path.name for path in folder.iterdir()} == LESSONS[0].files
    assert done.stdout.count("Epoch 1/") == 2 - training  # what was trained before is not again
    for name in LESSONS[0].trainings:
        with open(folder / name / "history.csv", newline="") as file:
            assert sorted({row["epoch"] for row in csv.DictReader(file)}) == list("01234")
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert (results["epochs"], results["resumed"]) == (5, True)
    again = lesson(*command, "--resume", folder)
    assert again.returncode == 1
    assert "finished" in again.stderr


def test_ctrl_c_ends_the_training_and_the_lesson_goes_on(start, tmp_path):
    process = start(MNIST, "--sample", "--epochs", 2000, "--output-dir", tmp_path)
    output = ""
    for _ in range(2):  # of the first model, then of the final one
        output += read_until(process, "Epoch 2/")
        process.send_signal(signal.SIGINT)
    more, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    assert (output + more).count("Ctrl-C in epoch") == 2
    folder = run_folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == LESSONS[0].files
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["epochs"] < 2000


def test_a_disk_that_takes_no_more_is_one_line(lesson, tmp_path):
    import resource

    def small_files():  # what a full disk answers, a limit on the size of files does too
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    command = [MNIST, "--sample", "--epochs", 1, "--output-dir", tmp_path]
    done = lesson(*command, preexec_fn=small_files)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{MNIST}: error: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (run_folder(tmp_path) / "results.json").exists()


def test_bad_data_are_one_line_and_leave_no_folder(lesson, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(b"PK no archive")
    outputs = tmp_path / "outputs"
    done = lesson(MNIST, "--data-dir", tmp_path, "--output-dir", outputs)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.startswith(f"{MNIST}: error: {tmp_path / 'mnist.npz'}: ")
    assert list(outputs.glob("*/*")) == []


def test_deterministic_runs_are_equal(lesson, tmp_path):
    command = [MNIST, "--sample", "--epochs", "2", "--deterministic", "--output-dir"]
    for name in "ab":
        done = lesson(*command, tmp_path / name)
        assert (done.returncode, done.stderr) == (0, "")
    one, other = (run_folder(tmp_path / name) for name in "ab")
    for name in ["first/history.csv", "final/history.csv", "mistakes.csv", "report.txt"]:
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
