"""Downloads: from one mirror after another, checked, and continued at the next try."""

import hashlib
import queue
import shutil
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3

from common.options import DISK

DEAD_SECONDS = 15  # a connection or a read that gives nothing for so long counts as dead
SLOW_SECONDS = 30  # over so long, a mirror below SLOW_RATE is left, if there is another
SLOW_RATE = 50_000  # bytes a second
STALLED_RATE = 1_000  # bytes a second; below it, even the last mirror is given up


class DownloadError(Exception):
    """No mirror gave a file whole; the message says what each answered."""


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
