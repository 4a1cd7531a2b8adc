"""Arrays of images: found, downloaded and checked. NumPy, no TensorFlow."""

import os
import runpy
import tomllib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common import formats
from common.downloads import DownloadError, Published, download
from common.formats import IDX, RENEW, DataError
from common.options import HOME

SAMPLES = HOME / "data" / "sample"
LEAST = 10  # training images of each class: fewer cannot be split


@dataclass(frozen=True)
class Source:
    """Where a lesson's data came from.

    `kind` is folder, cache, download or sample; `note` is what the plots say of it.
    """

    kind: str
    path: Path
    note: str = ""


with open(Path(__file__).with_name("published.toml"), "rb") as _file:
    MNIST, FASHION_MNIST, CIFAR10 = (Published(**entry) for entry in tomllib.load(_file).values())

# The first training labels as published: MNIST's files and Fashion-MNIST's have the same names.
_FIRST_LABELS = {
    "mnist": (5, 0, 4, 1, 9, 2, 1, 3, 1, 4),
    "fashion-mnist": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5),
}


def load_mnist(data_dir, sample=False):
    """Load MNIST from `data_dir`, Keras's cache, the network or the sample, in this order.

    Args:
        data_dir: Folder with `mnist.npz` or the four idx files (gzipped or not), itself or
            in `mnist/` or `MNIST/raw/`; a download goes into its `mnist/`.
        sample: Take the sample at once.

    Returns:
        `(x_train, y_train), (x_test, y_test), source`: images as uint8 arrays of shape
        (count, 28, 28, 1), labels 0 to 9 as uint8 of shape (count,), and a `Source`. The
        source is also printed, in one line.

    Raises:
        DataError: A file that was found cannot be used. The file is not changed.
    """
    own = ["", "mnist", "MNIST/raw"]
    return _load_grey(MNIST, Path(data_dir), sample, own, caches=["", "mnist"])


def load_fashion_mnist(data_dir, sample=False):
    """Load Fashion-MNIST as `load_mnist` loads MNIST.

    It is looked for in `fashion-mnist/`, `FashionMNIST/raw/` and `data_dir` itself, then in
    Keras's cache and where Debian's package dataset-fashion-mnist puts it.
    """
    own = ["fashion-mnist", "fashion", "FashionMNIST/raw", ""]
    return _load_grey(FASHION_MNIST, Path(data_dir), sample, own, caches=["fashion-mnist"])


def load_cifar10(data_dir, sample=False):
    """Load CIFAR-10 from `data_dir`, Keras's cache or the network; without any, draw a stand-in.

    Args:
        data_dir: Folder with `cifar-10-batches-py/` or `cifar-10-python.tar.gz`, itself or in
            `cifar10/`, where a download goes. The drawings go into its `sample/`.
        sample: Take the drawings at once.

    Returns and raises what `load_mnist` does; the images have the shape (count, 32, 32, 3).
    """
    data_dir, cache = Path(data_dir), keras_cache()
    places = [("folder", data_dir), ("folder", data_dir / "cifar10")]
    places += [("cache", cache / "cifar-10-batches-py-target"), ("cache", cache)] if cache else []

    def small():
        return _drawings(data_dir / "sample" / "cifar-10-batches-py")

    arrays, source = _find(CIFAR10, data_dir, sample, places, _read_cifar10_at, small)
    return _checked(arrays, source, shape=(32, 32, 3))


def _load_grey(published, data_dir, sample, own, caches):
    """Load MNIST or a set with its format; `own` and `caches`: folders in data_dir and cache."""
    name = published.name
    places = [("folder", data_dir / folder) for folder in own]
    places += [("cache", keras_cache() / folder) for folder in caches if keras_cache()]
    places += [("cache", folder / "datasets" / name) for folder in system_places()]

    def small():
        path = SAMPLES / f"{name}.npz"
        if not path.exists():  # a script that was copied without it
            raise DataError(
                f"there are no data in {data_dir}, and no sample in {SAMPLES}. Name a folder that "
                f"has them with --data-dir; by hand, get {published.by_hand}."
            )
        return formats.read_npz(path), Source("sample", path, "A small sample of the images")

    def read(folder):
        return _read_grey_at(folder, name)

    arrays, source = _find(published, data_dir, sample, places, read, small)
    (x_train, y_train), (x_test, y_test), source = _checked(arrays, source, shape=(28, 28))
    return (x_train[..., np.newaxis], y_train), (x_test[..., np.newaxis], y_test), source


WORDS = {
    "folder": "from your folder",
    "cache": "found on this machine",
    "download": "downloaded",
    "sample": "the small sample",
}


def _find(published, data_dir, sample, places, read, at_rest):
    """Return the four arrays of the first source that has them, and that `Source`.

    Args:
        places: Pairs of a kind and a folder to look in.
        read: Returns a folder's arrays and their path, or None where there are none.
        at_rest: Returns the sample's arrays and its `Source`.
    """
    if sample:
        return at_rest()
    for kind, folder in places:
        found = read(folder)
        if found:
            return found[0], Source(kind, found[1])
    folder = data_dir / published.name
    names = {*published.sha256, *(name.removesuffix(".gz") for name in published.sha256)}
    if any(os.path.exists(folder / name) for name in names):
        what = "other files than the published ones are there, or parts of a download"
        raise DataError(f"{folder}: {what}. Move them away, and run the lesson again.")
    try:
        download(published, folder)
    except DownloadError as error:
        arrays, source = at_rest()
        print(
            f"\nNotice: {published.name} could not be downloaded.\n{error}\n"
            f"By hand: put {published.by_hand} into {folder}.\n"
            f"Using the small sample: the figures below are those of a small sample.\n"
        )
        return arrays, source
    arrays, path = read(folder)
    return arrays, Source("download", path)


