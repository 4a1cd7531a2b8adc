"""Files of arrays -> NumPy: .npz, idx (MNIST's), and the batches of CIFAR-10."""

import contextlib
import gzip
import io
import math
import os
import pickle
import pickletools
import struct
import tarfile
import zipfile

import numpy as np

from common.options import Mistake

RENEW = "Get it again, or move it away and the lesson finds or downloads the data itself."
IDX = {
    "x_train": "train-images-idx3-ubyte",
    "y_train": "train-labels-idx1-ubyte",
    "x_test": "t10k-images-idx3-ubyte",
    "y_test": "t10k-labels-idx1-ubyte",
}
BATCHES = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
_LARGEST = 100_000_000  # bytes that are read of a file; the largest published one has 47 million


class DataError(Mistake):
    """Data that cannot be used; the message names the file, what the fault is and what to do."""


@contextlib.contextmanager
def naming(path):
    """One boundary around a reader: whatever it raises names the file, and is a `DataError`."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(f"{path}: not a regular file. {RENEW}")
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        what = f"cannot be read ({error.strerror})" if error.strerror else f"damaged ({error})"
        raise DataError(f"{path}: {what}. {RENEW}") from None
    except MemoryError:
        raise DataError(f"{path}: larger than this machine's memory. {RENEW}") from None
    except Exception as error:  # damaged bytes raise whatever they happen to mean
        reason = "".join(filter(str.isprintable, str(error)))[:200] or type(error).__name__
        raise DataError(
            f"{path}: damaged, cut off, or of another kind ({reason}). {RENEW}"
        ) from None


def read_npz(path):
    """Read `x_train`, `y_train`, `x_test` and `y_test` from an .npz file, as a dict of arrays.

    Raises:
        DataError: The file is cut off, no .npz file, holds a pickle, or lacks an array.
    """
    with naming(path):
        if not zipfile.is_zipfile(path):
            raise DataError(f"{path}: not an .npz file, or cut off. {RENEW}")
        with np.load(path, allow_pickle=False) as file:
            if missing := [name for name in IDX if name not in file]:
                raise DataError(f"{path}: {' and '.join(missing)} missing. {RENEW}")
            arrays = {name: file[name] for name in IDX}
        if not all(isinstance(array, np.ndarray) for array in arrays.values()):
            raise DataError(f"{path}: holds something else than arrays. {RENEW}")
        return arrays


def idx_path(folder, name):
    """The path of an idx file, gzipped or not; None where there is none."""
    found = (p for p in [folder / name, folder / f"{name}.gz"] if os.path.exists(p))
    return next(found, None)


def read_idx_set(folder):
    """Read the four idx files of `folder`, gzipped or not, as a dict of uint8 arrays.

    Raises:
        DataError: A file is missing, cut off, or no idx file of unsigned bytes.
    """
    paths = {key: idx_path(folder, name) for key, name in IDX.items()}
    for key, path in paths.items():
        if path is None:
            raise DataError(f"{folder / IDX[key]}: missing beside the other idx files. {RENEW}")
    return {key: read_idx(path) for key, path in paths.items()}


def read_idx(path):
    """Read one idx file of unsigned bytes (format: the MNIST page of LeCun, Cortes, Burges)."""
    with naming(path):
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            raw = file.read(_LARGEST)
        if len(raw) < 4 or raw[:3] != b"\0\0\x08" or len(raw) < 4 + 4 * raw[3]:
            raise DataError(f"{path}: not an idx file of unsigned bytes. {RENEW}")
        shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
        body = raw[4 + 4 * raw[3] :]
        if len(body) != math.prod(shape):
            there = f"{len(body):,} bytes of data where its header promises {math.prod(shape):,}"
            raise DataError(f"{path}: {there}: damaged or cut off. {RENEW}")
        return np.frombuffer(body, np.uint8).reshape(shape)


def read_cifar10(path):
    """Read CIFAR-10's six batches from their folder or from the published archive.

    The batches are Python pickles, which can run code when they are opened. These are opened by an
    unpickler that makes plain containers and arrays of whole numbers, and refuses everything else.
    Of the archive, the six batches are read by their names, in memory: nothing is extracted.

    Returns:
        A dict of `x_train`, `y_train`, `x_test` and `y_test`; images are uint8 arrays of
        shape (count, 32, 32, 3), labels whole numbers of shape (count,).

    Raises:
        DataError: A batch is missing, cut off, no batch of CIFAR-10, or holds code.
    """
    batches = {}
    for name, content in _contents(path):
        with naming(path / name):
            batches[name] = _read_batch(path / name, content)
    for name in BATCHES:
        if name not in batches:
            raise DataError(f"{path / name}: missing beside the other batches. {RENEW}")
    x, y = zip(*(batches[name] for name in BATCHES), strict=True)
    train = {"x_train": np.concatenate(x[:-1]), "y_train": np.concatenate(y[:-1])}
    return train | {"x_test": x[-1], "y_test": y[-1]}


def _contents(path):
    """Yield the name and the bytes of each batch, in a folder or a .tar.gz archive."""
    if path.is_dir():
        for name in BATCHES:
            if os.path.exists(path / name):
                with naming(path / name), open(path / name, "rb") as file:
                    content = file.read(_LARGEST)
                yield name, content
        return
    with naming(path), tarfile.open(path, "r|gz") as archive:  # from front to back, once
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            if member.size > _LARGEST:
                raise DataError(f"{path}: {name} would have {member.size:,} bytes. {RENEW}")
            if name in BATCHES and folder.endswith("cifar-10-batches-py") and member.isfile():
                yield name, archive.extractfile(member).read()


def _read_batch(path, content):
    """The images and labels of one batch: its images are stored channel by channel."""
    tuples = 0
    for operation, argument, _ in pickletools.genops(content):
        tuples += operation.name.startswith("TUPLE")
        if tuples > 100 or ("PUT" in operation.name and int(argument) > 10**6):
            raise ValueError("a pickle made to crash Python, or to take all memory")
    batch = _Unpickler(content).load()
    batch = batch if isinstance(batch, dict) else {}
    x, y = (batch.get(key, batch.get(key.decode())) for key in (b"data", b"labels"))
    if not isinstance(x, _Array) or not isinstance(y, list | _Array):
        raise DataError(f"{path}: no batch of CIFAR-10: no data or no labels in it. {RENEW}")
    whole = isinstance(y, _Array) or all(type(label) is int for label in y)
    x, y = x.values, np.asarray(getattr(y, "values", y) if whole else [])
    if x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072:
        what = f"{x.dtype} of shape {x.shape}, not uint8 of shape (count, 3072)"
        raise DataError(f"{path}: its data are {what}. {RENEW}")
    if y.shape != (len(x),) or not np.issubdtype(y.dtype, np.integer):
        raise DataError(f"{path}: not one whole number as a label for each image. {RENEW}")
    return x.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).copy(), y


class _Type:
    """Stands in for `numpy.dtype`: whole numbers, whatever else a pickle sets."""

    def __init__(self, code, *_):
        self.code, self.order = _text(code), "|"
        if self.code not in ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"):
            raise ValueError(f"an array of type {self.code!r}")

    def __setstate__(self, state):
        self.order = "=" if _text(state[1]) == "|" else _text(state[1])


class _Array:
    """Stands in for `numpy.ndarray`: its bytes are read as numbers, and never as objects."""

    def __init__(self, *_):
        self.values = np.empty(0, np.uint8)

    def __setstate__(self, state):
        _, shape, kind, by_columns, content = state
        values = np.frombuffer(content, f"{kind.order}{kind.code}")
        self.values = values.reshape(shape, order="F" if by_columns else "C")


def _text(value):
    return value.decode("ascii") if isinstance(value, bytes) else "" + value  # text alone


class _Unpickler(pickle.Unpickler):
    """Opens what NumPy's arrays and plain containers are made of, and gives out no NumPy type."""

    admitted = {  # noqa: RUF012 - it is not changed
        "numpy.core.multiarray._reconstruct": _Array,  # NumPy 1, as in the published files
        "numpy._core.multiarray._reconstruct": _Array,  # NumPy 2
        "numpy.ndarray": _Array,
        "numpy.dtype": _Type,
    }

    def __init__(self, content):
        super().__init__(io.BytesIO(content), encoding="bytes")

    def find_class(self, module, name):
        if f"{module}.{name}" not in self.admitted:
            what = f"a Python pickle that names {module}.{name}, which could run code"
            raise ValueError(f"{what}; it was not opened")
        return self.admitted[f"{module}.{name}"]
