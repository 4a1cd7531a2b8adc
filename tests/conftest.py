"""What the tests share: lessons run as a user runs them, on a machine without a network."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
os.environ["no_proxy"] = "127.0.0.1"  # the tests' own server, in this process and below it
# Kept now: jax, where it is installed, sets a log level of TensorFlow's when Keras imports it.
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
# Two lessons run at a time (`--numprocesses 2`): a thread for each is faster than two.
ENVIRONMENT = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def in_a_terminal(monkeypatch):
    """No notebook, although some packages of the tests import its kernel."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.fixture(scope="session")
def offline(tmp_path_factory):
    """An environment without a network, and with nothing where other programs put data."""
    dead = "http://127.0.0.1:9"
    return ENVIRONMENT | {
        "http_proxy": dead,
        "https_proxy": dead,
        "HTTP_PROXY": dead,
        "HTTPS_PROXY": dead,
        "KERAS_HOME": str(tmp_path_factory.mktemp("keras")),
        "XDG_DATA_DIRS": str(tmp_path_factory.mktemp("share")),
    }


@pytest.fixture(scope="session")
def lesson(offline):
    """Run a lesson to its end: `lesson("train_mnist.py", "--sample", ..., env={...})`."""

    def run(*arguments, env=None, **options):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=REPO,
            env=offline | (env or {}),
            capture_output=True,
            text=True,
            timeout=240,
            **options,
        )

    return run


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """Nothing where other programs put data."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))


@pytest.fixture
def start(offline):
    """Start a lesson in the background: `start("train_mnist.py", "--sample", ..., env={...})`."""
    processes = []

    def start(*arguments, env=None, cwd=REPO):
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=offline | (env or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def read_until(process, beginning, before=0):
    """Read what a process prints up to a line that begins so, the first after `before` others."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(beginning):
            before -= 1
            if before < 0:
                return "".join(lines)
    return pytest.fail(process.stderr.read())


def run_folder(output_dir, name="*"):
    """The only run folder under `output_dir`, or the only one of a lesson such as "mnist-cnn"."""
    (folder,) = (path for path in output_dir.glob(f"{name}/*") if path.is_dir())
    return folder


# For these the field has words of its own: image, augmentation, correct, misclassified, …
_OLD_WORDS = r"""pictures? distort\w* by\sheart taken\sfor surest misreads? misread slope twins
    gone\son\swith right wrong how\ssure learn\sby answers?\sof"""


def old_words(text):
    """The words in `text` that a lesson should not use."""
    return [w for w in _OLD_WORDS.split() if re.search(rf"\b{w}\b", text, re.IGNORECASE)]
