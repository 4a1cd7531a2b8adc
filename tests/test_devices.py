"""The device: what is said of it, and which precision it gets."""

import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import pytest
from conftest import ENVIRONMENT, REPO

from common import devices

AMX = {"avx512f", "amx_bf16"}


@pytest.mark.parametrize(
    ("wish", "capability", "flags", "convolutional", "policy"),
    [
        ("auto", None, {"avx2"}, True, "float32"),
        ("auto", None, AMX, True, "mixed_bfloat16"),
        ("auto", None, {"avx512_bf16"}, True, "mixed_bfloat16"),
        ("auto", None, AMX, False, "float32"),
        ("auto", (8, 0), AMX, True, "mixed_bfloat16"),
        ("auto", (12, 0), set(), True, "mixed_bfloat16"),
        ("auto", (7, 5), set(), True, "mixed_float16"),
        ("auto", (6, 1), AMX, True, "float32"),
        ("auto", (9, 0), set(), False, "float32"),
        ("mixed", None, set(), False, "mixed_bfloat16"),
        ("mixed", (6, 1), set(), True, "mixed_float16"),
        ("float32", (9, 0), AMX, True, "float32"),
    ],
)
def test_precision(wish, capability, flags, convolutional, policy):
    assert devices.choose_precision(wish, capability, flags, convolutional) == policy


BUILD = {"cuda_version": "12.5.1", "cuda_compute_capabilities": ["sm_60", "sm_89", "compute_90"]}


def test_a_card_newer_than_the_build_is_named_with_the_build():
    told = devices.too_new(("NVIDIA GeForce RTX 5090", (12, 0)), "2.21.0", BUILD)
    assert told == (
        "NVIDIA GeForce RTX 5090 has compute capability 12.0; TensorFlow 2.21.0, with CUDA "
        "12.5.1, was built for up to 9.0. It may take many minutes to start, or fail.\n"
    )
    assert devices.too_new(("NVIDIA H100", (9, 0)), "2.21.0", BUILD) == ""
    assert devices.too_new(("Tesla T4", (7, 5)), "2.21.0", {}) == ""  # a build that does not say


START = """
import sys
from types import SimpleNamespace
from common import devices
devices.start(SimpleNamespace(precision="auto", deterministic=False), convolutional=False)
print("after the start", file=sys.stderr)
"""


def start(code=START, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=ENVIRONMENT | env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_the_start_names_device_versions_and_precision_and_is_otherwise_silent():
    import keras
    import tensorflow as tf

    done = start()
    (line,) = done.stdout.splitlines()
    assert line.startswith("Device: ")
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    assert line.endswith(f"; float32; {versions}, backend tensorflow")
    assert done.stderr == "after the start\n"


def test_a_log_level_of_the_users_own_wins():
    assert "port.cc" in start(TF_CPP_MIN_LOG_LEVEL="0").stderr


HELD = """
import os, sys
from common import devices
with devices.quiet():
    {}
print("after the start", file=sys.stderr)
"""


def test_what_is_written_during_the_start_is_shown_where_it_fails():
    write = r"os.write(2, b'E0000 no such device\n')"
    assert start(HELD.format(write)).stderr == "after the start\n"
    command = [sys.executable, "-c", HELD.format(f"{write}; import nothing_of_this_name")]
    done = subprocess.run(command, cwd=REPO, env=ENVIRONMENT, capture_output=True, text=True)
    assert "E0000 no such device" in done.stderr
    assert "ModuleNotFoundError" in done.stderr


def test_with_jax_the_cards_are_those_that_jax_finds(monkeypatch):
    card = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200", compute_capability="9.0")
    found = [card, SimpleNamespace(platform="cpu", device_kind="cpu")]
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(local_devices=lambda: found))
    assert devices.find_gpus("jax") == [("NVIDIA H200", (9, 0))]


@pytest.fixture
def card(tmp_path):
    """A PATH on which `nvidia-smi` finds a card, as it does where only the driver is installed."""
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho Tesla T4\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


def has_usable_gpu():
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


