"""Arrays: where they come from, and what is said of those that cannot be used."""

import gzip
import hashlib
import http.server
import io
import shutil
import socket
import threading
import time
import zipfile

import keras
import numpy as np
import pytest
from conftest import REPO

from common import datasets
from common.options import Mistake


def arrays(**changes):
    """Images and labels of ten classes, in Keras's layout."""
    generator = np.random.default_rng(0)
    made = {
        "x_train": generator.integers(0, 256, (200, 28, 28), dtype=np.uint8),
        "y_train": np.arange(200) % 10,
        "x_test": generator.integers(0, 256, (20, 28, 28), dtype=np.uint8),
        "y_test": np.arange(20) % 10,
    }
    return made | changes


SOURCE = datasets.Source("folder", "photos")
NAMES = [f"class {i}" for i in range(10)]


# The three sources


def test_an_npz_file_in_the_folder_comes_first(tmp_path, no_cache):
    np.savez(tmp_path / "mnist.npz", **arrays())
    (x_train, y_train), (x_test, y_test), source = datasets.load("mnist", tmp_path)
    np.testing.assert_array_equal(x_train[..., 0], arrays()["x_train"])
    assert (x_test.shape, y_train.shape, y_test.shape) == ((20, 28, 28, 1), (200,), (20,))
    assert source == datasets.Source("folder", tmp_path / "mnist.npz")


def test_labels_in_a_column_come_as_a_row(tmp_path):
    color = {f"x_{part}": np.zeros((30, 32, 32, 3), np.uint8) for part in ("train", "test")}
    labels = {f"y_{part}": np.arange(30)[:, np.newaxis] % 10 for part in ("train", "test")}
    np.savez(tmp_path / "cifar10.npz", **color, **labels)
    (x_train, y_train), _, _ = datasets.load("cifar10", tmp_path)
    assert (x_train.shape, y_train.shape) == ((30, 32, 32, 3), (30,))


@pytest.mark.parametrize(
    ("name", "counts", "shape"),
    [
        ("mnist", (4000, 1000), (28, 28, 1)),
        ("fashion-mnist", (5000, 1000), (28, 28, 1)),
        ("cifar10", (5000, 1000), (32, 32, 3)),
    ],
)
def test_without_network_the_sample_is_used_and_the_notice_says_what_to_do(
    name, counts, shape, tmp_path, no_cache, capsys
):
    (x_train, y_train), (x_test, y_test), source = datasets.load(name, tmp_path)
    told = capsys.readouterr().out
    assert f"Notice: {name} could not be downloaded" in told
    assert str(tmp_path / f"{name}.npz") in told
    assert source.kind == "sample" and source.note in told
    assert (x_train.shape, x_test.shape) == ((counts[0], *shape), (counts[1], *shape))
    assert len(set(np.bincount(y_train))) == len(set(np.bincount(y_test))) == 1
    datasets.check(x_train, y_train, x_test, y_test, NAMES, source)
    again, _, _ = datasets.load(name, tmp_path, sample=True)
    np.testing.assert_array_equal(again[0], x_train)
    assert "Notice" not in capsys.readouterr().out


def test_without_its_weights_there_is_no_pretrained_model(no_cache, capsys):
    models = datasets._keras_home() / "models"
    shutil.rmtree(models, ignore_errors=True)
    options = {"input_shape": (96, 96, 3), "include_top": False}
    assert datasets.pretrained(keras.applications.MobileNetV2, **options) is None
    told = capsys.readouterr().out
    assert "Notice: the weights of MobileNetV2 could not be loaded" in told
    models.mkdir()
    stem = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_96_no_top.h5"
    (models / stem).write_bytes(b"cut off")
    try:
        assert datasets.pretrained(keras.applications.MobileNetV2, **options) is None
        assert str(models) in capsys.readouterr().out
    finally:
        shutil.rmtree(models)


