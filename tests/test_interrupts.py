"""What ends a lesson early: Ctrl-C, a signal, a loss that is not a number, a full disk."""

import json
import os
import signal
import time

import pytest
from conftest import read_until, run_folder
from test_lessons import LESSONS, MNIST


def test_a_loss_that_is_not_a_number_ends_the_run_without_a_model(lesson, tmp_path):
    done = lesson(MNIST, "--sample", "--learning-rate", "1e30", "--output-dir", tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{MNIST}: error: the loss is not a number any more (epoch 1")
    assert "try a smaller --learning-rate" in done.stderr
    assert done.stderr.count("\n") == 1
    left = {path.name for path in run_folder(tmp_path).iterdir()}
    assert not left & {"model.keras", "results.json"}
    assert not left & {"begun.json"}  # `--resume` would only lead there again


@pytest.mark.skipif(os.name == "nt", reason="no RLIMIT_FSIZE on Windows")
def test_a_disk_that_takes_no_more_is_one_line(lesson, tmp_path):
    import resource

    def small_files():  # what a full disk answers, a limit on the size of files does too
        resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))

    done = lesson(
        MNIST, "--sample", "--epochs", 1, "--output-dir", tmp_path, preexec_fn=small_files
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{MNIST}: error: ")
    assert "File too large" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (run_folder(tmp_path) / "results.json").exists()


# Ctrl-C


@pytest.fixture
def started(start, tmp_path):
    """MNIST's lesson, in its second epoch."""
    process = start(MNIST, "--sample", "--epochs", 200, "--output-dir", tmp_path)
    read_until(process, "Epoch 2/")
    return process


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send on Windows")
def test_ctrl_c_ends_the_training_and_the_lesson_goes_on(started, tmp_path):
    started.send_signal(signal.SIGINT)
    output, errors = started.communicate(timeout=120)
    assert started.returncode == 0
    assert errors == ""
    assert "Ctrl-C in epoch 2: training ends here" in output
    folder = run_folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == LESSONS[0].files
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["epochs"] in (2, 3)
    assert results["options"]["epochs"] == 200


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send on Windows")
def test_a_second_ctrl_c_ends_the_program(started, tmp_path):
    started.send_signal(signal.SIGINT)
    read_until(started, "Ctrl-C")
    started.send_signal(signal.SIGINT)
    _, errors = started.communicate(timeout=60)
    assert started.returncode == 130
    assert errors == ""
    assert not (run_folder(tmp_path) / "results.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to send on Windows")
def test_a_terminated_lesson_takes_its_temporary_files_away(start, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    places = ["--data-dir", tmp_path / "data", "--output-dir", tmp_path / "outputs"]
    small = ["--sample", "--cache", "disk", "--image-size", 32]
    process = start("train_simpsons.py", *small, *places, env={"TMPDIR": str(temporary)})
    read_until(process, "Epoch 2/")
    cache = run_folder(tmp_path / "outputs")
    assert len(list(temporary.glob("lesson-images-*"))) == 1
    parts = {path.name.split(".")[0] for path in cache.glob("cache-*")}
    assert parts == {"cache-train", "cache-validation", "cache-test", "cache-published test"}
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143
    assert errors == ""
    assert list(temporary.glob("lesson-images-*")) == []
    assert list(cache.glob("cache-*")) == []


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send on Windows")
def test_ctrl_c_ends_each_of_two_trainings(start, tmp_path):
    small = ["--sample", "--image-size", 32, "--epochs", 200]
    process = start("train_simpsons.py", *small, "--output-dir", tmp_path)
    read_until(process, "Epoch 2/")
    process.send_signal(signal.SIGINT)
    assert "Ctrl-C in epoch 2" in read_until(process, "Epoch 3/")  # of the regularized model
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0
    assert errors == ""
    assert "Ctrl-C in epoch 3" in output
    results = json.loads((run_folder(tmp_path) / "results.json").read_text(encoding="utf-8"))
    assert results["baseline"]["epochs"] in (2, 3)
    assert results["epochs"] in (3, 4)


@pytest.mark.skipif(os.name == "nt", reason="no SIGINT to send on Windows")
def test_ctrl_c_before_the_training_ends_the_program(start, tmp_path):
    process = start(MNIST, "--sample", "--output-dir", tmp_path)
    time.sleep(1.5)  # TensorFlow is being imported
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == ""
    assert output.endswith("Interrupted.\n")
