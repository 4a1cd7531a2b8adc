"""Folders of images: found, checked, grouped, split, and never changed."""

import hashlib
import io
import os
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import DBSCAN
from sklearn.model_selection import StratifiedGroupKFold

import predict
from common import folders
from common.datasets import DataError


def scene(seed):
    """An image of 96x80 pixels that looks like no other, as soft as a photograph."""
    generator = np.random.default_rng(seed)
    coarse = generator.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)


def fill(folder, count, seed):
    folder.mkdir(parents=True)
    for i in range(count):
        scene(1000 * seed + i).save(folder / f"image_{i:04}.jpg")


@pytest.fixture
def load(tmp_path):
    """Load `tmp_path / "photos"`, or what is named, as train_cups.py would."""

    def load(**options):
        defaults = {
            "images": tmp_path / "photos",
            "data_dir": tmp_path / "data",
            "begun": {"script": "train_cups.py"},
            "min_images": None,
            "sample": False,
            "download": False,
        }
        args = SimpleNamespace(**defaults | options)
        return folders.load(
            args, kaggle=("who/what", "1 GB"), test_folder="kaggle_simpson_testset", min_images=290
        )

    return load


def contents(folder):
    """Every file below a folder, with its bytes and the time of its last change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256
    return [(p, digest(p.read_bytes()).digest(), p.stat().st_mtime_ns) for p in files]


def test_classes_are_the_folders_and_labels_their_places(load, tmp_path):
    for i, name in enumerate(["Ёж", 'it\'s "two" words', "b"]):
        fill(tmp_path / "photos" / name, 3 + i, i)
    images, published, source = load()
    assert images.class_names == sorted(["Ёж", 'it\'s "two" words', "b"])
    assert np.bincount(images.labels).tolist() == [5, 4, 3]
    for path, label in zip(images.paths, images.labels, strict=True):
        assert path.parent.name == images.class_names[label]
    assert published == {}
    assert (source.kind, source.path) == ("folder", tmp_path / "photos")


def test_a_folder_in_the_folder_is_found_and_its_copy_in_itself_is_no_class(load, tmp_path, capsys):
    top = tmp_path / "data" / "cups" / "dataset"
    for i, name in enumerate(["homer", "lisa"]):
        fill(top / name, 4, i)
        fill(top / "dataset" / name, 4, i)
    flat = top.parent / "kaggle_simpson_testset" / "kaggle_simpson_testset"
    flat.mkdir(parents=True)
    for name in ["homer_0", "homer_1", "lisa_0", "fat_tony_0", "other"]:
        scene(77).save(flat / f"{name}.jpg")
    images, published, _ = load(images=None, min_images=4)
    assert images.class_names == ["homer", "lisa"]
    assert len(images.paths) == 8
    (test,) = published.values()
    assert list(published) == ["published test"]
    assert [path.name for path in test.paths] == ["homer_0.jpg", "homer_1.jpg", "lisa_0.jpg"]
    assert test.labels.tolist() == [0, 0, 1]
    assert "Skipped" not in capsys.readouterr().out


def test_rare_classes_are_left_out_and_named(load, tmp_path, capsys):
    for i, count in enumerate([3, 4, 2]):
        fill(tmp_path / "photos" / "abc"[i], count, i)
    assert load()[0].class_names == ["a", "b"]
    assert "Left out, with fewer than 3 images (--min-images): c (2)\n" in capsys.readouterr().out
    assert load(min_images=2)[0].class_names == ["a", "b", "c"]
    (tmp_path / "data").mkdir()
    (tmp_path / "photos").rename(tmp_path / "data" / "cups")  # where a download is put
    assert len(load(images=None)[0].class_names) == 2
    fill(tmp_path / "data" / "cups" / "kaggle_simpson_testset", 1, 7)
    with pytest.raises(DataError, match="no class of at least 290 readable images"):
        load(images=None)
    assert len(load(images=None, min_images=2)[0].class_names) == 3


@pytest.fixture
def broken():
    """Files that cannot be read, by name, and what is said of them."""
    jpeg = scene(5)
    damaged = "damaged, or no image of a kind that TensorFlow decodes"
    return {
        "cut.jpg": (lambda path: path.write_bytes(_bytes(jpeg, "JPEG")[:400]), damaged),
        "empty.png": (lambda path: path.touch(), "it is empty"),
        "page.jpg": (lambda path: path.write_text("<html>Not found</html>"), damaged),
        "tiff.jpg": (lambda path: jpeg.save(path, "TIFF"), damaged),
        "cut.PNG": (lambda path: path.write_bytes(_bytes(jpeg, "PNG")[:100]), damaged),
        "cut.webp": (lambda path: path.write_bytes(_bytes(jpeg, "WEBP")[:100]), damaged),
        "line.png": (
            lambda path: Image.new("RGB", (400, 2)).save(path),
            "400x2 pixels are too long and narrow",
        ),
        "loop.jpg": (lambda path: path.symlink_to("loop.jpg"), "cannot be opened"),
        "gone.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "cannot be opened"),
        "zero.jpg": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        "pipe.jpg": (os.mkfifo, "not a regular file"),
    }


def _bytes(image, kind):
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def odd_but_readable(folder):
    """Files that TensorFlow reads, whatever their names say."""
    image = scene(6)
    image.save(folder / "bmp.jpg", "BMP")
    image.convert("CMYK").save(folder / "cmyk.jpg", "JPEG")
    image.convert("L").save(folder / "gray.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").save(folder / "rgba.png")
    image.save(folder / "film.gif", save_all=True, append_images=[scene(7), scene(8)])
    image.save(folder / os.fsdecode(b"\xff.jpg"))  # its name is no UTF-8
    image.save(folder / "LOUD.JPG")
    return 8


@pytest.mark.skipif(os.name == "nt", reason="no links, pipes and devices on Windows")
def test_files_that_cannot_be_read_are_named_and_not_touched(load, tmp_path, broken, capsys):
    for i, name in enumerate("ab"):
        fill(tmp_path / "photos" / name, 5, i)
    for name, (write, _) in broken.items():
        write(tmp_path / "photos" / "a" / name)
    odd = odd_but_readable(tmp_path / "photos" / "b")
    (tmp_path / "photos" / "b" / "notes.txt").write_text("no image")
    (tmp_path / "photos" / "b" / ".hidden.jpg").write_text("no image")
    (tmp_path / "photos" / "c").mkdir()
    (tmp_path / "photos" / "c" / "photo.heic").write_bytes(b"0")
    (tmp_path / "photos" / "loop").symlink_to(tmp_path / "photos")
    before = contents(tmp_path / "photos")
    images, _, _ = load()
    told = capsys.readouterr().out
    assert f"Skipped, because they cannot be read ({len(broken)}):" in told
    for name, (_, reason) in broken.items():
        assert f"  {tmp_path / 'photos' / 'a' / name}: {reason}" in told
    assert told.count("\n  ") == len(broken)
    assert "Skipped: what is no image by its ending (1 .txt, 1 .heic)\n" in told
    for name in ("c", "loop"):
        assert f"Skipped: {tmp_path / 'photos' / name} has no images of its own\n" in told
    assert np.bincount(images.labels).tolist() == [5, 5 + odd]
    assert contents(tmp_path / "photos") == before


def test_webp_is_read_and_linked_under_an_ending_that_keras_knows(load, tmp_path):
    for i, name in enumerate("ab"):
        fill(tmp_path / "photos" / name, 3, i)
    scene(9).save(tmp_path / "photos" / "a" / "new.webp")
    images, _, _ = load()
    assert len(images.paths) == 7
    place = folders.link({"train": images})
    assert len(read_linked(place / "train", 32)[1]) == 7


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="no users to be on Windows")
def test_a_folder_that_may_not_be_read_is_named_as_that(load, capsys):
    place = Path(tempfile.mkdtemp())  # pytest's own folder is another user's
    try:
        for i, name in enumerate("abc"):
            fill(place / name, 3, i)
        os.chmod(place, 0o755)
        os.chmod(place / "b", 0)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(65534)  # nobody
            images, _, _ = load(images=place)
        finally:
            if root:
                os.seteuid(0)
        assert images.class_names == ["a", "c"]
        told = capsys.readouterr().out
        assert f"Skipped: {place / 'b'} cannot be read ([Errno 13] Permission denied" in told
    finally:
        os.chmod(place / "b", 0o700)
        shutil.rmtree(place)


def test_folders_that_leave_in_doubt_which_are_the_classes_are_one_line(load, tmp_path):
    for i, name in enumerate(["train/cup", "train/mug", "test/cup", "test/mug"]):
        fill(tmp_path / "photos" / name, 3, i)
    with pytest.raises(DataError, match=r"photos/test and in .*train\. Name the folder of class"):
        load()
    assert load(images=tmp_path / "photos" / "train")[0].class_names == ["cup", "mug"]
    fill(tmp_path / "more" / "cup", 3, 5)
    fill(tmp_path / "more" / "glass" / "2023", 3, 6)
    fill(tmp_path / "more" / "glass" / "2024", 3, 7)
    with pytest.raises(DataError, match=r"more/cup and in .*glass\. Name the folder of class"):
        load(images=tmp_path / "more")


def test_a_folder_without_two_classes_is_one_line(load, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    with pytest.raises(DataError, match=r"photos: no images in its folders\. Make a folder for ea"):
        load()
    scene(0).save(photos / "flat.jpg")
    with pytest.raises(DataError, match="its images lie in no class folders"):
        load()
    fill(photos / "only", 5, 0)
    with pytest.raises(DataError, match=r"only one class \(only\) of at least 3 readable images"):
        load()
    fill(photos / "second", 1, 1)
    with pytest.raises(DataError, match="only one class "):
        load()


def test_no_image_that_can_be_opened_is_one_line(load, tmp_path, capsys):
    for name in "ab":
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "photos" / name / f"{i}.jpg").write_text("no image")
    with pytest.raises(DataError, match="no class of at least 3 readable images"):
        load()
    assert "cannot be read (8)" in capsys.readouterr().out


def test_without_data_the_drawings_serve_and_the_notice_names_the_option(load, tmp_path, capsys):
    images, published, source = load(images=None)
    told = capsys.readouterr().out
    assert f"Notice: no images in {tmp_path / 'data' / 'cups'}; --download fetches who/what" in told
    assert "those of a small sample" in told
    assert source.kind == "sample"
    assert len(images.class_names) == 5
    assert len(published["published test"].paths) == 100
    again, _, _ = load(images=None, sample=True)
    assert again.paths.tolist() == images.paths.tolist()
    assert not (tmp_path / "data").exists()  # nothing was asked for, nothing is downloaded


def test_a_copy_without_sample_says_what_it_needs(load, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SAMPLES", tmp_path / "no-sample")
    with pytest.raises(DataError, match=r"data/cups: no images there\. Make a folder for each cla"):
        load(images=None)


# Near-duplicates and the split


def near(image, step):
    """The next frame: moved by a pixel or two and a little brighter."""
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, step, 0, 1, 0))
    return moved.point(lambda value: min(255, value + 4))


def film(folder, seed, scenes, frames):
    folder.mkdir(parents=True)
    for j in range(scenes):
        for frame in range(frames):
            near(scene(100 * seed + j), frame).save(folder / f"scene_{j:02}_{frame}.png")


@pytest.fixture
def films(load, tmp_path):
    """Two classes of 20 scenes, each with three frames."""
    for i, name in enumerate("ab"):
        film(tmp_path / "photos" / name, i, 20, 3)
    return load()[0]


def grouped(images):
    """As the lesson groups them."""
    return DBSCAN(eps=1 - 0.95, min_samples=1, metric="cosine").fit_predict(images.thumbnails)


def split(images, groups, seed):
    """As the lesson splits them: train, validation and test."""
    n_splits = folders.fold_count(images, groups, most=7)
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    *train, validation, test = [i for _, i in folds.split(images.paths, images.labels, groups)]
    return [images.take(own) for own in (np.concatenate(train), validation, test)]


def test_frames_of_a_scene_are_one_group_and_others_are_not(films):
    groups = grouped(films)
    scenes = [f"{path.parent.name} {path.name[:8]}" for path in films.paths]
    assert len(np.unique(groups)) == 40
    assert len(set(zip(scenes, groups, strict=True))) == 40


def test_images_of_one_color_are_near_duplicates(load, tmp_path):
    for i, name in enumerate("ab"):
        fill(tmp_path / "photos" / name, 3, i)
    for shade in (0, 255):
        Image.new("L", (50, 50), shade).save(tmp_path / "photos" / "a" / f"{shade}.png")
    groups = grouped(load()[0])
    assert sorted(np.bincount(groups)) == [1] * 6 + [2]


def test_a_split_keeps_groups_together_and_every_class_everywhere(films):
    groups = grouped(films)
    place = {path: group for path, group in zip(films.paths, groups, strict=True)}
    parts = split(films, groups, seed=0)
    of_part = [{place[path] for path in part.paths} for part in parts]
    assert sum(len(own) for own in of_part) == 40  # no group in two parts
    assert sorted(path for part in parts for path in part.paths) == films.paths.tolist()
    for part in parts:
        counts = np.bincount(part.labels, minlength=2)
        assert counts.min() > 0
        assert abs(counts[0] - counts[1]) <= 3
    assert 0.6 < len(parts[0].paths) / 120 < 0.8
    again, other = (split(films, groups, seed=seed) for seed in (0, 1))
    assert again[2].paths.tolist() == parts[2].paths.tolist()
    assert other[2].paths.tolist() != parts[2].paths.tolist()


@pytest.mark.parametrize("counts", [(3, 300), (4, 60), (7, 60), (3, 3), (5,) * 20, (90, 9, 30)])
@pytest.mark.parametrize("seed", range(5))
def test_every_class_is_in_every_part(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    for part in split(*labelled(labels, np.arange(len(labels))), seed):
        assert set(part.labels) == set(range(len(counts)))


@pytest.mark.parametrize("scenes", [3, 4])
def test_few_scenes_of_many_frames_are_split(load, tmp_path, scenes, capsys):
    for i, name in enumerate("ab"):
        film(tmp_path / "photos" / name, i, scenes, 5)
    images = load()[0]
    parts = split(images, grouped(images), seed=0)
    assert [len(part.labels) for part in parts] == [10 * (scenes - 2), 10, 10]
    wanted = f"Split into {scenes} folds instead of 7, {scenes - 2} of them for training: a has"
    assert wanted in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(5))
def test_a_large_group_does_not_make_the_test_set_large(seed):
    labels = np.repeat([0, 1], [700, 700])
    groups = np.arange(1400)
    groups[:300] = 0  # one long scene
    _, validation, test = split(*labelled(labels, groups), seed)
    assert len(test.labels) < 250
    assert len(validation.labels) < 250


def labelled(labels, groups):
    """`Images` that have nothing but labels, and their groups."""
    paths = np.array([Path("photos", str(i), "image.jpg") for i in labels], dtype=object)
    names = [str(i) for i in range(labels.max() + 1)]
    return folders.Images(names, paths, labels, np.zeros((len(labels), 2))), groups


def test_a_class_that_cannot_fill_three_parts_is_one_line(load, tmp_path):
    fill(tmp_path / "photos" / "large", 30, 1)
    fill(tmp_path / "photos" / "few", 2, 2)
    for i in range(10):
        scene(2000).save(tmp_path / "photos" / "few" / f"again_{i}.jpg")
    images, _, _ = load()
    with pytest.raises(DataError, match="too few different images of few: they form 2 of the 3 g"):
        split(images, grouped(images), seed=0)
    with pytest.raises(DataError, match="too few different images of few: none is left for train"):
        folders.link({"train": images.take(np.flatnonzero(images.labels == 1))})


def read_linked(folder, side):
    """As the lesson reads a part: the dataset, and its images."""
    import keras

    dataset = keras.utils.image_dataset_from_directory(
        folder,
        batch_size=None,
        image_size=(side, side),
        pad_to_aspect_ratio=True,
        shuffle=False,
        verbose=False,
    )
    return dataset, list(dataset)


def test_linked_folders_are_what_keras_reads(films):
    groups = grouped(films)
    train, _, test = split(films, groups, seed=0)
    place = folders.link({"train": train, "test": test})
    for part, images in [("train", train), ("test", test)]:
        dataset, pairs = read_linked(place / part, 32)
        found = [Path(path).resolve() for path in dataset.file_paths]
        assert found == images.paths.tolist()
        assert [int(label) for _, label in pairs] == images.labels.tolist()
        assert dataset.class_names == images.class_names
    array = folders.ImageArray(dataset)
    np.testing.assert_array_equal(array[[3, 1]][0], np.asarray(pairs[3][0]).astype(np.uint8))
    assert array[np.array([], int)].shape == (0, 32, 32, 3)


def test_a_file_that_is_gone_before_it_is_read_is_named(films, tmp_path):
    place = folders.link({"train": films})
    dataset, _ = read_linked(place / "train", 32)
    assert folders.fill_cache(dataset, films).tolist() == films.labels.tolist()
    films.paths[7].unlink()
    with pytest.raises(DataError, match=rf"{films.paths[7]}: not there any more"):
        folders.fill_cache(dataset.cache(), films)


def test_a_single_image_is_prepared_as_keras_reads_a_folder(tmp_path):
    folder = tmp_path / "photos" / "a"
    folder.mkdir(parents=True)
    for name, size in [("wide.jpg", (40, 97)), ("high.png", (13, 9)), ("small.png", (201, 80))]:
        scene(3).resize(size).save(folder / name)
    for name in ["bmp.jpg", "gray.png"]:
        scene(6).convert("L").save(folder / name)
    dataset, pairs = read_linked(tmp_path / "photos", 32)
    for path, (image, _) in zip(dataset.file_paths, pairs, strict=True):
        read, inverted = predict.prepare(path, (32, 32, 3), "folder")
        assert (read.dtype, inverted) == (np.uint8, False)
        np.testing.assert_array_equal(read, np.round(image))
