"""Folders of pictures: found however deep, checked, grouped, split, and never changed."""

import errno
import hashlib
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from PIL import Image

from common import folders
from common.datasets import DataError


def scene(seed):
    """A picture of 96x80 pixels that looks like no other, as soft as a photograph."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)


def fill(folder, count, seed):
    folder.mkdir(parents=True)
    for i in range(count):
        scene(1000 * seed + i).save(folder / f"pic_{i:04}.jpg")


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load `tmp_path / "photos"`, or what is named; the output folder is `tmp_path / "runs"`."""
    monkeypatch.setattr(folders, "_download", lambda folder: "no network here.")

    def load(**options):
        defaults = {
            "pictures": tmp_path / "photos",
            "data_dir": tmp_path / "data",
            "output_dir": tmp_path / "runs",
            "min_images": None,
            "sample": False,
        }
        return folders.load(SimpleNamespace(**defaults | options))

    return load


def contents(folder):
    """Every file below a folder, with its bytes and the time of its last change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256
    return [(p, digest(p.read_bytes()).digest(), p.stat().st_mtime_ns) for p in files]


def test_classes_are_the_folders_and_labels_their_places(load, tmp_path):
    for i, name in enumerate(["Ёж", 'it\'s "two" words', "b"]):
        fill(tmp_path / "photos" / name, 3 + i, i)
    pictures, published, source = load()
    assert pictures.class_names == sorted(["Ёж", 'it\'s "two" words', "b"])
    assert np.bincount(pictures.labels).tolist() == [5, 4, 3]
    for path, label in zip(pictures.paths, pictures.labels, strict=True):
        assert path.parent.name == pictures.class_names[label]
    assert published is None
    assert (source.kind, source.path) == ("folder", tmp_path / "photos")


def test_kaggles_layout_is_found_however_deep_and_its_copy_is_no_class(load, tmp_path, capsys):
    top = tmp_path / "data" / "simpsons" / "archive" / "simpsons_dataset"
    for i, name in enumerate(["homer", "lisa"]):
        fill(top / name, 4, i)
        fill(top / "simpsons_dataset" / name, 4, i)
    flat = top.parent / "kaggle_simpson_testset" / "kaggle_simpson_testset"
    flat.mkdir(parents=True)
    for name in ["homer_0", "homer_1", "lisa_0", "fat_tony_0", "wrong"]:
        scene(77).save(flat / f"{name}.jpg")
    pictures, published, _ = load(pictures=None)
    assert pictures.class_names == ["homer", "lisa"]
    assert len(pictures.paths) == 8
    assert [path.name for path in published.paths] == ["homer_0.jpg", "homer_1.jpg", "lisa_0.jpg"]
    assert published.labels.tolist() == [0, 0, 1]
    assert "Published test pictures of no class that is learned, left out: 2\n" in (
        capsys.readouterr().out
    )


def test_42_classes_are_kaggles_and_keep_those_with_290_pictures(load, tmp_path, capsys):
    picture = tmp_path / "one.jpg"
    scene(0).save(picture)
    names = ["homer_simpson", "lionel_hutz", *(f"character_{i:02}" for i in range(40))]
    for i in range(42):
        folder = tmp_path / "photos" / names[i]
        folder.mkdir(parents=True)
        for j in range(290 if i < 2 else 3):
            (folder / f"{j}.jpg").symlink_to(picture)
    assert load()[0].class_names == ["homer_simpson", "lionel_hutz"]
    assert "Left out, with fewer than 290 pictures (--min-images): character_00 (3), " in (
        capsys.readouterr().out
    )
    assert len(load(min_images=3)[0].class_names) == 42
    (tmp_path / "photos" / "lionel_hutz").rename(tmp_path / "photos" / "other")
    assert len(load()[0].class_names) == 42


@pytest.fixture
def broken():
    """Files that TensorFlow cannot read, by name."""
    jpeg = scene(5)
    return {
        "cut.jpg": lambda path: path.write_bytes(_bytes(jpeg, "JPEG")[:400]),
        "empty.png": lambda path: path.touch(),
        "page.jpg": lambda path: path.write_text("<html>Not found</html>"),
        "tiff.jpg": lambda path: jpeg.save(path, "TIFF"),
        "cut.PNG": lambda path: path.write_bytes(_bytes(jpeg, "PNG")[:100]),
    }


def _bytes(picture, kind):
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


def odd_but_readable(folder):
    """Files that TensorFlow reads, whatever their names say."""
    picture = scene(6)
    picture.save(folder / "bmp.jpg", "BMP")
    picture.convert("CMYK").save(folder / "cmyk.jpg", "JPEG")
    picture.convert("L").save(folder / "grey.png")
    picture.convert("P").save(folder / "palette.png")
    picture.convert("RGBA").save(folder / "rgba.png")
    more = [scene(7), scene(8)]
    picture.save(folder / "film.gif", save_all=True, append_images=more)
    return 6


def test_files_that_cannot_be_read_are_named_and_not_touched(load, tmp_path, broken, capsys):
    for i, name in enumerate("ab"):
        fill(tmp_path / "photos" / name, 5, i)
    for name, write in broken.items():
        write(tmp_path / "photos" / "a" / name)
    odd = odd_but_readable(tmp_path / "photos" / "b")
    (tmp_path / "photos" / "b" / "notes.txt").write_text("not a picture")
    before = contents(tmp_path / "photos")

    for time in ["first", "second"]:  # then it is remembered
        pictures, _, _ = load()
        told = capsys.readouterr().out
        assert ("Checking" in told) == (time == "first")
        assert f"Not used, because TensorFlow cannot read them ({len(broken)}):" in told
        named = {line.split(": ")[0].strip() for line in told.splitlines() if line[:2] == "  "}
        assert named == {str(tmp_path / "photos" / "a" / name) for name in broken}
        assert "Passed over, no pictures by their names' ends: 1 .txt\n" in told
        assert np.bincount(pictures.labels).tolist() == [5, 5 + odd]
    assert contents(tmp_path / "photos") == before
    assert "empty.png: it is empty" in told


def test_a_file_that_was_mended_is_checked_again(load, tmp_path, capsys):
    for i, name in enumerate("ab"):
        fill(tmp_path / "photos" / name, 3, i)
    mended = tmp_path / "photos" / "a" / "mended.jpg"
    mended.write_bytes(b"no picture")
    assert len(load()[0].paths) == 6
    scene(9).save(mended)
    assert len(load()[0].paths) == 7
    for file in (tmp_path / "runs" / "checked-pictures").iterdir():
        file.write_bytes(b"damaged")
    assert len(load()[0].paths) == 7
    assert "Checking 7 files" in capsys.readouterr().out


def test_folders_that_leave_in_doubt_which_are_the_classes_are_one_line(load, tmp_path):
    for i, name in enumerate(["train/cup", "train/mug", "test/cup", "test/mug"]):
        fill(tmp_path / "photos" / name, 2, i)
    with pytest.raises(DataError, match=r"photos/test and in .*train\. Name one with"):
        load()
    assert load(pictures=tmp_path / "photos" / "train")[0].class_names == ["cup", "mug"]
    fill(tmp_path / "more" / "cup", 2, 5)
    fill(tmp_path / "more" / "glass" / "2023", 2, 6)
    fill(tmp_path / "more" / "glass" / "2024", 2, 7)
    with pytest.raises(DataError, match=r"more and in .*glass\. Name one with --pictures"):
        load(pictures=tmp_path / "more")


def test_runs_in_the_same_place_are_no_pictures_to_learn(load, tmp_path):
    fill(tmp_path / "photos" / "x" / "a", 2, 0)
    fill(tmp_path / "photos" / "x" / "b", 2, 1)
    fill(tmp_path / "photos" / "runs" / "1", 2, 2)
    fill(tmp_path / "photos" / "runs" / "2", 2, 3)
    assert load(output_dir=tmp_path / "photos" / "runs")[0].class_names == ["a", "b"]


def test_odd_entries_are_named_or_passed_over(load, tmp_path, capsys):
    photos = tmp_path / "photos"
    fill(photos / "a", 3, 0)
    fill(photos / "b", 3, 1)
    (photos / "a" / "loop.jpg").symlink_to("loop.jpg")
    (photos / "a" / "gone.jpg").symlink_to("nowhere.jpg")
    (photos / "a" / "LOUD.JPG").write_bytes((photos / "a" / "pic_0000.jpg").read_bytes())
    (photos / "c").mkdir()
    (photos / "c" / "photo.heic").write_bytes(b"0")
    (photos / "loop").symlink_to(photos)
    Image.new("RGB", (400, 2)).save(photos / "b" / "line.png")
    pictures, _, _ = load()
    told = capsys.readouterr().out
    assert np.bincount(pictures.labels).tolist() == [4, 3]
    assert "Passed over, folders without pictures of their own: c, loop\n" in told
    assert "ends: 1 .heic\n" in told
    assert "line.png: 400x2 pixels are too long and narrow\n" in told
    assert "loop.jpg: cannot be opened (" in told
    assert "gone.jpg: cannot be opened (" in told


def test_a_folder_without_two_classes_is_one_line(load, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(DataError, match=r"photos: no pictures in it\. Make a folder for each"):
        load()
    scene(0).save(photos / "flat.jpg")
    with pytest.raises(DataError, match="its pictures lie in no folders of classes"):
        load()
    fill(photos / "only", 5, 0)
    with pytest.raises(DataError, match=r"only one class \(only\) of at least 2 readable pictures"):
        load()
    fill(photos / "second", 1, 1)
    with pytest.raises(DataError, match="only one class "):
        load()


def test_without_data_the_drawings_serve_and_the_notice_says_why(load, tmp_path, capsys):
    pictures, published, source = load(pictures=None)
    told = capsys.readouterr().out
    assert "Notice: no pictures in " in told
    assert "no network here." in told
    assert "those of a small sample" in told
    assert source.kind == "sample"
    assert len(pictures.class_names) == 5
    assert len(published.paths) == 100
    again, _, _ = load(pictures=None, sample=True)
    assert again.paths.tolist() == pictures.paths.tolist()


class Kaggle:
    """Stands in for kagglehub: writes two classes, or fails as it does."""

    def __init__(self, error=None):
        self.error = error

    def dataset_download(self, handle, *, output_dir, force_download):
        assert handle == "alexattia/the-simpsons-characters-dataset"
        assert force_download  # what a run before has left half done is no obstacle
        for i, name in enumerate(["homer", "lisa"]):
            folder = Path(output_dir) / "simpsons_dataset" / name
            folder.mkdir(parents=True, exist_ok=True)
            scene(i).save(folder / "pic_0000.jpg")
            if self.error:
                raise self.error
            scene(10 + i).save(folder / "pic_0001.jpg")
        return output_dir


@pytest.mark.parametrize("before", [False, True])
def test_kaggles_pictures_are_there_whole_or_not_at_all(tmp_path, monkeypatch, before):
    folder = tmp_path / "data" / "simpsons"
    if before:  # a folder without pictures is left as it is
        folder.mkdir(parents=True)
        (folder / "notes.txt").write_text("mine")
    monkeypatch.setitem(sys.modules, "kagglehub", Kaggle(requests.ConnectionError("far away")))
    assert folders._download(folder) == "Kaggle did not give them (ConnectionError)."
    assert folders._class_root(folder, tmp_path / "runs") is None
    monkeypatch.setitem(sys.modules, "kagglehub", Kaggle(ValueError("no such data set\nat all")))
    assert folders._download(folder) == "Kaggle did not give them (ValueError)."
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert folders._download(folder) == "kagglehub is not installed (pip install kagglehub)."
    monkeypatch.setitem(sys.modules, "kagglehub", Kaggle(OSError(errno.ENOSPC, "No space left")))
    with pytest.raises(OSError, match="No space left"):
        folders._download(folder)
    assert folders._class_root(folder, tmp_path / "runs") is None
    monkeypatch.setitem(sys.modules, "kagglehub", Kaggle())
    assert folders._download(folder) is None
    top = folders._class_root(folder, tmp_path / "runs")
    assert sorted(path.name for path in top.rglob("*.jpg")) == [
        "pic_0000.jpg",
        "pic_0000.jpg",
        "pic_0001.jpg",
        "pic_0001.jpg",
    ]
    assert (folder / "notes.txt").exists() == before
    assert sorted(path.name for path in folder.parent.iterdir()) == ["simpsons"]


# Near-duplicates and the split


def near(picture, step):
    """The next frame: moved by a pixel or two and a little brighter."""
    moved = picture.transform(picture.size, Image.Transform.AFFINE, (1, 0, step, 0, 1, 0))
    return moved.point(lambda value: min(255, value + 4))


@pytest.fixture
def films(load, tmp_path):
    """Two classes of 20 scenes, each with three frames."""
    for i, name in enumerate("ab"):
        folder = tmp_path / "photos" / name
        folder.mkdir(parents=True)
        for j in range(20):
            for frame in range(3):
                near(scene(100 * i + j), frame).save(folder / f"scene_{j:02}_{frame}.png")
    return load()[0]


def test_frames_of_a_scene_are_one_group_and_others_are_not(films):
    groups = folders.near_duplicates(films)
    scenes = [f"{path.parent.name} {path.name[:8]}" for path in films.paths]
    assert len(np.unique(groups)) == 40
    assert len(set(zip(scenes, groups, strict=True))) == 40


def test_a_split_keeps_groups_together_and_every_class_everywhere(films):
    groups = folders.near_duplicates(films)
    place = {path: group for path, group in zip(films.paths, groups, strict=True)}
    parts = folders.split(films, groups, seed=0)
    assert list(parts) == ["train", "validation", "test"]
    of_part = {part: {place[path] for path in p.paths} for part, p in parts.items()}
    assert sum(len(own) for own in of_part.values()) == 40  # no group in two parts
    assert sorted(path for p in parts.values() for path in p.paths) == sorted(films.paths)
    for part in parts.values():
        counts = np.bincount(part.labels, minlength=2)
        assert counts.min() > 0
        assert abs(counts[0] - counts[1]) <= 3
    assert 0.6 < len(parts["train"].paths) / 120 < 0.8
    assert not folders.twins(parts["test"], parts["train"]).any()
    again, other = (folders.split(films, groups, seed=seed) for seed in (0, 1))
    assert again["test"].paths.tolist() == parts["test"].paths.tolist()
    assert other["test"].paths.tolist() != parts["test"].paths.tolist()


def test_twins_are_those_of_the_same_scene(films):
    first = films.take([0, 3])
    assert folders.twins(films.take([1, 4, 6, 60]), first).tolist() == [True, True, False, False]


def test_the_published_test_set_is_told_with_and_without_its_twins(films, capsys):
    first = films.take([0, 3])
    parts = folders.with_and_without_twins(films.take([1, 4, 6, 60]), first)
    assert [len(part.paths) for part in parts.values()] == [4, 2]
    assert parts["without twins"].paths.tolist() == films.paths[[6, 60]].tolist()
    assert "Of the 4 pictures of the published test set, 2 have" in capsys.readouterr().out
    assert list(folders.with_and_without_twins(films.take([1, 4]), first)) == ["published test"]
    assert folders.with_and_without_twins(None, first) == {}


@pytest.mark.parametrize("counts", [(3, 300, 300), (4, 60), (7, 60), (3, 3), (5,) * 20])
@pytest.mark.parametrize("seed", range(5))
def test_small_classes_are_in_every_part_and_take_nothing_from_large_ones(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    parts = folders.split(*labelled(labels, np.arange(len(labels))), seed)
    for part in parts.values():
        assert set(part.labels) == set(range(len(counts)))
    for i in np.flatnonzero(np.array(counts) > 50):
        share = np.sum(parts["train"].labels == i) / counts[i]
        assert 0.69 < share < 0.74


@pytest.mark.parametrize("seed", range(5))
def test_a_large_group_does_not_make_the_test_set_large(seed):
    labels = np.repeat([0, 1], [700, 700])
    groups = np.arange(1400)
    groups[:300] = 0  # one long scene
    parts = folders.split(*labelled(labels, groups), seed)
    assert len(parts["test"].labels) < 250
    assert len(parts["validation"].labels) < 250


def labelled(labels, groups):
    """`Pictures` that have nothing but labels, and their groups."""
    paths = np.array([Path("photos", str(i), "picture.jpg") for i in labels], dtype=object)
    names = [str(i) for i in range(labels.max() + 1)]
    nothing = np.zeros((len(labels), 2))
    return folders.Pictures(names, paths, labels, nothing, nothing), groups


def test_a_class_that_cannot_fill_three_parts_is_one_line(load, tmp_path):
    fill(tmp_path / "photos" / "large", 30, 1)
    fill(tmp_path / "photos" / "few", 2, 2)
    pictures, _, _ = load()
    with pytest.raises(DataError, match="the 2 pictures of few form 2 groups of near-dup"):
        folders.split(pictures, folders.near_duplicates(pictures), seed=0)
    folder = tmp_path / "photos" / "few"
    for i in range(10):
        scene(2000).save(folder / f"again_{i}.jpg")
    pictures, _, _ = load()
    with pytest.raises(DataError, match="the 12 pictures of few form 2 groups of"):
        folders.split(pictures, folders.near_duplicates(pictures), seed=0)


def test_linked_folders_are_what_keras_reads(films):
    import keras

    parts = folders.split(films, folders.near_duplicates(films), seed=0)
    place = folders.link(parts)
    for part, pictures in parts.items():
        dataset = keras.utils.image_dataset_from_directory(
            place / part, class_names=films.class_names, batch_size=None, verbose=False
        )
        assert len(dataset) == len(pictures.paths)
    ordered = keras.utils.image_dataset_from_directory(
        place / "test",
        class_names=films.class_names,
        batch_size=None,
        shuffle=False,
        verbose=False,
    )
    assert [Path(path).resolve() for path in ordered.file_paths] == parts["test"].paths.tolist()
    labels = [int(label) for _, label in ordered]
    assert labels == parts["test"].labels.tolist()
    assert sorted(path.name for path in place.iterdir()) == sorted(parts)


def test_a_single_picture_is_read_as_keras_reads_a_folder(tmp_path):
    import keras

    names = sorted(("wide.jpg", "high.png", "small.png"))
    for name, size in zip(names, [(40, 97), (13, 9), (201, 80)], strict=True):
        scene(3).resize(size).save(tmp_path / name)
    odd_but_readable(tmp_path)
    dataset = keras.utils.image_dataset_from_directory(
        tmp_path,
        labels=None,
        batch_size=None,
        image_size=(32, 32),
        pad_to_aspect_ratio=True,
        shuffle=False,
        verbose=False,
    )
    assert len(dataset.file_paths) == 9
    for path, picture in zip(dataset.file_paths, dataset, strict=True):
        read = folders.read(path, 32)
        assert read.dtype == np.uint8
        np.testing.assert_array_equal(read, np.round(picture))
