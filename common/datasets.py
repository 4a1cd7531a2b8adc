"""Arrays of pictures: found, downloaded and checked. NumPy, no TensorFlow."""

import gzip
import hashlib
import math
import os
import queue
import struct
import sys
import threading
import time
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests
import urllib3

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "sample"

DEAD_SECONDS = 15  # a connection or a read that gives nothing for so long counts as dead
SLOW_SECONDS = 30  # over so long, a mirror below SLOW_RATE is left, if there is another
SLOW_RATE = 50_000  # bytes a second
STALLED_RATE = 1_000  # bytes a second; below it, even the last mirror is given up


class DataError(Exception):
    """Data that cannot be used; the message names the file, what is wrong and what to do."""


class DownloadError(Exception):
    """No mirror gave a file whole; the message says what each answered."""


@dataclass(frozen=True)
class Source:
    """Where a lesson's data came from: `kind` is folder, cache, download or sample."""

    kind: str
    path: Path


@dataclass(frozen=True)
class RemoteFile:
    """A published file: its name, its size in bytes and its SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Published:
    """A data set as it is published: its files, the mirrors that have all of them, by hand."""

    name: str
    files: tuple[RemoteFile, ...]
    mirrors: tuple[str, ...]  # addresses that a file's name is put behind
    by_hand: str


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


def load_mnist(data_dir, sample=False):
    """Load MNIST from `data_dir`, Keras's cache, the network or the sample, in this order.

    Args:
        data_dir: Folder with `mnist.npz` or the four idx files (gzipped or not), itself or
            in `mnist/` or `MNIST/raw/`; a download goes into its `mnist/`.
        sample: Take the sample at once.

    Returns:
        `(x_train, y_train), (x_test, y_test), source`: pictures as uint8 arrays of shape
        (count, 28, 28, 1), labels 0 to 9 as uint8 of shape (count,), and a `Source`. The
        source is also printed, in one line.

    Raises:
        DataError: A file that was found cannot be used. It is left as it is.
    """
    arrays, source = _find(MNIST, Path(data_dir), sample)
    check(arrays, source.path, shape=(28, 28), classes=10)
    train, test = len(arrays["x_train"]), len(arrays["x_test"])
    print(f"Data: {_WORDS[source.kind]}, {source.path} ({train:,} + {test:,} pictures)")
    return (
        (arrays["x_train"][..., np.newaxis], arrays["y_train"]),
        (arrays["x_test"][..., np.newaxis], arrays["y_test"]),
        source,
    )


_WORDS = {
    "folder": "from your data folder",
    "cache": "from Keras's cache",
    "download": "downloaded",
    "sample": "the small sample",
}


def _find(published, data_dir, sample):
    """Return the four arrays of the first source that has them, and that `Source`."""
    name = published.name
    at_rest = SAMPLES / f"{name}.npz"
    if sample:
        return read_npz(at_rest), Source("sample", at_rest)
    own = [data_dir, data_dir / name, data_dir / name.upper() / "raw"]
    for kind, folders in [("folder", own), ("cache", [keras_cache(), keras_cache() / name])]:
        for folder in folders:
            if (folder / f"{name}.npz").exists():
                return read_npz(folder / f"{name}.npz"), Source(kind, folder / f"{name}.npz")
            unfinished = list(folder.glob("*.part"))  # a download of ours, to be continued
            if any(_idx_path(folder, file) for file in IDX.values()) and not unfinished:
                return read_idx_set(folder), Source(kind, folder)
    try:
        download(published, data_dir / name)
    except DownloadError as error:
        print(
            f"\nNotice: {name} could not be downloaded.\n{error}\n"
            f"By hand: put {published.by_hand} into {data_dir}.\n"
            "Going on with the small sample: the figures below are those of a small sample.\n"
        )
        return read_npz(at_rest), Source("sample", at_rest)
    return read_idx_set(data_dir / name), Source("download", data_dir / name)


def keras_cache():
    """The folder that Keras puts its data sets in: `KERAS_HOME` or `~/.keras`, `datasets`."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "datasets"


# Reading and checking


def read_npz(path):
    """Read `x_train`, `y_train`, `x_test` and `y_test` from an .npz file, as a dict of arrays.

    Raises:
        DataError: The file is cut off, no .npz file, holds a pickle, or lacks an array.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(2)
        if start[:1] == b"\x80":
            raise DataError(f"{path}: {_PICKLE}. {_RENEW}")
        if start != b"PK":
            what = "not an .npz file" if start else "an empty file"
            raise DataError(f"{path}: {what}. {_RENEW}")
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in IDX if name not in file.files]
            if missing:
                raise DataError(f"{path}: {' and '.join(missing)} missing. {_RENEW}")
            return {name: file[name] for name in IDX}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        what = _PICKLE if "allow_pickle" in str(error) else f"damaged or cut off ({error})"
        raise DataError(f"{path}: {what}. {_RENEW}") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). {_RENEW}") from None


_PICKLE = "holds a Python pickle, which could run code; it was not opened"
_RENEW = "Get it again, or move it away and the lesson finds or downloads the data itself."


def _idx_path(folder, name):
    found = (p for p in [folder / name, folder / f"{name}.gz"] if p.is_file())
    return next(found, None)


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
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged or cut off ({error}). {_RENEW}") from None
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


def check(arrays, path, *, shape, classes):
    """Raise DataError unless both parts are pictures of `shape` with labels of every class.

    Args:
        arrays: Dict with `x_train`, `y_train`, `x_test` and `y_test`.
        path: What the message names.
        shape: Shape of one picture.
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
            wrong = f"y_{part} has the shape {y.shape} for {len(x):,} pictures"
        elif len(y) and (y.min() < 0 or y.max() >= classes):
            wrong = f"y_{part} has labels from {y.min()} to {y.max()}, not 0 to {classes - 1}"
        elif len(np.unique(y)) < classes:
            lacking = ", ".join(str(c) for c in range(classes) if c not in y)
            wrong = f"y_{part} has no picture of class {lacking}"
        if wrong:
            raise DataError(f"{path}: {wrong}. {_RENEW}")