CUBLAS = "nvidia-cublas-cu12"  # one of a dozen


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
def test_a_card_that_tensorflow_cannot_use_gets_advice(card):
    if has_usable_gpu():
        pytest.skip("TensorFlow can use this machine's card")
    done = start(PATH=card)
    written, advice = done.stderr.split("This machine has a GPU (Tesla T4), but TensorFlow cannot")
    assert "cuda" in written.lower()  # by TensorFlow
    assert CUBLAS in advice
    assert "pip install 'tensorflow[and-cuda]' brings them." in advice
    done = start(PATH=card, CUDA_VISIBLE_DEVICES="-1")
    assert done.stderr == "after the start\n"


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
def test_a_card_that_jax_cannot_use_gets_advice(card):
    pytest.importorskip("jax")
    done = start(PATH=card, KERAS_BACKEND="jax")
    assert "This machine has a GPU (Tesla T4), but JAX cannot use it" in done.stderr
    assert "jax-cuda13-plugin. pip install 'jax[cuda13]' brings them." in done.stderr


def test_the_advice_names_what_is_not_installed(monkeypatch):
    needed = [f'{CUBLAS}<13; extra == "and-cuda"', 'nvidia-cudnn-cu12; extra == "and-cuda"']
    needed += ["numpy>=1", 'other; extra == "and-cuda-local"']
    installed = ["tensorflow", "numpy"]
    metadata = devices.importlib.metadata
    monkeypatch.setattr(metadata, "requires", lambda package: needed)
    monkeypatch.setattr(
        metadata, "distributions", lambda: [SimpleNamespace(name=name) for name in installed]
    )
    told = devices.advice("Tesla T4", "tensorflow", "linux")
    assert f"Not installed by pip: {CUBLAS}, nvidia-cudnn-cu12. pip install" in told
    installed.append("nvidia_cudnn_cu12")
    assert f"by pip: {CUBLAS}. pip" in devices.advice("Tesla T4", "tensorflow", "linux")
    installed.append(CUBLAS)
    assert "is the driver too old" in devices.advice("Tesla T4", "tensorflow", "linux")
    installed.remove("tensorflow")  # but tensorflow-cpu
    assert "by pip: tensorflow. pip" in devices.advice("Tesla T4", "tensorflow", "linux")


def test_the_advice_on_windows_is_wsl2():
    told = devices.advice("Tesla T4", "tensorflow", "win32")
    assert told == (
        "This machine has a GPU (Tesla T4), but TensorFlow cannot use it on Windows itself: run "
        "the lesson in WSL2."
    )
    assert "WSL2" not in devices.advice("Tesla T4", "tensorflow", "linux")


# What TensorFlow reports where it finds two cards of the newest kind, and may use them.
WITH_CARDS = f"""
import tensorflow as tf
details = {{"device_name": "NVIDIA GeForce RTX 5090", "compute_capability": (12, 0)}}
cards = [tf.config.PhysicalDevice(f"GPU:{{i}}", "GPU") for i in range(2)]
tf.config.list_physical_devices = lambda kind=None: cards
tf.config.experimental.set_memory_growth = lambda card, wish: None
tf.config.experimental.get_device_details = lambda card: details
tf.sysconfig.get_build_info = lambda: {BUILD}
"""


def test_the_start_names_a_card_and_says_that_it_is_newer_than_the_build():
    first, second = start(WITH_CARDS + START).stdout.splitlines()
    assert first.startswith("Device: NVIDIA GeForce RTX 5090, 1 GPU of 2")
    assert second.startswith("NVIDIA GeForce RTX 5090 has compute capability 12.0; TensorFlow ")


def test_keras_own_settings_of_the_user_change_nothing(tmp_path):
    settings = {"floatx": "float64", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    code = START + "import keras; print(keras.config.image_data_format(), keras.config.floatx())"
    assert start(code, KERAS_HOME=str(tmp_path)).stdout.endswith("channels_last float32\n")


def test_a_copy_in_float32_has_the_same_weights():
    import keras
    import numpy as np

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layers = [
            keras.Input((8, 8, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(2, 3),
        ]
        model = keras.Sequential([*layers, keras.layers.Flatten(), keras.layers.Dense(3)])
    finally:
        keras.config.set_dtype_policy(before)
    copy = devices.to_float32(model)
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16"}
    assert {layer.compute_dtype for layer in copy.layers} == {"float32"}
    for one, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
