"""Downloads, from a server of the test's own: dead, stalled, slow, cut off, wrong, then good."""

import errno
import hashlib
import http.server
import re
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from test_datasets import archive, write_batches, write_idx_set

from common import datasets, downloads

CONTENT = {
    "one.bin": np.random.default_rng(1).bytes(300_000),
    "two.bin": np.random.default_rng(2).bytes(40_000),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves /<manner>/<file>; the manner says what goes wrong."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, manner, name = self.path.split("/")
        server = self.server
        server.requests.append((manner, name, self.headers.get("Range")))
        if name not in server.content or manner == "missing":
            self.send_error(404)
            return
        if manner == "silent":
            server.released.wait(20)
            self.close_connection = True
            return
        body = server.content[name]
        if manner == "wrong":
            body = bytes(len(body))
        if manner == "longer":
            body += b"more"
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and manner not in ("norange", "wrong") else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        body = body[start:]
        if manner in ("stalled", "cut"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if manner == "stalled":
                server.released.wait(20)
            self.close_connection = True
            return
        if manner in ("slow", "drip"):
            piece = 2000 if manner == "slow" else 5
            for i in range(0, len(body), piece):
                if server.released.wait(0.1):
                    break
                self.wfile.write(body[i : i + piece])
            self.close_connection = True
            return
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.handle_error = lambda *_: None  # a client that hangs up is what is tested
        server.daemon_threads = True
        server.content, server.requests = dict(CONTENT), []
        server.released = threading.Event()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        server.url = f"http://127.0.0.1:{server.server_port}"
        yield server
        server.released.set()
        server.shutdown()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Seconds for what a user waits 15 and 30 s for."""
    monkeypatch.setattr(downloads, "DEAD_SECONDS", 1)
    monkeypatch.setattr(downloads, "SLOW_SECONDS", 1)


@pytest.fixture
def dead():
    """The address of a port where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/"


def published(*mirrors, content=CONTENT, name="things"):
    files = [
        downloads.RemoteFile(name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in content.items()
    ]
    return downloads.Published(name, tuple(files), mirrors, by_hand="http://by.hand/things.npz")


def assert_complete(folder):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_a_good_mirror_gives_all_files(server, tmp_path, capsys):
    downloads.download(published(f"{server.url}/good/"), tmp_path / "new" / "folder")
    assert_complete(tmp_path / "new" / "folder")
    said = capsys.readouterr().out
    assert f"{server.url}/good/one.bin (0.3 MB)" in said


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("missing", "the server says 404"),
        ("silent", "no answer in 1 s"),
        ("stalled", "nothing came for 1 s"),
        ("slow", "kB/s"),
        ("cut", "cut off|ended after 150,000 of 300,000"),
        ("wrong", "not the published ones"),
    ],
)
def test_a_bad_mirror_is_left_for_a_good_one(server, tmp_path, manner, reason):
    began = time.monotonic()
    downloads.download(published(f"{server.url}/{manner}/", f"{server.url}/good/"), tmp_path)
    assert_complete(tmp_path)
    assert time.monotonic() - began < 10
    asked = [request for request, name, _ in server.requests if name == "two.bin"]
    assert asked == ["good"]  # the bad mirror was not asked again

    for path in tmp_path.iterdir():
        path.unlink()
    if manner != "slow":  # slow is better than nothing
        with pytest.raises(downloads.DownloadError, match=reason):
            downloads.download(published(f"{server.url}/{manner}/"), tmp_path)
        assert not any(path.suffix == ".bin" for path in tmp_path.iterdir())


def test_a_dead_port_and_an_unknown_name_cost_nothing(server, dead, tmp_path):
    mirrors = [dead, "http://nowhere.invalid/", f"{server.url}/good/"]
    downloads.download(published(*mirrors), tmp_path)
    assert_complete(tmp_path)
    with pytest.raises(downloads.DownloadError, match="no connection to 127"):
        downloads.download(published(dead), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_slow_mirror_is_kept_when_it_is_the_last_and_a_dripping_one_is_not(server, tmp_path):
    content = {"two.bin": CONTENT["two.bin"]}
    downloads.download(published(f"{server.url}/slow/", content=content), tmp_path)
    assert (tmp_path / "two.bin").read_bytes() == CONTENT["two.bin"]
    with pytest.raises(downloads.DownloadError, match=r"only 0\.\d kB/s"):
        downloads.download(published(f"{server.url}/drip/", content=content), tmp_path / "other")


def test_what_arrived_in_part_is_continued(server, tmp_path):
    with pytest.raises(downloads.DownloadError):
        downloads.download(published(f"{server.url}/cut/"), tmp_path)
    assert (tmp_path / "one.bin.part").stat().st_size == 150_000
    downloads.download(published(f"{server.url}/good/"), tmp_path)
    assert_complete(tmp_path)
    assert ("good", "one.bin", "bytes=150000-") in server.requests


def test_a_server_that_cannot_continue_sends_the_whole(server, tmp_path):
    (tmp_path / "one.bin.part").write_bytes(CONTENT["one.bin"][:1000])
    downloads.download(published(f"{server.url}/norange/"), tmp_path)
    assert_complete(tmp_path)


def test_a_wrong_beginning_is_not_blamed_on_the_good_mirror(server, tmp_path):
    (tmp_path / "one.bin.part").write_bytes(bytes(1000))
    (tmp_path / "two.bin.part").write_bytes(bytes(50_000))  # longer than the file
    downloads.download(published(f"{server.url}/good/"), tmp_path)
    assert_complete(tmp_path)


def test_bytes_beyond_the_end_are_not_read(server, tmp_path):
    with pytest.raises(downloads.DownloadError, match="not the published"):
        downloads.download(published(f"{server.url}/longer/"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def mnist_like(folder):
    """A small data set with MNIST's file names, as bytes."""
    write_idx_set(folder, ".gz", count=200)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_loader_downloads_into_the_data_folder_and_finds_it_there(
    server, tmp_path, monkeypatch
):
    server.content = mnist_like(tmp_path / "made")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    mirrors = [f"{server.url}/cut/", f"{server.url}/good/"]
    mnist = published(*mirrors, content=server.content, name="mnist")
    monkeypatch.setattr(datasets, "MNIST", mnist)
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "download"
    count = len(server.requests)
    (x_train, _), _, source = datasets.load_mnist(tmp_path / "data")
    assert source.kind == "folder"
    assert len(x_train) == 1000
    assert len(server.requests) == count


def test_a_download_that_was_cut_off_falls_back_and_goes_on_at_the_next_run(
    server, tmp_path, monkeypatch, capsys
):
    server.content = mnist_like(tmp_path / "made")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def use(manner):
        mnist = published(f"{server.url}/{manner}/", content=server.content, name="mnist")
        monkeypatch.setattr(datasets, "MNIST", mnist)

    use("cut")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "sample"
    assert f"{server.url}/cut/" in capsys.readouterr().out.split("Notice")[1]
    use("good")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "download"
    assert any(asked for _, _, asked in server.requests)


def test_the_loaders_of_the_other_sets_download_too(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
    write_batches(tmp_path / "made")
    archive(tmp_path / "cifar-10-python.tar.gz", tmp_path / "made")
    packed = (tmp_path / "cifar-10-python.tar.gz").read_bytes()
    fashion = mnist_like(tmp_path / "clothes")
    server.content = fashion | {"cifar-10-python.tar.gz": packed}
    mirrors = [f"{server.url}/wrong/", f"{server.url}/good/"]
    sets = [
        ("FASHION_MNIST", "fashion-mnist", fashion, datasets.load_fashion_mnist),
        ("CIFAR10", "cifar10", {"cifar-10-python.tar.gz": packed}, datasets.load_cifar10),
    ]
    for constant, name, content, load in sets:
        changed = published(*mirrors, content=content, name=name)
        monkeypatch.setattr(datasets, constant, changed)
        assert load(tmp_path / "data")[2].kind == "download"
        assert load(tmp_path / "data")[2].kind == "folder"
        assert {path.name for path in (tmp_path / "data" / name).iterdir()} == set(content)


def test_every_published_set_has_mirrors_and_checksums():
    for published_set in [datasets.MNIST, datasets.FASHION_MNIST, datasets.CIFAR10]:
        assert len(set(published_set.mirrors)) >= 2
        for file in published_set.files:
            assert re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert len(datasets.CIFAR10.mirrors) >= 3


# Kaggle


class Kaggle:
    """Stands in for kagglehub: writes two images, or fails as it does."""

    def __init__(self, error=None):
        self.error = error

    def dataset_download(self, handle, *, output_dir, force_download):
        assert handle == "who/what"
        assert force_download  # what a run before has left half done is no obstacle
        for name in ["one.jpg", "two.jpg"]:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            (Path(output_dir) / name).write_bytes(b"image")
            if self.error:
                raise self.error
        return output_dir


@pytest.mark.parametrize("before", [False, True])
def test_kaggles_images_are_there_whole_or_not_at_all(tmp_path, monkeypatch, before):
    folder = tmp_path / "data" / "cups"
    if before:  # empty
        folder.mkdir(parents=True)
    answers = [
        (Kaggle(requests.ConnectionError("far")), "Kaggle did not give them (ConnectionError)"),
        (Kaggle(ValueError("none such\nat all")), "Kaggle did not give them (ValueError)"),
        (None, "kagglehub is not installed (pip install kagglehub)"),
    ]
    for kaggle, answer in answers:
        monkeypatch.setitem(sys.modules, "kagglehub", kaggle)
        assert downloads.from_kaggle("who/what", "1 GB", folder) == answer
    monkeypatch.setitem(sys.modules, "kagglehub", Kaggle(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        downloads.from_kaggle("who/what", "1 GB", folder)
    assert list(folder.glob("*")) == []
    monkeypatch.setitem(sys.modules, "kagglehub", Kaggle())
    assert downloads.from_kaggle("who/what", "1 GB", folder) is None
    assert sorted(path.name for path in folder.iterdir()) == ["one.jpg", "two.jpg"]
    assert [path.name for path in folder.parent.iterdir()] == ["cups"]
