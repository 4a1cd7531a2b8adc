"""Keras on JAX: lessons on one device, on several, and in several processes of this machine."""

import csv
import json
import os
import signal
import socket

import keras
import numpy as np
import pytest
from conftest import read_until, run_folder
from test_lessons import LESSONS

from common import backups, options

pytest.importorskip("jax")
JAX = {"KERAS_BACKEND": "jax"}
MNIST, SIMPSONS = LESSONS[0], LESSONS[-1]
SMALL = ["--sample", "--epochs", "3"]


# One device


def test_mnist_learns_on_jax_what_it_learns_on_tensorflow(lesson, tmp_path):
    done = lesson(MNIST.script, "--sample", "--epochs", 6, "--output-dir", tmp_path, env=JAX)
    assert (done.returncode, done.stderr) == (0, "")
    import jax

    assert done.stdout.splitlines()[0].endswith(f"backend jax {jax.__version__}")
    folder = run_folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == MNIST.files
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["test"]["accuracy"] >= MNIST.floor
    assert list(results["versions"]) == ["python", "tensorflow", "keras", "numpy", "jax"]
    assert results["device"]["precision"] == "float32"


def test_the_simpsons_run_on_jax(lesson, tmp_path):
    command = [SIMPSONS.script, "--sample", "--epochs", 2, "--image-size", 48]
    done = lesson(*command, "--output-dir", tmp_path, env=JAX)
    assert (done.returncode, done.stderr) == (0, "")
    folder = run_folder(tmp_path)
    assert {path.name for path in folder.iterdir()} == SIMPSONS.files
    history = list(csv.DictReader((folder / "history-plain.csv").read_text().splitlines()))
    assert float(history[-1]["loss"]) < float(history[0]["loss"])


@pytest.mark.skipif(os.name == "nt", reason="no SIGTERM to send on Windows")
def test_a_signal_ends_it_although_keras_waits_for_jax_in_a_bare_except(start, tmp_path):
    process = start(MNIST.script, "--sample", "--epochs", 500, "--output-dir", tmp_path, env=JAX)
    read_until(process, "Epoch 2/")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_several_devices_are_refused_on_tensorflow(lesson, tmp_path):
    for arguments, env in [
        (["--devices", "all"], {}),
        ([], {"KERAS_DISTRIBUTION_NUM_PROCESSES": "2"}),
    ]:
        done = lesson(MNIST.script, *arguments, "--output-dir", tmp_path, env=env)
        assert done.returncode == 1
        told = "several devices need JAX: pip install jax, and set KERAS_BACKEND=jax."
        assert done.stderr == f"train_mnist.py: error: {told}\n"


# Several devices: here of the CPU, each with threads of its own

STEPS = """
import keras
import numpy as np
import tensorflow as tf
from common import distribution

random = np.random.default_rng(0)
x = random.integers(0, 256, (320, 12, 12, 1), dtype="uint8")
y = random.integers(0, 10, 320)


def train(count, last=16):
    devices = keras.distribution.list_devices()[:count]
    keras.distribution.set_distribution(distribution.EqualShares(devices=devices))
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((12, 12, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(8, 3, use_bias=False),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, optimizer=keras.optimizers.SGD(0.1), metrics=["accuracy"])
    images = 304 + last
    data = tf.data.Dataset.from_tensor_slices((x[:images], y[:images])).batch(16)
    model.fit(data, validation_data=data, verbose=0)  # 20 steps
    return np.concatenate([weight.ravel() for weight in model.get_weights()])


one = train(1)
for count in (2, 4):
    print(np.linalg.norm(train(count) - one) / np.linalg.norm(one))
for last in range(1, 16):
    print(np.isfinite(train(4, last)).all())
"""


def test_several_devices_learn_what_one_learns_and_stay_finite_at_every_last_batch(lesson):
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    done = lesson("-c", STEPS, env=JAX | four)
    assert done.returncode == 0, done.stderr
    two, four, *finite = done.stdout.split()
    assert float(two) < 1e-3
    assert float(four) < 1e-3
    assert finite == ["True"] * 15


def test_a_lesson_divides_its_batches_among_the_devices_of_a_machine(lesson, tmp_path):
    four = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    command = [MNIST.script, *SMALL, "--devices", "all", "--output-dir", tmp_path]
    done = lesson(*command, env=JAX | four)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Each batch is divided among 4 devices.\n")
    results = json.loads((run_folder(tmp_path) / "results.json").read_text(encoding="utf-8"))
    assert results["test"]["accuracy"] >= 0.9  # 93.7% and 94.3% in two runs


# Several processes


