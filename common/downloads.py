"""Downloads: from one mirror after another, each file checked before it gets its name."""

import hashlib
import queue
import shutil
import sys
import tempfile
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from common.options import DISK

DEAD_SECONDS = 10  # a mirror that does not answer for so long is given up, or that gives less
LEAST_BYTES = 50_000  # in that time than this (where there is another: than ten times as much)


class DownloadError(Exception):
    """No mirror gave all files; the message says what each answered."""


@dataclass(frozen=True)
class Published:
    """A data set as it is published.

    Attributes:
        name: Of the data set.
        size: Of all its files, in words.
        sha256: For each file's name its SHA-256, in hexadecimal.
        mirrors: Addresses that a file's name is put behind, the slowest last.
        by_hand: What to get instead.
    """

    name: str
    size: str
    sha256: dict[str, str]
    mirrors: tuple[str, ...]
    by_hand: str


def download(published, folder):
    """Download the files of a data set into `folder`, from the first mirror that gives all.

    They arrive in a folder of their own, `.part-…`, and are checked against their SHA-256. They get
    their places when all of them are there.

    Raises:
        DownloadError: No mirror gave all files. A network that is dead or gives nothing costs
            `DEAD_SECONDS` for each mirror.
        OSError: The disk is full, or the folder not writable.
    """
    print(f"Downloading {published.name}, {published.size}, into {folder}")
    failures = []
    for mirror in published.mirrors:
        least = LEAST_BYTES if mirror == published.mirrors[-1] else 10 * LEAST_BYTES
        try:
            _fetch_all(published, mirror, folder, least)
            return
        except DownloadError as error:
            failures.append(f"  {mirror}: {error}")
    raise DownloadError("\n".join(failures))


def _fetch_all(published, mirror, folder, least):
    """Put all files of a data set into `folder`, or none."""
    first, *others = published.sha256
    response = _answer(mirror + first)  # before a folder is made
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as place:
        _fetch(response, Path(place) / first, published.sha256[first], least)
        for name in others:
            _fetch(_answer(mirror + name), Path(place) / name, published.sha256[name], least)
        for name in published.sha256:
            (Path(place) / name).replace(folder / name)


def _fetch(response, path, sha256, least):
    """Write what an address has to a file, and check it."""
    digest, done, since, window = hashlib.sha256(), 0, 0, time.monotonic()
    try:
        with response, open(path, "wb") as file:
            while chunk := response.raw.read1(2**16):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                if sys.stdout.isatty():
                    print(f"\r  {done / 1e6:.1f} MB", end="", flush=True)
                if time.monotonic() - window > DEAD_SECONDS:
                    if done - since < least:
                        raise DownloadError("it gives next to nothing")
                    since, window = done, time.monotonic()
    except urllib3.exceptions.HTTPError:
        raise DownloadError("the connection was cut off, or nothing came") from None
    finally:
        if sys.stdout.isatty():
            print()
    if digest.hexdigest() != sha256:
        raise DownloadError("these are not the published bytes (SHA-256 differs)")


def _answer(url):
    """Ask for `url`, and wait `DEAD_SECONDS` at most; return the response.

    A thread asks, because no timeout of a socket covers the look-up of a name, nor several
    addresses of one name that are tried in turn.
    """
    print(f"  {url}", flush=True)
    answers = queue.SimpleQueue()

    def ask():
        plain = {"Accept-Encoding": "identity"}  # the bytes as they were published
        try:
            answers.put(requests.get(url, headers=plain, stream=True, timeout=DEAD_SECONDS))
        except requests.RequestException as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=DEAD_SECONDS)
    except queue.Empty:
        raise DownloadError(f"no answer in {DEAD_SECONDS} s") from None
    if isinstance(answer, Exception):
        raise DownloadError(f"{urlsplit(url).hostname} cannot be reached") from None
    if answer.status_code != 200:
        raise DownloadError(f"the server says {answer.status_code} {answer.reason}")
    return answer


def from_kaggle(handle, size, folder):
    """Fetch a data set of Kaggle's into a folder that is not there yet, or empty.

    It is there whole or not at all.

    Args:
        handle: Owner and name, as in its address.
        size: In words.
        folder: A `Path`.

    Returns:
        In words why it did not work, or None.

    Raises:
        OSError: The disk is full, or the folder not writable.
    """
    partial = folder.with_name(f"{folder.name}.part")
    print(f"Downloading {handle} ({size}) from Kaggle into {folder}", flush=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm's, in a notebook without ipywidgets
            import kagglehub

        place = kagglehub.dataset_download(handle, output_dir=str(partial), force_download=True)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed (pip install kagglehub)"
    except Exception as error:  # whatever kagglehub and its parts raise
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        return f"Kaggle did not give them ({type(error).__name__})"
    if partial.exists() and not folder.exists():
        partial.rename(folder)
        return None
    folder.mkdir(parents=True, exist_ok=True)  # hidden files may be there
    for entry in Path(place).iterdir():
        if partial.exists():
            entry.rename(folder / entry.name)
        else:  # in Kaggle's and Colab's own notebooks, it is there already
            (folder / entry.name).symlink_to(entry)
    shutil.rmtree(partial, ignore_errors=True)
    return None
