"""Downloads, from a server of the test's own: dead, silent, slow, cut off, wrong, then good."""

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
from test_formats import archive, write_batches, write_idx_set

from common import datasets, downloads

CONTENT = {
    "one.bin": np.random.default_rng(1).bytes(300_000),
    "two.bin": np.random.default_rng(2).bytes(40_000),
}


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves /<manner>/<file>; the manner says what is bad about it."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        _, manner, name = self.path.split("/")
        server = self.server
        server.requests.append((manner, name))
        half_the_set = manner == "half" and name == list(server.content)[-1]
        if name not in server.content or manner == "missing" or half_the_set:
            self.send_error(404)
            return
        if manner == "silent":
            server.released.wait(20)
            self.close_connection = True
            return
        body = server.content[name]
        if manner == "wrong":
            body = bytes(len(body))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
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
    """A second for what a user waits 10 s for."""
    monkeypatch.setattr(downloads, "DEAD_SECONDS", 1)


@pytest.fixture
def dead():
    """The address of a port where nobody listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/"


@pytest.fixture
def things(server):
    """Two files, from mirrors of these manners: `things("cut", "good")`."""
    return lambda *manners: published(*(f"{server.url}/{manner}/" for manner in manners))


def published(*mirrors, content=CONTENT, name="things"):
    return downloads.Published(
        name=name,
        size="0.3 MB",
        sha256={file: hashlib.sha256(data).hexdigest() for file, data in content.items()},
        mirrors=mirrors,
        by_hand="http://by.hand/things.npz",
    )


def assert_complete(folder):
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == CONTENT


def test_a_good_mirror_gives_all_files(server, things, tmp_path, capsys):
    downloads.download(things("good"), tmp_path / "new" / "folder")
    assert_complete(tmp_path / "new" / "folder")
    said = capsys.readouterr().out
    assert f"Downloading things, 0.3 MB, into {tmp_path / 'new' / 'folder'}" in said
    assert f"{server.url}/good/one.bin" in said


@pytest.mark.parametrize(
    ("manner", "reason"),
    [
        ("missing", "the server says 404"),
        ("half", "the server says 404"),
        ("silent", "no answer in 1 s|cannot be reached"),
        ("stalled", "the connection was cut off, or nothing came"),
        ("slow", "it gives next to nothing"),
        ("drip", "it gives next to nothing"),
        ("cut", "the connection was cut off, or nothing came"),
        ("wrong", "these are not the published bytes"),
    ],
)
def test_a_bad_mirror_is_left_for_a_good_one_and_alone_gives_nothing(
    server, things, tmp_path, manner, reason
):
    began = time.monotonic()
    downloads.download(things(manner, "good"), tmp_path / "both")
    assert time.monotonic() - began < 10
    assert_complete(tmp_path / "both")
    names = [name for asked, name in server.requests if asked == "good"]
    assert names == ["one.bin", "two.bin"]  # one mirror gives all
    with pytest.raises(downloads.DownloadError, match=f"{server.url}/{manner}/: .*({reason})"):
        downloads.download(things(manner), tmp_path / "alone")
    assert list((tmp_path / "alone").glob("*")) == []


def test_of_several_bad_mirrors_each_is_named_with_its_reason(server, things, tmp_path):
    with pytest.raises(downloads.DownloadError) as error:
        downloads.download(things("missing", "wrong"), tmp_path)
    first, second = str(error.value).splitlines()
    assert first == f"  {server.url}/missing/: the server says 404 Not Found"
    assert second.startswith(f"  {server.url}/wrong/: these are not the published bytes")


def test_a_dead_port_and_an_unknown_name_cost_little(server, dead, tmp_path):
    mirrors = [dead, "http://nowhere.invalid/", f"{server.url}/good/"]
    began = time.monotonic()
    downloads.download(published(*mirrors), tmp_path)
    assert time.monotonic() - began < 5
    assert_complete(tmp_path)
    with pytest.raises(downloads.DownloadError, match=r"127\.0\.0\.1 cannot be reached"):
        downloads.download(published(dead), tmp_path / "other")
    assert not (tmp_path / "other").exists()


# The loaders


@pytest.fixture
def small(server, tmp_path, monkeypatch, no_cache):
    """Make a loader's set a small one of the server's: `small("MNIST", content, "cut", "good")`."""

    def small(constant, content, *manners):
        server.content = content
        mirrors = [f"{server.url}/{manner}/" for manner in manners]
        name = getattr(datasets, constant).name
        monkeypatch.setattr(datasets, constant, published(*mirrors, content=content, name=name))

    return small


@pytest.fixture
def grey(tmp_path):
    """The files of a small set like MNIST, as bytes."""
    write_idx_set(tmp_path / "made", ".gz", count=200)
    return {path.name: path.read_bytes() for path in sorted((tmp_path / "made").iterdir())}


def test_the_loader_downloads_into_the_data_folder_and_finds_it_there(
    server, small, grey, tmp_path
):
    small("MNIST", grey, "cut", "good")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "download"
    count = len(server.requests)
    (x_train, _), _, source = datasets.load_mnist(tmp_path / "data")
    assert source == datasets.Source("folder", tmp_path / "data" / "mnist")
    assert len(x_train) == 1000
    assert len(server.requests) == count


def test_a_download_that_failed_falls_back_to_the_sample_and_succeeds_in_the_next_run(
    server, small, grey, tmp_path, capsys
):
    small("MNIST", grey, "cut")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "sample"
    notice = capsys.readouterr().out.split("Notice")[1]
    assert f"{server.url}/cut/" in notice
    assert f"put http://by.hand/things.npz into {tmp_path / 'data' / 'mnist'}" in notice
    small("MNIST", grey, "good")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "download"


def test_a_download_that_was_killed_is_not_taken_for_a_set(small, grey, tmp_path):
    folder = tmp_path / "data" / "mnist"
    (folder / ".part-of_it").mkdir(parents=True)
    for name, content in grey.items():
        (folder / ".part-of_it" / name).write_bytes(content)
    small("MNIST", grey, "good")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "download"
    assert {path.name for path in folder.iterdir()} == {*grey, ".part-of_it"}


def test_a_download_that_was_killed_as_the_files_got_their_places_is_one_line(
    small, grey, tmp_path
):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    first = next(iter(grey))
    (folder / first).write_bytes(grey[first])
    small("MNIST", grey, "good")
    with pytest.raises(datasets.DataError, match="missing beside the other idx files"):
        datasets.load_mnist(tmp_path / "data")
    assert [path.name for path in folder.iterdir()] == [first]


def test_a_download_of_the_users_own_browser_does_not_hide_a_set(small, grey, tmp_path):
    folder = tmp_path / "data" / "mnist"
    folder.mkdir(parents=True)
    (folder / "holiday.zip.part").write_bytes(b"")
    small("MNIST", grey, "good")
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "download"
    assert datasets.load_mnist(tmp_path / "data")[2].kind == "folder"


def test_another_set_that_is_not_gzipped_where_a_download_would_go_is_one_line(
    small, grey, tmp_path
):
    first = np.array([*datasets._FIRST_LABELS["fashion-mnist"], *list(range(10)) * 10], np.uint8)
    write_idx_set(tmp_path / "data" / "mnist", count=22, y_train=first)
    small("MNIST", grey, "good")
    with pytest.raises(datasets.DataError, match="other files than the published ones are there"):
        datasets.load_mnist(tmp_path / "data")


def test_the_loaders_of_the_other_sets_download_too(small, grey, tmp_path):
    write_batches(tmp_path / "batches")
    archive(tmp_path / "cifar-10-python.tar.gz", tmp_path / "batches")
    packed = (tmp_path / "cifar-10-python.tar.gz").read_bytes()
    for constant, content, load in [
        ("FASHION_MNIST", grey, datasets.load_fashion_mnist),
        ("CIFAR10", {"cifar-10-python.tar.gz": packed}, datasets.load_cifar10),
    ]:
        small(constant, content, "wrong", "good")
        assert load(tmp_path / "data")[2].kind == "download"
        assert load(tmp_path / "data")[2].kind == "folder"
        folder = tmp_path / "data" / getattr(datasets, constant).name
        assert {path.name for path in folder.iterdir()} == set(content)


def test_every_published_set_has_mirrors_and_checksums():
    for published_set in [datasets.MNIST, datasets.FASHION_MNIST, datasets.CIFAR10]:
        assert len(set(published_set.mirrors)) >= 2
        assert all(mirror.endswith("/") for mirror in published_set.mirrors)
        assert published_set.sha256
        for sha256 in published_set.sha256.values():
            assert re.fullmatch("[0-9a-f]{64}", sha256)
    assert len(datasets.CIFAR10.mirrors) >= 3
    assert "cs.toronto.edu" in datasets.CIFAR10.mirrors[-1]  # the slowest


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