@pytest.fixture
def start_two(start, tmp_path):
    """Start a command in two processes: `start_two([command, …], more=["--seed", "1"])`."""

    def start_two(command, more=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        both = []
        for i in range(2):
            env = {"JOB_ADDRESSES": place, "NUM_PROCESSES": "2", "PROCESS_ID": str(i)}
            env = JAX | {f"KERAS_DISTRIBUTION_{key}": value for key, value in env.items()}
            own = [*command, *(more if i else ()), "--output-dir", tmp_path / str(i)]
            both.append(start(*own, env=env))
        return both

    return start_two


def assert_equal_weights(folders):
    models = [keras.saving.load_model(folder / "model.keras") for folder in folders]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_processes_train_one_model(start_two, tmp_path):
    for i, process in enumerate(start_two([MNIST.script, *SMALL])):
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0
        told = f"Each batch is divided among 2 devices of 2 processes; this is process {i}.\n"
        assert told in output
    folders = [run_folder(tmp_path / name) for name in "01"]
    assert_equal_weights(folders)
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == MNIST.files
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        assert results["test"]["accuracy"] >= 0.9


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL to send on Windows")
def test_one_that_is_killed_ends_the_other_and_both_are_resumed(start_two, tmp_path):
    small = [SIMPSONS.script, "--sample", "--epochs", "2", "--image-size", "32"]
    processes = start_two(small)
    read_until(processes[1], "Epoch 2/")  # of the plain model
    processes[1].send_signal(signal.SIGKILL)
    _, errors = processes[0].communicate(timeout=120)
    assert processes[0].returncode not in (0, None)
    assert "another process has failed" in errors or "another task died" in errors  # ours; JAX's
    folders = [run_folder(tmp_path / name) for name in "01"]
    (tmp_path / "0" / "simpsons-cnn").rename(tmp_path / "both")  # on a disk that they share
    folders[1].rename(tmp_path / "both" / f"{folders[1].name}-2")
    folders = [tmp_path / "both" / folders[0].name, tmp_path / "both" / f"{folders[1].name}-2"]
    for process in start_two([SIMPSONS.script, "--resume", tmp_path / "both"]):
        output, _ = process.communicate(timeout=200)
        assert process.returncode == 0
        assert ", resumed" in output
    assert_equal_weights(folders)
    for folder in folders:
        for name in ["history.csv", "history-plain.csv"]:
            with open(folder / name, newline="") as file:
                assert [row["epoch"] for row in csv.DictReader(file)] == list("01")


def test_processes_with_other_options_end_at_once(start_two):
    for process in start_two([MNIST.script, *SMALL], more=["--seed", "1"]):
        _, errors = process.communicate(timeout=100)
        assert process.returncode == 1
        told = "train_mnist.py: error: the options must be the same in all processes.\n"
        assert errors.endswith(told)  # JAX warns of the proxies that the tests set


@pytest.mark.parametrize("number", ["0", "1"])
def test_a_process_that_finds_no_other_says_so(lesson, number):
    code = """
from types import SimpleNamespace
from common import devices, distribution
distribution._PATIENCE = 3
args = SimpleNamespace(devices="one", precision="auto", deterministic=False, seed=0)
devices.start(args, convolutional=True)
"""
    env = {"JOB_ADDRESSES": "127.0.0.1:9", "NUM_PROCESSES": "2", "PROCESS_ID": number}
    if number == "0":
        env["JOB_ADDRESSES"] = "127.0.0.1:45671"
    env = {f"KERAS_DISTRIBUTION_{key}": value for key, value in env.items()}
    done = lesson("-c", code, env=JAX | env)
    assert done.returncode == 1
    place = env["KERAS_DISTRIBUTION_JOB_ADDRESSES"]
    assert done.stderr.endswith(
        f"-c: error: 2 processes have not met at {place} in 3 s. Is each started, with a number "
        "of its own from 0, and can they reach one another? (docs/scaling.md)\n"
    )


def test_variables_that_say_nothing_are_a_sentence(lesson, tmp_path):
    env = JAX | {"KERAS_DISTRIBUTION_NUM_PROCESSES": "two"}
    done = lesson(MNIST.script, *SMALL, "--output-dir", tmp_path, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("train_mnist.py: error: the processes cannot meet: ")
    assert done.stderr.count("\n") == 1


# What all processes resume from


@pytest.fixture
def backup(tmp_path):
    """Backups after three epochs, and after two."""
    import h5py

    folder = tmp_path / "backup"
    folder.mkdir()
    for name, epochs in (("", 3), (".bkp", 2)):
        with h5py.File(folder / f"latest.weights.h5{name}", "w") as file:
            file["epochs"] = epochs
        (folder / f"training_metadata.json{name}").write_text(json.dumps({"epoch": epochs}))
    return folder


def taken(folder):
    import h5py

    with h5py.File(folder / "latest.weights.h5") as file:
        noted = json.loads((folder / "training_metadata.json").read_text())["epoch"]
        assert noted == file["epochs"][()]
        return noted


def test_a_process_goes_back_to_the_epoch_that_all_have(backup):
    assert (backups.check(backup, lambda own: own), taken(backup)) == (3, 3)
    assert (backups.check(backup, lambda own: 2), taken(backup)) == (2, 2)


def test_where_another_process_has_no_backup_all_begin_again(backup):
    assert backups.check(backup, lambda own: 0) == 0
    assert not backup.exists()


def test_a_process_that_is_too_far_ahead_says_so(backup):
    with pytest.raises(options.Mistake, match="has no backup after epoch 1, as another process"):
        backups.check(backup, lambda own: 1)