def idx(array):
    """An array as one of Fashion-MNIST's files."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return gzip.compress(header + array.astype(np.uint8).tobytes())


@pytest.fixture
def server(monkeypatch, no_cache):
    """A mirror of Fashion-MNIST: its files by name, which a test fills, and what it was asked."""
    made = arrays()
    files = {
        "train-images-idx3-ubyte.gz": idx(made["x_train"]),
        "train-labels-idx1-ubyte.gz": idx(made["y_train"]),
        "t10k-images-idx3-ubyte.gz": idx(made["x_test"]),
        "t10k-labels-idx1-ubyte.gz": idx(made["y_test"]),
    }
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path[1:])
            if content is None:
                return self.send_error(404)
            if content == b"":
                time.sleep(20)  # says nothing
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            return self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    mirror = f"http://127.0.0.1:{server.server_address[1]}/"
    ways = []
    for way in datasets._WAYS["fashion-mnist"][:1]:
        for file in way:
            sha256 = hashlib.sha256(files[file["fname"]]).hexdigest()
            ways.append(file | {"origin": mirror + file["fname"], "file_hash": sha256})
    dead = [file | {"origin": file["origin"].replace("127.0.0.1", "127.0.0.2")} for file in ways]
    monkeypatch.setitem(datasets._WAYS, "fashion-mnist", [dead, ways])
    yield files, asked
    server.shutdown()


def test_the_second_mirror_is_asked_where_the_first_is_dead(server, tmp_path):
    (x_train, y_train), _, source = datasets.load("fashion-mnist", tmp_path)
    assert source.kind == "keras"
    np.testing.assert_array_equal(x_train[..., 0], arrays()["x_train"])
    assert y_train.tolist() == arrays()["y_train"].tolist()
    before = len(server[1])
    datasets.load("fashion-mnist", tmp_path)
    assert len(server[1]) == before  # from the cache


@pytest.mark.parametrize("fault", ["other bytes", "nothing there", "silence"])
def test_what_a_mirror_does_not_give_ends_in_the_sample(
    server, fault, tmp_path, monkeypatch, capsys
):
    files, _ = server
    content = {"other bytes": gzip.compress(b"no idx"), "nothing there": None, "silence": b""}
    files["t10k-images-idx3-ubyte.gz"] = content[fault]
    monkeypatch.setattr(datasets, "PATIENCE", 0.5)
    former = socket.getdefaulttimeout()
    assert datasets.load("fashion-mnist", tmp_path)[2].kind == "sample"
    assert socket.getdefaulttimeout() == former
    assert "could not be downloaded" in capsys.readouterr().out


def test_a_full_disk_is_no_dead_network(tmp_path, no_cache, monkeypatch):
    import errno

    import keras

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(keras.utils, "get_file", full)
    monkeypatch.setattr(datasets, "_await_answer", lambda url: None)
    with pytest.raises(OSError, match="No space"):
        datasets.load("cifar10", tmp_path)


def test_the_samples_are_cut_as_the_data_readme_says(tmp_path, monkeypatch):
    (tmp_path / "data" / "sample").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    readme = (REPO / "data" / "README.md").read_text(encoding="utf-8")
    recipe = readme.split("```python\n")[1].split("```")[0]
    compared = 0
    for name in ("mnist", "fashion-mnist"):
        whole = REPO / "data" / f"{name}.npz"
        if whole.exists():
            (tmp_path / "data" / whole.name).symlink_to(whole)
            exec(recipe, {"name": name})
            made = datasets.read_npz(tmp_path / "data" / "sample" / f"{name}.npz")
            kept = datasets.read_npz(REPO / "data" / "sample" / f"{name}.npz")
            for key, array in kept.items():
                np.testing.assert_array_equal(array, made[key])
            compared += 1
    if not compared:
        pytest.skip("neither set is here whole")


# Files and arrays that cannot be used


def npz(**content):
    file = io.BytesIO()
    np.savez(file, **content)
    return file.getvalue()


def without_crc(content):
    damaged = bytearray(content)
    damaged[2000] ^= 1
    return bytes(damaged)


def other_archive():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("x_train.npy", "text")
    return file.getvalue()


DAMAGED = {
    "cut off": npz(**arrays())[:20_000],
    "empty": b"",
    "text": b"<html>",
    "other bytes": without_crc(npz(**arrays())),
    "no arrays": other_archive(),
    "an array lacking": npz(x_train=arrays()["x_train"]),
    "Python objects": npz(**arrays(y_test=np.array([None] * 20))),
    "single numbers": npz(**arrays(y_test=3)),
    "other images": npz(**arrays(x_train=np.zeros((10, 27, 28), np.uint8))),
}


@pytest.mark.parametrize("fault", DAMAGED)
def test_a_file_that_cannot_be_used_is_named_and_left_as_it_is(fault, tmp_path, no_cache):
    path = tmp_path / "mnist.npz"
    path.write_bytes(DAMAGED[fault])
    with pytest.raises(Mistake) as error:
        datasets.load("mnist", tmp_path)
    assert f"{path}: " in str(error.value)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == DAMAGED[fault]


GOOD = arrays()
X = GOOD["x_train"][..., np.newaxis]
FAULTY = {
    "pixels of 0 to 1": ({"x_train": X / 255}, "float64 up to 1"),
    "pixels of 0 and 1": ({"x_train": X // 128}, "uint8 up to 1"),
    "no channels": ({"x_train": X[..., 0]}, r"shape \(200, 28, 28\)"),
    "two channels": ({"x_train": np.concatenate([X, X], axis=3)}, "1 or 3 channels"),
    "other test images": ({"x_test": X[:20, :27]}, r"\(27, 28, 1\), x_train of \(28, 28, 1\)"),
    "labels from 1": ({"y_train": GOOD["y_train"] + 1}, "labels from 1 to 10, not from 0 to 9"),
    "negative labels": ({"y_test": GOOD["y_test"] - 1}, "labels from -1"),
    "texts": ({"y_train": np.array(["cup"] * 200)}, "whole numbers"),
    "floats": ({"y_test": GOOD["y_test"] / 1}, "float64"),
    "one-hot": ({"y_test": np.eye(10, dtype=int)[GOOD["y_test"]]}, r"shape \(20, 10\) for 20"),
    "fewer labels": ({"y_test": GOOD["y_test"][:19]}, r"shape \(19,\) for 20"),
    "a class lacking": ({"y_train": GOOD["y_train"] % 9}, "0 images of class 9"),
    "no images": ({"x_test": X[:0], "y_test": GOOD["y_test"][:0]}, "x_test"),
    "a list of images": ({"x_test": [[1, 2]]}, "x_test"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_arrays_of_ones_own_are_checked_in_one_line(fault):
    changes, answer = FAULTY[fault]
    own = {"x_train": X, "x_test": X[:20], "y_train": GOOD["y_train"], "y_test": GOOD["y_test"]}
    datasets.check(**own, class_names=NAMES, source=SOURCE)
    with pytest.raises(Mistake, match=answer) as error:
        datasets.check(**own | changes, class_names=NAMES, source=SOURCE)
    assert "photos: " in str(error.value)


def test_a_class_that_no_test_image_shows_is_said(capsys):
    datasets.check(X, GOOD["y_train"], X[:20], GOOD["y_test"] % 9, NAMES, SOURCE)
    assert "class 9" in capsys.readouterr().out
