"""Where data are found, in which order, and what is said of files that cannot be used."""

import gzip
import io
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO

from common import datasets


def arrays(count=20, **changes):
    """Four small arrays like MNIST's, with every class: five times as many to train on."""
    generator = np.random.default_rng(0)
    made = {}
    for part, images in [("train", 5 * count), ("test", count)]:
        made[f"x_{part}"] = generator.integers(0, 256, (images, 28, 28), dtype=np.uint8)
        made[f"y_{part}"] = np.arange(images, dtype=np.uint8) % 10
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
    """No network, and nothing where other programs put it."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "share"))
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


@pytest.mark.parametrize("place", [".", "fashion-mnist", "FashionMNIST/raw"])
def test_fashion_mnist_is_found(tmp_path, place):
    write_idx_set(tmp_path / place, ".gz")
    (x_train, _), _, source = datasets.load_fashion_mnist(tmp_path)
    assert x_train.shape == (100, 28, 28, 1)
    assert source == datasets.Source("folder", tmp_path / place)


def test_fashion_mnist_is_found_where_keras_puts_it(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    place = tmp_path / "keras" / "datasets" / "fashion-mnist"
    write_idx_set(place, ".gz")
    assert datasets.load_fashion_mnist(tmp_path)[2] == datasets.Source("cache", place)


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch, no_download):
    place = tmp_path / "share" / "datasets" / "fashion-mnist"
    write_idx_set(place, ".gz")
    assert datasets.load_fashion_mnist(tmp_path)[2] == datasets.Source("cache", place)
    monkeypatch.delenv("XDG_DATA_DIRS")
    assert Path("/usr/share") in datasets.system_places()


def test_a_set_is_not_taken_for_the_other_one_under_the_same_names(tmp_path, no_download):
    for name, other in [("mnist", "fashion-mnist"), ("fashion-mnist", "mnist")]:
        first = np.array([*datasets._FIRST_LABELS[name], *list(range(10)) * 10], np.uint8)
        folder = tmp_path / name
        write_idx_set(folder, count=22, y_train=first)
        loaders = {"mnist": load, "fashion-mnist": datasets.load_fashion_mnist}
        assert loaders[name](folder)[2].kind == "folder"
        assert loaders[other](folder)[2].kind != "folder"


def test_the_first_labels_are_those_of_the_published_files():
    published = Path("/usr/share/datasets/fashion-mnist/train-labels-idx1-ubyte.gz")
    if not published.exists():
        pytest.skip("dataset-fashion-mnist is not installed")
    assert tuple(datasets.read_idx(published)[:10]) == datasets._FIRST_LABELS["fashion-mnist"]


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


def test_the_samples_are_cut_as_the_data_readme_says(tmp_path, monkeypatch):
    wholes = {
        "mnist": REPO / "data" / "mnist.npz",
        "fashion-mnist": Path("/usr/share/datasets/fashion-mnist"),
    }
    (tmp_path / "data" / "sample").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    readme = (REPO / "data" / "README.md").read_text(encoding="utf-8")
    recipes = [text.split("```")[0] for text in readme.split("```python\n")[1:]]
    compared = 0
    for (name, whole), recipe in zip(wholes.items(), recipes, strict=True):
        if not whole.exists():
            continue
        if whole.is_file():
            (tmp_path / "data" / whole.name).write_bytes(whole.read_bytes())
        exec(recipe, {})
        made = datasets.read_npz(Path(f"data/sample/{name}.npz"))
        for key, array in datasets.read_npz(REPO / "data" / "sample" / f"{name}.npz").items():
            np.testing.assert_array_equal(array, made[key])
        compared += 1
    if not compared:
        pytest.skip("neither set is here whole")


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
    "flat": (npz(**arrays(x_train=GOOD["x_train"].reshape(100, 784))), "x_train has the shape"),
    "floats": (npz(**arrays(x_train=GOOD["x_train"] / 255)), "x_train is of type float64, not"),
    "float labels": (npz(**arrays(y_test=GOOD["y_test"] / 1)), "y_test is of type float64"),
    "labels to 10": (npz(**arrays(y_train=GOOD["y_train"] + 1)), "labels from 1 to 10, not 0 to 9"),
    "negative": (npz(**arrays(y_train=GOOD["y_train"].astype(int) - 1)), "labels from -1 to 8"),
    "fewer labels": (npz(**arrays(y_test=GOOD["y_test"][:19])), "the shape (19,) for 20 images"),
    "one-hot": (npz(**arrays(y_test=np.eye(10, dtype=int)[GOOD["y_test"]])), "the shape (20, 10)"),
    "a class lacking": (npz(**arrays(y_train=GOOD["y_train"] % 8)), "no image of class 8, 9"),
    "no images": (npz(**arrays(count=0)), "no image of class 0, 1"),
    "too few": (npz(**arrays(count=10)), "y_train has 5 images of class 0, and 10 are the least"),
}


def encrypted():
    """An .npz whose members ask for a password."""
    made = bytearray(npz(**GOOD))
    for signature, flags in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)]:
        place = made.find(signature)
        while place >= 0:
            made[place + flags] |= 1
            place = made.find(signature, place + 4)
    return bytes(made)


def damaged_inside():
    made = bytearray(npz(**GOOD))
    made[1000:1100] = bytes(100)
    return bytes(made)


def promising_terabytes():
    """An array whose header promises a billion images, and has twenty."""
    header = npy(GOOD["x_test"]).replace(b"(20, 28, 28), }" + b" " * 8, b"(2000000000, 28, 28), }")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, array in GOOD.items():
            archive.writestr(f"{name}.npy", header if name == "x_test" else npy(array))
    return file.getvalue()


MISTAKES |= {
    "encrypted": (encrypted(), "damaged or cut off"),
    "damaged inside": (damaged_inside(), "damaged or cut off"),
    "terabytes": (promising_terabytes(), "header promises 1,568,000,000,000"),
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names on Windows")
@pytest.mark.parametrize("name", ["mnist.npz", "train-labels-idx1-ubyte", "data_batch_1"])
def test_a_pipe_under_the_name_of_a_file_is_named(tmp_path, name):
    write_idx_set(tmp_path)
    batches = tmp_path / "cifar-10-batches-py"
    write_batches(batches)
    path = batches / name if name == "data_batch_1" else tmp_path / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    with pytest.raises(datasets.DataError, match="not a regular file") as error:
        datasets.load_cifar10(tmp_path) if path.parent == batches else load(tmp_path)
    assert str(error.value).startswith(f"{path}: ")


def test_images_under_the_name_of_the_labels_are_named(tmp_path):
    write_idx_set(tmp_path)
    for part in ["train", "t10k"]:
        images = (tmp_path / f"{part}-images-idx3-ubyte").read_bytes()
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(images)
    with pytest.raises(datasets.DataError, match=r"y_train has the shape \(100, 28, 28\) for 100"):
        load(tmp_path)


def test_a_cache_that_may_not_be_entered_is_passed_over(tmp_path, no_download):
    closed = tmp_path / "keras"
    (closed / "datasets").mkdir(parents=True)
    np.savez(closed / "datasets" / "mnist.npz", **arrays())
    closed.chmod(0)
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)  # a user who may not enter it
    try:
        found = load(Path("/nowhere"))[2].kind
    finally:
        if root:
            os.seteuid(0)
        closed.chmod(0o700)
    assert found == "sample"


def test_a_user_without_a_home_has_no_cache(tmp_path, monkeypatch):
    def unknown(_):
        raise KeyError("this user is not in the list")

    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    assert datasets.keras_cache() is None
    np.savez(tmp_path / "mnist.npz", **arrays())
    assert load(tmp_path)[2].kind == "folder"


def test_another_set_where_a_download_would_go_is_one_line(tmp_path, no_download):
    folder = tmp_path / "mnist"
    first = np.array([*datasets._FIRST_LABELS["fashion-mnist"], *list(range(10)) * 10], np.uint8)
    write_idx_set(folder, ".gz", count=22, y_train=first)
    with pytest.raises(datasets.DataError, match="other files than the published ones are there"):
        load(tmp_path)


def test_without_data_and_sample_one_line_says_what_is_needed(tmp_path, monkeypatch, no_download):
    monkeypatch.setattr(datasets, "SAMPLES", tmp_path / "sample")
    with pytest.raises(datasets.DataError, match=r"there are no data in .* --data-dir; by hand"):
        load(tmp_path)


# CIFAR-10


def batch(count=20, **changes):
    """One batch of CIFAR-10, as its files hold it."""
    data = np.random.default_rng(count).integers(0, 256, (count, 3072), dtype=np.uint8)
    labels = [i % 10 for i in range(count)]
    made = {b"batch_label": b"a batch", b"labels": labels, b"data": data, b"filenames": []}
    return made | {key.encode(): value for key, value in changes.items()}


def write_batches(folder, protocol=3, **contents):
    folder.mkdir(parents=True)
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        content = contents.get(name, pickle.dumps(batch(), protocol=protocol))
        if content is not None:
            (folder / name).write_bytes(content)


def archive(path, folder):
    with tarfile.open(path, "w:gz") as file:
        file.add(folder, "cifar-10-batches-py")


@pytest.mark.parametrize("place", ["", "cifar10", "cifar-10-batches-py"])
def test_cifar10_is_found_in_its_folder(tmp_path, place):
    folder = tmp_path / ("cifar10" if place == "cifar10" else "") / "cifar-10-batches-py"
    write_batches(folder)
    given = folder if place == "cifar-10-batches-py" else tmp_path
    (x_train, y_train), (x_test, y_test), source = datasets.load_cifar10(given)
    assert source == datasets.Source("folder", folder)
    assert x_train.shape == (100, 32, 32, 3)
    assert x_train.dtype == y_train.dtype == np.uint8
    assert y_train.tolist() == list(range(10)) * 10
    # Red comes first in a file, then green, then blue, each row by row.
    stored = batch()[b"data"][3]
    np.testing.assert_array_equal(x_train[3, 2, 5], stored[[69, 1093, 2117]])
    np.testing.assert_array_equal(x_test[3], x_train[3])
    assert len(y_test) == 20


def test_other_counts_than_the_published_ones_are_told(tmp_path, capsys):
    write_batches(tmp_path / "cifar-10-batches-py")
    datasets.load_cifar10(tmp_path)
    told = capsys.readouterr().out
    assert f"not the published 5,000 images of each class: {[10] * 10}" in told
    assert f"not the published 1,000 images of each class: {[2] * 10}" in told
    datasets.load_cifar10(tmp_path, sample=True)
    assert "Notice" not in capsys.readouterr().out


def test_cifar10_is_read_from_its_archive_and_nothing_is_extracted(tmp_path):
    write_batches(tmp_path / "made")
    (tmp_path / "data").mkdir()
    archive(tmp_path / "data" / "cifar-10-python.tar.gz", tmp_path / "made")
    _, _, source = datasets.load_cifar10(tmp_path / "data")
    assert source.path == tmp_path / "data" / "cifar-10-python.tar.gz"
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["cifar-10-python.tar.gz"]


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py-target"])
def test_cifar10_is_found_where_keras_puts_it(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    place = tmp_path / "keras" / "datasets" / folder / "cifar-10-batches-py"
    write_batches(place)
    assert datasets.load_cifar10(tmp_path / "data")[2] == datasets.Source("cache", place)


def test_the_published_spelling_of_arrays_is_read_without_a_warning(tmp_path, recwarn):
    # What Python 2 and NumPy 1 wrote: numpy.core, and a dtype with align=0.
    spelled = pickle.dumps(batch(), protocol=2)
    assert b"_codecs" in spelled  # bytes, as Python 3 spells them for Python 2: not admitted
    modern = pickle.dumps(batch(), protocol=3)
    published = modern.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")
    assert published != modern
    write_batches(tmp_path / "cifar-10-batches-py", data_batch_1=published)
    assert len(datasets.load_cifar10(tmp_path)[0][0]) == 100
    assert not recwarn.list


BROKEN_BATCHES = {
    "lacking": (None, "missing beside the other batches"),
    "empty": (b"", "empty"),
    "cut off": (pickle.dumps(batch())[:9000], "damaged or cut off"),
    "a web page": (b"<!DOCTYPE html><html>Not found</html>", "damaged or cut off"),
    "code": (pickle.dumps(Bomb()), "could run code; it was not opened (it names builtins.exec)"),
    "code inside": (pickle.dumps(batch(data=Bomb())), "could run code; it was not opened"),
    "a list": (pickle.dumps([1, 2]), "no batch of CIFAR-10"),
    "CIFAR-100": (pickle.dumps(batch(labels=None)), "no batch of CIFAR-10"),
    "floats": (pickle.dumps(batch(data=np.zeros((20, 3072)))), "float64 of shape (20, 3072), not"),
    "one row": (pickle.dumps(batch(data=np.zeros(3072, np.uint8))), "uint8 of shape (3072,), not"),
    "fewer labels": (pickle.dumps(batch(labels=[1])), "not one whole number as a label"),
    "names": (pickle.dumps(batch(labels=["cat"] * 20)), "not one whole number as a label"),
    "labels to 10": (pickle.dumps(batch(labels=[10] * 20)), "labels from 10 to 10, not 0 to 9"),
}


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch"])
@pytest.mark.parametrize("mistake", BROKEN_BATCHES)
def test_a_bad_batch_is_named_with_what_is_wrong_and_left_alone(tmp_path, mistake, name):
    content, answer = BROKEN_BATCHES[mistake]
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder, **{name: content})
    with pytest.raises(datasets.DataError) as error:
        datasets.load_cifar10(tmp_path)
    assert str(error.value).startswith(f"{folder / name}: ")
    assert answer in str(error.value)
    assert str(error.value).endswith(datasets._RENEW)
    assert "\n" not in str(error.value)
    assert content is None or (folder / name).read_bytes() == content


def test_a_bad_archive_is_named(tmp_path):
    write_batches(tmp_path / "made")
    path = tmp_path / "cifar-10-python.tar.gz"
    archive(path, tmp_path / "made")
    whole = path.read_bytes()
    for content in [whole[: len(whole) // 2], b"", b"<html>"]:
        path.write_bytes(content)
        with pytest.raises(datasets.DataError, match=r"damaged or cut off|missing") as error:
            datasets.load_cifar10(tmp_path)
        assert str(error.value).startswith(str(path))
        assert path.read_bytes() == content


def test_a_batch_with_code_ends_the_lesson_with_one_line(lesson, tmp_path):
    class Touch:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    write_batches(tmp_path / "cifar-10-batches-py", data_batch_3=pickle.dumps(batch(data=Touch())))
    done = lesson("train_cifar10.py", "--data-dir", tmp_path, "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    assert done.stderr.startswith(f"train_cifar10.py: error: {path}: holds a Python pickle")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "touched").exists()
    assert list((tmp_path / "out").glob("*/*")) == []


def test_without_cifar10_drawings_stand_in_and_are_drawn_once(tmp_path, no_download, capsys):
    (x_train, y_train), (x_test, y_test), source = datasets.load_cifar10(tmp_path)
    told = capsys.readouterr().out
    for mirror in datasets.CIFAR10.mirrors:
        assert mirror in told
    assert "Drawings made by this program, not photographs" in told
    assert source.kind == "sample"
    assert "not photographs" in source.note
    assert x_train.shape == (5000, 32, 32, 3)
    assert np.bincount(y_train).tolist() == [500] * 10
    assert np.bincount(y_test).tolist() == [100] * 10
    drawn = tmp_path / "sample" / "cifar-10-batches-py"
    before = {path.name: path.stat().st_mtime_ns for path in drawn.iterdir()}
    again = datasets.load_cifar10(tmp_path, sample=True)
    np.testing.assert_array_equal(again[0][0], x_train)
    np.testing.assert_array_equal(again[1][0], x_test)
    assert {path.name: path.stat().st_mtime_ns for path in drawn.iterdir()} == before


def test_drawings_need_no_place_to_write(tmp_path):
    (tmp_path / "sample").write_bytes(b"a file, where the folder would be")
    (x_train, _), _, source = datasets.load_cifar10(tmp_path, sample=True)
    assert x_train.shape == (5000, 32, 32, 3)
    assert source.kind == "sample"


# idx files


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
