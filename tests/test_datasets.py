"""Where data are found, in which order, and what is said of files that cannot be used."""

import gzip
import io
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO

from common import datasets


def arrays(count=20, **changes):
    """Four small arrays like MNIST's, with every class."""
    generator = np.random.default_rng(0)
    made = {}
    for part in ["train", "test"]:
        made[f"x_{part}"] = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        made[f"y_{part}"] = np.arange(count, dtype=np.uint8) % 10
    return made | changes


def write_idx(path, array):
    raw = b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    raw += array.tobytes()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


def write_idx_set(folder, suffix="", **changes):
    folder.mkdir(parents=True, exist_ok=True)
    for key, array in arrays(**changes).items():
        write_idx(folder / f"{datasets.IDX[key]}{suffix}", array)


@pytest.fixture
def no_download(monkeypatch, tmp_path):
    """No network and an empty Keras cache."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")


def load(folder):
    return datasets.load_mnist(folder)


# The four sources


@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_files_are_found(tmp_path, place, suffix):
    write_idx_set(tmp_path / place, suffix)
    (x_train, y_train), (x_test, _y_test), source = load(tmp_path)
    expected = arrays()
    np.testing.assert_array_equal(x_train[..., 0], expected["x_train"])
    np.testing.assert_array_equal(y_train, expected["y_train"])
    assert x_test.shape == (20, 28, 28, 1)
    assert source == datasets.Source("folder", tmp_path / place)


def test_npz_is_found_in_the_folder_before_the_cache(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    for folder in [tmp_path / "data", tmp_path / "keras" / "datasets"]:
        folder.mkdir(parents=True)
        np.savez(folder / "mnist.npz", **arrays())
    assert load(tmp_path / "data")[2].kind == "folder"
    assert load(tmp_path / "nothing")[2].kind == "cache"
    assert str(tmp_path / "keras" / "datasets" / "mnist.npz") in capsys.readouterr().out


def test_without_network_the_sample_is_used_and_the_notice_says_what_to_do(
    tmp_path, no_download, capsys
):
    (x_train, y_train), (x_test, y_test), source = load(tmp_path)
    assert source.kind == "sample"
    assert x_train.shape == (4000, 28, 28, 1)
    assert x_test.shape == (1000, 28, 28, 1)
    assert np.bincount(y_train).tolist() == [400] * 10
    assert np.bincount(y_test).tolist() == [100] * 10
    notice = capsys.readouterr().out
    for mirror in datasets.MNIST.mirrors:
        assert mirror in notice
    assert f"put {datasets.MNIST.by_hand} into {tmp_path}" in notice
    assert "small sample" in notice


def test_the_sample_is_taken_at_once_when_it_is_asked_for(tmp_path, capsys):
    np.savez(tmp_path / "mnist.npz", **arrays())
    assert datasets.load_mnist(tmp_path, sample=True)[2].kind == "sample"
    assert "Notice" not in capsys.readouterr().out


def test_the_sample_is_cut_as_the_data_readme_says(tmp_path, monkeypatch):
    full = REPO / "data" / "mnist.npz"
    if not full.exists():
        pytest.skip("the whole MNIST is not in data/")
    recipe = (REPO / "data" / "README.md").read_text(encoding="utf-8")
    recipe = recipe.split("```python\n")[1].split("```")[0]
    (tmp_path / "data" / "sample").mkdir(parents=True)
    (tmp_path / "data" / "mnist.npz").write_bytes(full.read_bytes())
    monkeypatch.chdir(tmp_path)
    exec(recipe, {})
    made = datasets.read_npz(Path("data/sample/mnist.npz"))
    for name, array in datasets.read_npz(REPO / "data" / "sample" / "mnist.npz").items():
        np.testing.assert_array_equal(array, made[name])


# Files that cannot be used


class Bomb:
    def __reduce__(self):
        return (exec, ("raise RuntimeError('the pickle was opened')",))


def npz(**content):
    file = io.BytesIO()
    np.savez_compressed(file, **content)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


GOOD = arrays()
MISTAKES = {
    "empty": (b"", "an empty file"),
    "cut off": (npz(**GOOD)[:20_000], "damaged or cut off"),
    "a web page": (b"<!DOCTYPE html><html>Not found</html>", "not an .npz file"),
    "a pickle": (pickle.dumps(Bomb()), "Python pickle, which could run code; it was not opened"),
    "objects": (npz(**GOOD | {"x_test": np.array([Bomb()])}), "Python pickle"),
    "one array": (npy(GOOD["x_train"]), "not an .npz file"),
    "an array lacking": (npz(**{k: v for k, v in GOOD.items() if k != "y_test"}), "y_test missing"),
    "other shape": (npz(**arrays(x_test=GOOD["x_test"][:, :27])), "x_test has the shape (20, 27"),
    "flat": (npz(**arrays(x_train=GOOD["x_train"].reshape(20, 784))), "x_train has the shape"),
    "floats": (npz(**arrays(x_train=GOOD["x_train"] / 255)), "x_train is of type float64, not"),
    "float labels": (npz(**arrays(y_test=GOOD["y_test"] / 1)), "y_test is of type float64"),
    "labels to 10": (npz(**arrays(y_train=GOOD["y_train"] + 1)), "labels from 1 to 10, not 0 to 9"),
    "negative": (npz(**arrays(y_train=GOOD["y_train"].astype(int) - 1)), "labels from -1 to 8"),
    "fewer labels": (npz(**arrays(y_test=GOOD["y_test"][:19])), "the shape (19,) for 20 pictures"),
    "one-hot": (npz(**arrays(y_test=np.eye(10, dtype=int)[GOOD["y_test"]])), "the shape (20, 10)"),
    "a class lacking": (npz(**arrays(y_train=GOOD["y_train"] % 8)), "no picture of class 8, 9"),
    "no pictures": (npz(**arrays(count=0)), "no picture of class 0, 1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_bad_npz_is_named_with_what_is_wrong_and_left_alone(tmp_path, mistake):
    content, answer = MISTAKES[mistake]
    path = tmp_path / "mnist.npz"
    path.write_bytes(content)
    with pytest.raises(datasets.DataError) as error:
        load(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert answer in str(error.value)
    assert str(error.value).endswith(datasets._RENEW)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_an_idx_file_that_is_cut_off_is_named(tmp_path, suffix):
    write_idx_set(tmp_path, suffix)
    path = tmp_path / f"t10k-images-idx3-ubyte{suffix}"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(datasets.DataError, match="damaged or cut off") as error:
        load(tmp_path)
    assert str(error.value).startswith(str(path))


def test_an_idx_file_that_is_none_is_named(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"<html>")
    with pytest.raises(datasets.DataError, match="train-labels-idx1-ubyte: not an idx file"):
        load(tmp_path)


def test_an_idx_set_that_lacks_a_file_says_which(tmp_path):
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(datasets.DataError, match="t10k-labels-idx1-ubyte: missing beside"):
        load(tmp_path)


def test_the_lesson_answers_bad_data_with_one_line_and_leaves_no_folder(lesson, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(npz(**GOOD)[:20_000])
    outputs = tmp_path / "outputs"
    done = lesson("train_mnist.py", "--data-dir", tmp_path, "--output-dir", outputs)
    assert done.returncode == 1
    assert done.stderr.startswith(f"train_mnist.py: error: {tmp_path / 'mnist.npz'}: damaged")
    assert done.stderr.count("\n") == 1
    assert list(outputs.glob("*/*")) == []
