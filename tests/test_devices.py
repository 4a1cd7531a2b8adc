"""The device: what is said of it, which precision it gets, and several of them at once."""

import os
import platform
import re
import stat
import subprocess
import sys

import pytest
from conftest import ENVIRONMENT, REPO, run_folder

from common import devices

AMX = {"avx512f", "amx_bf16"}


@pytest.mark.parametrize(
    ("wish", "capability", "flags", "convolutional", "policy"),
    [
        ("auto", None, {"avx2"}, True, "float32"),
        ("auto", None, AMX, True, "mixed_bfloat16"),
        ("auto", None, {"avx512_bf16"}, True, "mixed_bfloat16"),
        ("auto", None, AMX, False, "float32"),
        ("auto", (8, 0), AMX, True, "mixed_float16"),
        ("auto", (7, 0), set(), True, "mixed_float16"),
        ("auto", (6, 1), AMX, True, "float32"),
        ("auto", (9, 0), set(), False, "float32"),
        ("mixed", None, set(), False, "mixed_bfloat16"),
        ("mixed", (6, 1), set(), True, "mixed_float16"),
        ("float32", (9, 0), AMX, True, "float32"),
    ],
)
def test_precision(wish, capability, flags, convolutional, policy):
    assert devices.choose_precision(wish, capability, flags, convolutional) == policy


HARMLESS = """\
WARNING: All log messages before absl::InitializeLog() is called are written to STDERR
I0000 00:00:1795300073.893301    2219 port.cc:153] oneDNN custom operations are on. You may \
see slightly different numerical results.
"""
NO_CARD = """\
I0000 00:00:1795300073.893940    2219 cudart_stub.cc:31] Could not find cuda drivers on your \
machine, GPU will not be used.
E0000 00:00:1795300076.102047    2219 cuda_platform.cc:52] failed call to cuInit: INTERNAL: \
CUDA error: Failed call to cuInit: UNKNOWN ERROR (303)
"""
SERIOUS = "E0000 00:00:1795300076.102047    2219 loader.cc:1] libdevice is of another version\n"


def test_chatter_is_held_back_and_errors_are_not():
    assert devices.sift(HARMLESS + NO_CARD, card=lambda: False) == ""
    assert devices.sift(HARMLESS + NO_CARD, card=lambda: True) == NO_CARD
    assert devices.sift(HARMLESS + SERIOUS + NO_CARD, card=lambda: False) == SERIOUS


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
    first, second = done.stdout.splitlines()[:2]
    assert first.startswith("Device: ")
    assert first.endswith("; float32")
    assert second == f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    assert done.stderr == "after the start\n"


def test_a_log_level_of_the_users_own_wins():
    assert "port.cc" in start(TF_CPP_MIN_LOG_LEVEL="0").stderr


HELD = """
import os, sys
from common import devices
with devices._sifted_stderr():
    {}
print("after the start", file=sys.stderr)
"""


def test_what_is_written_during_the_start_is_passed_on():
    done = start(HELD.format(r"os.write(2, b'E0000 something is wrong\n')"))
    assert done.stderr == "E0000 something is wrong\nafter the start\n"


def test_a_crash_during_the_start_is_not_swallowed():
    done = subprocess.run(
        [sys.executable, "-c", HELD.format("os.abort()")],
        cwd=REPO,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "Fatal Python error: Aborted" in done.stderr


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


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for nvidia-smi is a shell script")
def test_a_card_that_tensorflow_cannot_use_gets_advice(card):
    if has_usable_gpu():
        pytest.skip("TensorFlow can use this machine's card")
    assert "pip install 'tensorflow[and-cuda]'" in start(PATH=card).stdout
    assert "NVIDIA" not in start(PATH=card, CUDA_VISIBLE_DEVICES="-1").stdout


def test_the_advice_on_windows_is_wsl2():
    assert "WSL2" in devices.advice("win32")
    assert "WSL2" not in devices.advice("linux")


def test_one_device_needs_no_strategy():
    assert devices.strategy([]) is None
    assert devices.strategy(["GPU:0"]) is None


TWO_DEVICES = """
import runpy, sys
from common import devices
with devices._sifted_stderr():
    import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
mirrored = devices.strategy
devices.strategy = lambda gpus: mirrored(["CPU:0", "CPU:1"])  # as if they were two GPUs
sys.argv = sys.argv[1:]
ran = runpy.run_path(sys.argv[0], run_name="__main__")
assert ran["device"].strategy.num_replicas_in_sync == 2
"""


@pytest.mark.parametrize("script", sorted(path.name for path in REPO.glob("train_*.py")))
def test_the_lesson_trains_on_two_devices(tmp_path, offline, script):
    """Two logical CPU devices share each batch; the figures agree with those of `evaluate`."""
    command = [script, "--sample", "--epochs", "1", "--output-dir", str(tmp_path)]
    small = ["--image-size", "64", "--skip-baseline"]
    command += small if script == "train_simpsons.py" else []
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES, *command],
        cwd=REPO,
        env=offline,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert (run_folder(tmp_path) / "results.json").exists()
    differ = re.search(r"its probabilities differ by (\S+) at the most", done.stdout)
    assert float(differ[1]) < 1e-5


HEAPS = """
import ctypes, os, threading
from common import devices

devices._share_freed_memory()
go = threading.Barrier(9)
def use():
    go.wait()  # all of them live at the same time
    kept = [bytes(1000) for _ in range(1000)]
    go.wait()
threads = [threading.Thread(target=use) for _ in range(8)]
[thread.start() for thread in threads]
go.wait(), go.wait()
c = ctypes.CDLL(None)
c.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(c.fdopen(1, b"w"))
c.malloc_info(0, out), c.fflush(out)
"""


GLIBC = sys.platform == "linux" and platform.libc_ver()[0] == "glibc"
FREED = """
import ctypes
from common import devices

c = ctypes.CDLL(None)
c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 // 2**20
places = [c.malloc(1000) for _ in range(100_000)]
for place in places:
    ctypes.memset(place, 1, 1000)
for place in places[:-1]:  # the last one keeps the heap from shrinking by itself
    c.free(place)
before = resident()
devices.return_freed_memory()
print(before - resident())
"""


@pytest.mark.skipif(not GLIBC, reason="this is about glibc")
def test_freed_memory_goes_back_to_the_system():
    run = subprocess.run(
        [sys.executable, "-c", FREED], cwd=REPO, capture_output=True, text=True, check=True
    )
    assert int(run.stdout) > 80  # of 95 MB


@pytest.mark.skipif(not GLIBC, reason="this is about glibc")
def test_threads_share_what_they_have_freed():
    def heaps(environment):
        command = [sys.executable, "-c", HEAPS]
        run = subprocess.run(
            command, cwd=REPO, env=environment, capture_output=True, text=True, check=True
        )
        return run.stdout.count("<heap nr")

    assert heaps(ENVIRONMENT) <= max(2, devices._cores())
    assert heaps(ENVIRONMENT | {"MALLOC_ARENA_MAX": "6"}) == 6  # what a user sets counts