def _checked(arrays, source, shape):
    check(arrays, source.path, shape=shape, classes=10)
    train, test = len(arrays["x_train"]), len(arrays["x_test"])
    print(f"Data: {WORDS[source.kind]}, {source.path} ({train:,} + {test:,} images)")
    if source.note:
        print(f"{source.note}.")
    y_train, y_test = (arrays[name].astype(np.uint8) for name in ("y_train", "y_test"))
    return (arrays["x_train"], y_train), (arrays["x_test"], y_test), source


def keras_cache():
    """The folder that Keras puts its data sets in: `KERAS_HOME` or `~/.keras`, `datasets`.

    None where the user has no home, as in some containers.
    """
    try:
        return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"
    except RuntimeError:
        return None


def system_places():
    """The folders of a system's own data: those of `XDG_DATA_DIRS`, /usr/share among them."""
    folders = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [Path(folder) for folder in folders.split(":") if folder]


def _drawings(folder):
    """Return drawings in CIFAR-10's format, and their `Source`; make the files if need be."""
    note = "Drawings made by this program, not photographs"
    if not folder.exists():
        try:
            drawn("write_cifar10", folder)
        except OSError:  # a place that cannot be written to: the drawings need none
            return drawn("cifar10"), Source("sample", folder, note)
    return formats.read_cifar10(folder), Source("sample", folder, note)


def drawn(function, *arguments):
    """Call a function of `data/sample/draw.py`, which draws what may not be shipped.

    Raises:
        DataError: The script is not there: a lesson was copied without it.
    """
    script = SAMPLES / "draw.py"
    if not script.exists():
        raise DataError(f"no data, and no sample in {SAMPLES}. Name a folder with --data-dir.")
    return runpy.run_path(str(script))[function](*arguments)


def _read_grey_at(folder, name):
    """The arrays of MNIST's format in a folder, and their path; None where there are none."""
    if os.path.exists(folder / f"{name}.npz"):
        return formats.read_npz(folder / f"{name}.npz"), folder / f"{name}.npz"
    if not any(formats.idx_path(folder, file) for file in IDX.values()):
        return None  # not there, or not to be entered
    if labels := formats.idx_path(folder, IDX["y_train"]):
        first = tuple(formats.read_idx(labels).ravel()[:10])
        if first in _FIRST_LABELS.values() and first != _FIRST_LABELS[name]:
            return None  # the other set, under the same names
    return formats.read_idx_set(folder), folder


def _read_cifar10_at(folder):
    """The arrays of CIFAR-10 in a folder, and their path; None where there are none."""
    batches = [folder / "cifar-10-batches-py", folder]
    archives = [folder / "cifar-10-python.tar.gz", folder / "cifar-10-batches-py.tar.gz"]
    found = [path for path in batches if os.path.exists(path / "data_batch_1")]
    found += [path for path in archives if os.path.exists(path)]
    found += [path for path in batches[:1] if os.path.isdir(path)]  # it lacks its first: say so
    return (formats.read_cifar10(found[0]), found[0]) if found else None


def check(arrays, path, *, shape, classes):
    """Raise DataError unless both parts are images of `shape` with labels of every class.

    Args:
        arrays: Dict with `x_train`, `y_train`, `x_test` and `y_test`.
        path: What the message names.
        shape: Shape of one image.
        classes: Number of classes; labels are 0 to `classes` - 1.
    """
    for part in ["train", "test"]:
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        fault = None
        if x.dtype != np.uint8:
            fault = f"x_{part} is of type {x.dtype}, not uint8"
        elif x.ndim != 1 + len(shape) or x.shape[1:] != shape:
            fault = f"x_{part} has the shape {x.shape}, not {('count', *shape)}".replace("'", "")
        elif not np.issubdtype(y.dtype, np.integer):
            fault = f"y_{part} is of type {y.dtype}, not whole numbers"
        elif y.shape != (len(x),):
            fault = f"y_{part} has the shape {y.shape} for {len(x):,} images"
        elif len(y) and (y.min() < 0 or y.max() >= classes):
            fault = f"y_{part} has labels from {y.min()} to {y.max()}, not 0 to {classes - 1}"
        elif len(np.unique(y)) < classes:
            lacking = ", ".join(str(c) for c in range(classes) if c not in y)
            fault = f"y_{part} has no image of class {lacking}"
        elif not np.ptp(x, axis=0).any():
            fault = f"all images of x_{part} are alike"
        elif part == "train" and np.bincount(y.astype(int)).min() < LEAST:
            few, count = min(enumerate(np.bincount(y.astype(int))), key=lambda pair: pair[1])
            fault = f"y_train has {count} images of class {few}, and {LEAST} are the least"
        if fault:
            raise DataError(f"{path}: {fault}. {RENEW}")
