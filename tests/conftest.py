"""What the tests share: lessons run as a user runs them, on a machine without a network."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
os.environ["no_proxy"] = "127.0.0.1"  # the tests' own server, in this process and below it
# Keras looks for its folder once, when it is imported.
os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="lessons-keras-")
atexit.register(shutil.rmtree, os.environ["KERAS_HOME"], ignore_errors=True)
# Kept now: jax, where it is installed, sets a log level of TensorFlow's when Keras imports it.
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
# Two lessons run at a time (`--numprocesses 2`): a thread for each is faster than two.
ENVIRONMENT = os.environ | {"TF_NUM_INTRAOP_THREADS": "1", "OMP_NUM_THREADS": "1"}
# Seconds. What takes longest alone, takes a minute: a busy machine has to do it, too.
LIMIT = 900


@pytest.fixture(autouse=True)
def in_a_terminal(monkeypatch):
    """No notebook, although some packages of the tests import its kernel."""
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)


@pytest.fixture(scope="session")
def offline(tmp_path_factory):
    """An environment without a network, and with nothing in Keras's cache."""
    dead = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"))
    dead = dict.fromkeys(dead, "http://127.0.0.1:9")
    return ENVIRONMENT | dead | {"KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}


@pytest.fixture(scope="session")
def lesson(offline):
    """Run a lesson to its end: `lesson("train_mnist.py", "--sample", ..., env={...})`."""

    def run(*arguments, env=None, cwd=REPO, **options):
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            env=offline | (env or {}),
            capture_output=True,
            text=True,
            timeout=LIMIT,
            **options,
        )

    return run


@dataclass(frozen=True)
class Finished:
    """A run that has ended well: what it printed, and its folder."""

    stdout: str
    stderr: str
    folder: Path


@pytest.fixture(scope="session")
def finished(lesson, tmp_path_factory):
    """The run of a `lessons.Lesson` where there are no data and no network.

    It runs once, whichever of pytest's processes asks first; the others wait for it.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def finished(case):
        place = shared / f"lesson-{case.name}"
        told = place / "told.json"
        try:
            place.mkdir()
        except FileExistsError:
            while not told.exists():
                time.sleep(0.2)
        else:
            places = ["--data-dir", place / "data", "--output-dir", place / "outputs"]
            done = lesson(*case.command, *places)
            partial = place / "partial.json"
            partial.write_text(json.dumps([done.returncode, done.stdout, done.stderr]))
            partial.rename(told)
        status, stdout, stderr = json.loads(told.read_text())
        assert status == 0, stderr
        return Finished(stdout, stderr, run_folder(place / "outputs"))

    return finished


@pytest.fixture
def no_cache(monkeypatch):
    """Nothing in Keras's cache, and no network."""
    shutil.rmtree(Path(os.environ["KERAS_HOME"]) / "datasets", ignore_errors=True)
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


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


def read_until(process, beginning):
    """Read what a process prints up to a line that begins so."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(beginning):
            return "".join(lines)
    return pytest.fail(process.stderr.read())


def run_folder(output_dir, name="*"):
    """The only run folder under `output_dir`, or the only one of a lesson such as "mnist-cnn"."""
    (folder,) = (path for path in output_dir.glob(f"{name}/*") if path.is_dir())
    return folder
