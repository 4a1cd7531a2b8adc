"""Where data are found, in which order, and what is said of images that cannot be used."""

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from test_formats import archive, arrays, batch, npz, write_batches, write_idx_set

from common import datasets, formats


@pytest.fixture
def no_download(monkeypatch, no_cache):
    """No network, and nothing where other programs put data."""
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


def test_fashion_mnist_is_found_where_keras_puts_it(tmp_path, no_cache):
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
    assert tuple(formats.read_idx(published)[:10]) == datasets._FIRST_LABELS["fashion-mnist"]


def test_npz_is_found_in_the_folder_before_the_cache(tmp_path, no_cache, capsys):
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
        made = formats.read_npz(Path(f"data/sample/{name}.npz"))
        for key, array in formats.read_npz(REPO / "data" / "sample" / f"{name}.npz").items():
            np.testing.assert_array_equal(array, made[key])
        compared += 1
    if not compared:
        pytest.skip("neither set is here whole")


# Images that cannot be used


GOOD = arrays()
FAULTY = {
    "other shape": ({"x_test": GOOD["x_test"][:, :27]}, "x_test has the shape (20, 27, 28), not"),
    "flat": ({"x_train": GOOD["x_train"].reshape(100, 784)}, "x_train has the shape (100, 784)"),
    "floats": ({"x_train": GOOD["x_train"] / 255}, "x_train is of type float64, not uint8"),
    "float labels": ({"y_test": GOOD["y_test"] / 1}, "y_test is of type float64, not whole"),
    "labels to 10": ({"y_train": GOOD["y_train"] + 1}, "labels from 1 to 10, not 0 to 9"),
    "negative": ({"y_train": GOOD["y_train"].astype(int) - 1}, "labels from -1 to 8, not 0 to 9"),
    "fewer labels": ({"y_test": GOOD["y_test"][:19]}, "y_test has the shape (19,) for 20 images"),
    "one-hot": ({"y_test": np.eye(10, dtype=int)[GOOD["y_test"]]}, "the shape (20, 10) for 20"),
    "a class lacking": ({"y_train": GOOD["y_train"] % 8}, "y_train has no image of class 8, 9"),
    "no images": ({"count": 0}, "y_train has no image of class 0, 1"),
    "too few": ({"count": 10}, "y_train has 5 images of class 0, and 10 are the least"),
    "alike": ({"x_train": np.zeros_like(GOOD["x_train"])}, "all images of x_train are alike"),
    "alike but not black": (
        {"x_test": np.repeat(GOOD["x_test"][:1], 20, axis=0)},
        "all images of x_test are alike",
    ),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_bad_images_are_named_with_their_fault_and_left_alone(tmp_path, fault):
    changes, answer = FAULTY[fault]
    path = tmp_path / "mnist.npz"
    content = npz(**arrays(**changes))
    path.write_bytes(content)
    with pytest.raises(datasets.DataError) as error:
        load(tmp_path)
    assert str(error.value).startswith(f"{path}: ")
    assert answer in str(error.value)
    assert str(error.value).endswith(datasets.RENEW)
    assert "\n" not in str(error.value)
    assert path.read_bytes() == content


@pytest.mark.parametrize("kind", ["int8", "uint64", ">i4"])
def test_labels_of_any_whole_numbers_come_as_bytes(tmp_path, kind):
    kinds = {name: GOOD[name].astype(kind) for name in ("y_train", "y_test")}
    np.savez(tmp_path / "mnist.npz", **GOOD | kinds)
    (_, y_train), (_, y_test), _ = load(tmp_path)
    assert y_train.dtype == y_test.dtype == np.uint8
    assert y_train.tolist() == GOOD["y_train"].tolist()


def test_images_under_the_name_of_the_labels_are_named(tmp_path):
    write_idx_set(tmp_path)
    for part in ["train", "t10k"]:
        images = (tmp_path / f"{part}-images-idx3-ubyte").read_bytes()
        (tmp_path / f"{part}-labels-idx1-ubyte").write_bytes(images)
    with pytest.raises(datasets.DataError, match=r"y_train has the shape \(100, 28, 28\) for 100"):
        load(tmp_path)


def test_a_cache_that_may_not_be_entered_is_passed_over(monkeypatch):
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:  # no user but this one enters pytest's own folders
        closed, share = Path(place) / "keras", Path(place) / "share"
        for folder in [closed / "datasets", share / "datasets" / "mnist"]:
            folder.mkdir(parents=True)
            np.savez(folder / "mnist.npz", **arrays())
        monkeypatch.setenv("KERAS_HOME", str(closed))
        monkeypatch.setenv("XDG_DATA_DIRS", str(share))
        Path(place).chmod(0o755)
        closed.chmod(0)
        if root:
            os.seteuid(65534)  # a user who may not enter it
        try:
            found = load(Path("/nowhere"))[2].path
        finally:
            if root:
                os.seteuid(0)
            closed.chmod(0o700)
        assert found == share / "datasets" / "mnist" / "mnist.npz"


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
    assert x_test.shape == (20, 32, 32, 3)
    assert len(y_test) == 20


def test_cifar10_is_found_in_its_archive(tmp_path):
    write_batches(tmp_path / "made")
    (tmp_path / "data").mkdir()
    archive(tmp_path / "data" / "cifar-10-python.tar.gz", tmp_path / "made")
    _, _, source = datasets.load_cifar10(tmp_path / "data")
    path = tmp_path / "data" / "cifar-10-python.tar.gz"
    assert source == datasets.Source("folder", path)


@pytest.mark.parametrize("folder", ["", "cifar-10-batches-py-target"])
def test_cifar10_is_found_where_keras_puts_it(tmp_path, no_cache, folder):
    place = tmp_path / "keras" / "datasets" / folder / "cifar-10-batches-py"
    write_batches(place)
    assert datasets.load_cifar10(tmp_path / "data")[2] == datasets.Source("cache", place)


def test_labels_of_cifar10_beyond_9_are_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    labels = [*range(10), 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    write_batches(folder, test_batch=pickle.dumps(batch(labels=labels), protocol=3))
    with pytest.raises(datasets.DataError, match="y_test has labels from 0 to 10, not") as error:
        datasets.load_cifar10(tmp_path)
    assert str(error.value).startswith(str(folder))


def test_cifar10_without_its_first_batch_is_not_passed_over(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    write_batches(folder, data_batch_1=None)
    with pytest.raises(datasets.DataError, match="data_batch_1: missing beside the other batches"):
        datasets.load_cifar10(tmp_path)


def test_a_batch_with_code_ends_the_lesson_with_one_line(lesson, tmp_path):
    class Touch:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "touched",))

    write_batches(tmp_path / "cifar-10-batches-py", data_batch_3=pickle.dumps(batch(data=Touch())))
    done = lesson("train_cifar10.py", "--data-dir", tmp_path, "--output-dir", tmp_path / "out")
    assert done.returncode == 1
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    assert done.stderr.startswith(f"train_cifar10.py: error: {path}: damaged, cut off, or of ")
    assert "could run code; it was not opened" in done.stderr
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


def test_the_lesson_answers_bad_data_with_one_line_and_leaves_no_folder(lesson, tmp_path):
    (tmp_path / "mnist.npz").write_bytes(npz(**GOOD)[:20_000])
    outputs = tmp_path / "outputs"
    done = lesson("train_mnist.py", "--data-dir", tmp_path, "--output-dir", outputs)
    assert done.returncode == 1
    assert done.stderr.startswith(f"train_mnist.py: error: {tmp_path / 'mnist.npz'}: not an ")
    assert done.stderr.count("\n") == 1
    assert list(outputs.glob("*/*")) == []