# Downloading


def download(published, folder):
    """Download the files of a data set into `folder`, from the first mirror that gives them.

    A file arrives under a `.part` name, is checked against its SHA-256, and only then gets
    its own name. What arrived in part is kept, and continued at the next try.

    Raises:
        DownloadError: No mirror gave one of the files.
        OSError: The disk is full, or the folder not writable.
    """
    total = sum(file.size for file in published.files) / 1e6
    print(f"Downloading {published.name}, {total:.1f} MB, into {folder}")
    mirrors = list(published.mirrors)
    failures = []
    wanted = [file for file in published.files if not (folder / file.name).exists()]
    for file in wanted:
        while mirrors:
            try:
                _fetch(mirrors[0] + file.name, file, _part(folder, file), last=len(mirrors) == 1)
                break
            except DownloadError as error:  # the next files do not wait for this mirror again
                failures.append(f"  {mirrors.pop(0)}{file.name}: {error}")
        else:
            raise DownloadError("\n".join(failures))
    for file in wanted:  # all of them at the end, so that no set is ever found half there
        _part(folder, file).replace(folder / file.name)


def _part(folder, file):
    return folder / f"{file.name}.part"


def _fetch(url, file, part, last):
    """Bring `part` to the published bytes from one address; `last`: a slow one is kept."""
    for _ in range(2):
        start = part.stat().st_size if part.exists() else 0
        start = start if start <= file.size else 0
        if start < file.size:
            start = _stream(url, file, part, start, last)
        with open(part, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        if digest == file.sha256:
            return
        part.unlink()  # nothing of it can be trusted
        if start == 0:
            break
    raise DownloadError("the bytes are not the published ones (SHA-256 differs)")


def _stream(url, file, part, start, last):
    """Write to `part` what `url` has from byte `start` on; return where that began."""
    print(f"  {url} ({file.size / 1e6:.1f} MB)")
    response = _answer(url, {"Range": f"bytes={start}-"} if start else {})
    if response.status_code not in (200, 206):
        raise DownloadError(f"the server says {response.status_code} {response.reason}")
    if response.status_code == 200:  # this server does not continue files
        start = 0
    elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
        raise DownloadError("the server goes on with the file in a wrong place")
    part.parent.mkdir(parents=True, exist_ok=True)
    live = sys.stdout.isatty()
    done, since, window = start, start, time.monotonic()
    try:
        with response, open(part, "ab" if start else "wb") as f:
            while done < file.size and (chunk := response.raw.read1(2**16)):
                f.write(chunk)
                done += len(chunk)
                if live:
                    bar = "#" * (30 * done // file.size)
                    print(f"\r  [{bar:30.30}] {done / 1e6:.1f} MB", end="", flush=True)
                seconds = time.monotonic() - window
                if seconds > SLOW_SECONDS:
                    rate = (done - since) / seconds
                    if rate < (STALLED_RATE if last else SLOW_RATE):
                        raise DownloadError(f"only {rate / 1000:.1f} kB/s")
                    since, window = done, time.monotonic()
    except urllib3.exceptions.HTTPError as error:
        raise DownloadError(_reason(error, url)) from None
    finally:
        if live:
            print()
    if done < file.size:
        raise DownloadError(f"it ended after {done:,} of {file.size:,} bytes")
    return start


def _answer(url, headers):
    """Open `url`, or raise DownloadError after DEAD_SECONDS, looking up its name included.

    A thread waits, because no timeout of a socket covers the look-up of a name, nor several
    addresses of one name that are tried in turn.
    """
    answers = queue.SimpleQueue()

    def ask():
        try:
            plain = {"Accept-Encoding": "identity"}  # the bytes as they were published
            answers.put(
                requests.get(url, headers=headers | plain, stream=True, timeout=DEAD_SECONDS)
            )
        except requests.RequestException as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=DEAD_SECONDS)
    except queue.Empty:
        raise DownloadError(f"no answer in {DEAD_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise DownloadError(_reason(answer, url))
    return answer


def _reason(error, url):
    """What a failed request means, in a few words."""
    host, text = urlsplit(url).hostname, str(error)
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy cannot be reached"
    if isinstance(error, requests.exceptions.SSLError):
        return f"no secure connection to {host}"
    if "resolve" in text:  # urllib3's NameResolutionError; there is no class of requests for it
        return f"{host} is not found (no network?)"
    if "timed out" in text:
        return f"nothing came for {DEAD_SECONDS} s"
    if isinstance(error, requests.ConnectionError):
        return f"no connection to {host}"
    return "the connection was cut off"
