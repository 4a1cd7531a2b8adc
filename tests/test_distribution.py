"""Keras on JAX: lessons on one device, on several, and in several processes of this machine."""

import json
import os
import signal
import socket

import keras
import numpy as np
import pytest
from conftest import read_until, run_folder
from lessons import LESSONS

pytestmark = pytest.mark.slow
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
    assert done.stdout.count("Each batch is divided among 4 devices.\n") == 1
    results = json.loads((run_folder(tmp_path) / "results.json").read_text(encoding="utf-8"))
    assert results["test"]["accuracy"] >= 0.9  # 93.7% and 94.3% in two runs


# Several processes


@pytest.fixture
def start_two(start, tmp_path):
    """Start a command in two processes; `more` has options of each."""

    def start_two(command, more=((), ())):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            place = f"127.0.0.1:{free.getsockname()[1]}"
        both = []
        for i in range(2):
            env = {"JOB_ADDRESSES": place, "NUM_PROCESSES": "2", "PROCESS_ID": str(i)}
            env = JAX | {f"KERAS_DISTRIBUTION_{key}": value for key, value in env.items()}
            own = [*command, *more[i], "--output-dir", tmp_path / str(i)]
            both.append(start(*own, env=env))
        return both

    return start_two


def assert_equal_weights(folders):
    models = [keras.saving.load_model(folder / "model.keras") for folder in folders]
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_two_processes_train_one_model(start_two, tmp_path):
    for i, process in enumerate(start_two([MNIST.script, *SMALL])):
        output, _ = process.communicate()
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
def test_where_one_is_killed_the_other_ends_and_both_are_resumed(start_two, tmp_path):
    small = [MNIST.script, "--sample", "--epochs", "4"]
    processes = start_two(small)
    for _ in range(2):  # in the second training, which is divided
        read_until(processes[1], "Epoch 3/")
    processes[1].send_signal(signal.SIGKILL)
    processes[0].communicate()
    assert processes[0].returncode not in (0, None)
    folders = [run_folder(tmp_path / name) for name in "01"]
    for process in start_two(small, more=[["--resume", folder] for folder in folders]):
        output, _ = process.communicate()
        assert process.returncode == 0
        assert ", resumed" in output
    assert_equal_weights(folders)


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
