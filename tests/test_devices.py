"""The device: what is said of it, and which precision it gets."""

import json
import os
import stat
import subprocess
import sys
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from conftest import ENVIRONMENT, LIMIT, REPO

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


START = """
import sys
from types import SimpleNamespace
from common import devices
devices.start(SimpleNamespace(precision="auto", deterministic=False), convolutional=False)
import keras
print(keras.config.image_data_format(), keras.config.floatx())
print("after the start", file=sys.stderr)
"""


def start(code=START, status=0, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPO,
        env=ENVIRONMENT | env,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == status, done.stderr
    return done


def test_the_start_names_the_device_and_is_otherwise_silent(tmp_path):
    import tensorflow as tf

    # Keras's own settings of the user change nothing.
    settings = {"floatx": "float64", "image_data_format": "channels_first"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    done = start(KERAS_HOME=str(tmp_path))
    device, after = done.stdout.splitlines()
    assert device.startswith("Device: ")
    for part in ("float32", tf.__version__, keras.__version__, "backend tensorflow"):
        assert part in device
    assert after == "channels_last float32"
    assert done.stderr == "after the start\n"


def test_what_is_written_during_the_start_is_shown_where_it_fails():
    held = "import os\nfrom common import devices\nwith devices.quiet():\n    os.write(2, b'E0000')"
    assert start(held).stderr == ""
    failed = start(f"{held}; import nothing_of_this_name", status=1).stderr
    assert "E0000" in failed and "ModuleNotFoundError" in failed


@pytest.mark.parametrize("backend", ["torch", "jax"])
def test_a_backend_that_is_not_there_is_one_sentence(backend):
    hidden = "import importlib.util\nfind = importlib.util.find_spec\n"
    hidden += "importlib.util.find_spec = lambda name: None if name == 'jax' else find(name)\n"
    told = start(hidden + START, status=1, KERAS_BACKEND=backend).stderr
    assert told.count("\n") == 1
    assert {"torch": "tensorflow or jax", "jax": "requirements-jax.txt"}[backend] in told


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
def test_a_card_that_cannot_be_used_is_told_in_one_sentence(tmp_path):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("TensorFlow can use this machine's card")
    program = tmp_path / "nvidia-smi"  # as where only the driver is installed
    program.write_text("#!/bin/sh\necho Tesla T4\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    (told,) = [line for line in start(PATH=path).stdout.splitlines() if "Notice" in line]
    assert "tensorflow[and-cuda]" in told and "docs/scaling.md" in told
    assert (REPO / "docs" / "scaling.md").exists()
    assert "Notice" not in start(PATH=path, CUDA_VISIBLE_DEVICES="-1").stdout


def test_with_jax_the_cards_are_those_that_jax_finds(monkeypatch):
    card = SimpleNamespace(platform="gpu", device_kind="NVIDIA H200", compute_capability="9.0")
    found = [card, SimpleNamespace(platform="cpu", device_kind="cpu")]
    monkeypatch.setitem(sys.modules, "jax", SimpleNamespace(local_devices=lambda: found))
    assert devices.find_gpus("jax") == [("NVIDIA H200", (9, 0))]


def sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    )


def nested():
    inputs = keras.Input((8, 8, 1))
    return keras.Model(inputs, keras.layers.Dense(3)(sequential()(inputs)))


def pretrained():
    base = keras.applications.MobileNetV2(input_shape=(32, 32, 3), include_top=False, weights=None)
    return keras.Sequential([keras.Input((32, 32, 3)), base, keras.layers.Flatten()])


@pytest.mark.parametrize("build", [sequential, nested, pretrained])
def test_a_copy_in_float32_has_the_same_weights(build):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build()
    finally:
        keras.config.set_dtype_policy(before)
    model = keras.Model(
        model.inputs[0], keras.layers.Softmax()(model.outputs[0])
    )  # as the lessons do
    copy = devices.to_float32(model)

    def convolution(of):
        found = [layer for layer in of.layers if isinstance(layer, keras.layers.Conv2D)]
        inner = [convolution(layer) for layer in of.layers if isinstance(layer, keras.Model)]
        return [*found, *inner][0]

    assert convolution(model).compute_dtype == "bfloat16"
    assert convolution(copy).compute_dtype == "float32"
    for one, other in zip(model.get_weights(), copy.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
