"""Folders of images: found, checked, grouped, split, and never changed."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import DBSCAN
from sklearn.model_selection import StratifiedGroupKFold

import predict
from common import folders
from common.options import Mistake

DAMAGED = "damaged, or no image of a kind that TensorFlow decodes"


def scene(*seed, frame=0):
    """A soft image of 96x80 pixels that looks like no other; or its next frame, a little on."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((96, 80), Image.Resampling.BICUBIC)
    moved = image.transform(image.size, Image.Transform.AFFINE, (1, 0, frame, 0, 1, 0))
    return moved.point(lambda value: min(255, value + 4 * frame))


def fill(folder, frames=1, **scenes):
    """Write a folder for each class: so many scenes, and as many frames of each."""
    for name, count in scenes.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            for j in range(frames):
                image = scene(i, *name.encode(), frame=j)
                image.save(folder / name / f"scene_{i:02}_{j}.png")


@pytest.fixture
def photos(tmp_path):
    return tmp_path / "photos"


@pytest.fixture
def load(tmp_path, photos):
    """Load `photos`, or what is named, as a lesson would."""

    def load(images=photos, **options):
        of_lesson = {"kaggle": ("who/what", "1 GB"), "test_folder": "testset", "min_images": 4}
        options = {"sample": False, "download": False} | of_lesson | options
        return folders.load(images, place=tmp_path / "data" / "cups", **options)

    return load


def test_classes_are_the_folders_and_labels_their_places(load, photos, capsys):
    fill(photos, **{"Ёж": 3, 'it\'s "two" words': 4, "b": 5, "rare": 2})
    images, published, source = load()
    assert images.class_names == ["b", 'it\'s "two" words', "Ёж"]
    assert np.bincount(images.labels).tolist() == [5, 4, 3]
    for path, label in zip(images.paths, images.labels, strict=True):
        assert path.parent.name == images.class_names[label]
    assert (published, source.kind, source.path) == ({}, "folder", photos)
    assert "Left out, with fewer than 3 images: rare (2)\n" in capsys.readouterr().out


def test_what_kaggle_unpacks_is_found_and_its_copy_in_itself_is_no_class(load, tmp_path, capsys):
    top = tmp_path / "data" / "cups" / "dataset"
    fill(top, homer=4, lisa=4, fat_tony=3)
    fill(top / "dataset", homer=4, lisa=4)
    flat = top.parent / "testset" / "testset"
    flat.mkdir(parents=True)
    for name in ["homer_0", "homer_1", "lisa_0", "fat_tony_0", "other"]:
        scene(77).save(flat / f"{name}.jpg")
    images, published, _ = load(None)
    assert images.class_names == ["homer", "lisa"]
    assert len(images.paths) == 8
    test = published["published test"]
    assert [path.name for path in test.paths] == ["homer_0.jpg", "homer_1.jpg", "lisa_0.jpg"]
    assert test.labels.tolist() == [0, 0, 1]
    assert "Skipped" not in capsys.readouterr().out


def cut(kind, size=100):
    def write(path):
        scene(5).save(path, kind)
        path.write_bytes(path.read_bytes()[:size])

    return write


# Files that cannot be read: how to write each, and what is said of it.
BROKEN = {
    "cut.jpg": (cut("JPEG", 400), DAMAGED),
    "cut.PNG": (cut("PNG"), DAMAGED),
    "cut.webp": (cut("WEBP"), DAMAGED),
    "empty.png": (lambda path: path.touch(), "it is empty"),
    "page.jpg": (lambda path: path.write_text("<html>Not found</html>"), DAMAGED),
    "tiff.jpg": (lambda path: scene(5).save(path, "TIFF"), DAMAGED),
    "line.png": (lambda path: Image.new("RGB", (400, 2)).save(path), "too long and narrow"),
    "loop.jpg": (lambda path: path.symlink_to("loop.jpg"), "cannot be opened"),
    "gone.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "cannot be opened"),
    "zero.jpg": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "pipe.jpg": (lambda path: os.mkfifo(path), "not a regular file"),
}


def write_odd(folder):
    """Files that TensorFlow reads, whatever their names say; how many."""
    image = scene(6)
    image.save(folder / "bmp.jpg", "BMP")
    image.save(folder / "new.webp")
    for mode, name in [("CMYK", "c.jpg"), ("L", "l.png"), ("P", "p.png"), ("RGBA", "r.png")]:
        image.convert(mode).save(folder / name)
    image.save(folder / "film.gif", save_all=True, append_images=[scene(7), scene(8)])
    image.save(folder / os.fsdecode(b"\xff.JPG"))  # its name is no UTF-8
    return 8


@pytest.mark.skipif(os.name == "nt", reason="no links, pipes and devices on Windows")
def test_files_that_cannot_be_read_are_named_and_not_touched(load, photos, monkeypatch, capsys):
    fill(photos, a=5, b=5, c=0, closed=5)
    for name, (write, _) in BROKEN.items():
        write(photos / "a" / name)
    odd = write_odd(photos / "b")
    for name in ["b/notes.txt", "b/.hidden.jpg", "c/photo.heic"]:
        (photos / name).write_text("no image")
    (photos / "loop").symlink_to(photos)

    def contents():
        files = sorted(path for path in photos.rglob("*") if path.is_file())
        return [(path, path.read_bytes(), path.stat().st_mtime_ns) for path in files]

    def listdir(path, listed=os.listdir):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    before = contents()
    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", listdir)
        images, _, _ = load()
    assert contents() == before
    assert np.bincount(images.labels).tolist() == [5, 5 + odd]
    told = capsys.readouterr().out
    assert told.count("\n  ") == len(BROKEN)
    for name, (_, reason) in BROKEN.items():
        assert re.search(rf"{photos / 'a' / name}: .*{reason}", told)
    assert "(1 .txt, 1 .heic)" in told
    for name, reason in [("c", "has no"), ("loop", "has no"), ("closed", "cannot be read")]:
        assert f"Skipped: {photos / name} {reason}" in told
    place = folders.link({"train": images})  # Keras knows no .webp, by its name
    assert len(read_linked(place / "train")[1]) == 10 + odd


def test_folders_that_are_no_classes_are_one_line(load, photos, tmp_path):
    def refused(answer, folder=photos):
        with pytest.raises(Mistake, match=answer):
            load(folder)

    photos.mkdir()
    refused("photos: no images in its folders.* Make a folder for each class")
    scene(0).save(photos / "flat.jpg")
    refused("its images lie in no class folders")
    fill(photos, only=5, second=1)
    (photos / "second" / "page.jpg").write_text("no image")
    refused(r"only one class \(only\) of at least 3 readable images")
    fill(tmp_path / "parts" / "train", cup=3, mug=3)
    fill(tmp_path / "parts" / "test", cup=3, mug=3)
    refused("parts/test and in .*train.* Name the folder", tmp_path / "parts")
    fill(tmp_path / "more", cup=3)
    fill(tmp_path / "more" / "glass", **{"2023": 3, "2024": 3})
    refused("more/cup and in .*glass.* Name the folder", tmp_path / "more")


def test_without_data_the_drawings_serve_and_the_notice_names_the_option(load, tmp_path, capsys):
    images, published, source = load(None, test_folder="kaggle_simpson_testset")
    told = capsys.readouterr().out
    assert f"Notice: no images in {tmp_path / 'data' / 'cups'}; --download fetches who/what" in told
    assert "those of a small sample" in told
    assert (source.kind, len(images.class_names)) == ("sample", 5)
    assert len(published["published test"].paths) == 100
    assert not (tmp_path / "data").exists()  # nothing was asked for, nothing is downloaded


# Near-duplicates and the split


@pytest.fixture
def films(load, photos):
    """Two classes of 20 scenes, each with three frames."""
    fill(photos, frames=3, a=20, b=20)
    return load()[0]


def grouped(images):
    """As the lesson groups them."""
    return DBSCAN(eps=1 - 0.95, min_samples=1, metric="cosine").fit_predict(images.thumbnails)


def split(images, groups, seed=0):
    """As the lesson splits them: train, validation and test."""
    n_splits = folders.fold_count(images, groups, most=7)
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    *train, validation, test = [i for _, i in folds.split(images.paths, images.labels, groups)]
    return [images.take(own) for own in (np.concatenate(train), validation, test)]


def test_frames_of_a_scene_are_one_group_and_stay_in_one_part(films):
    scenes = [(path.parent.name, path.name[:8]) for path in films.paths]
    groups = grouped(films)
    assert len(set(groups)) == len(set(scenes)) == len(set(zip(scenes, groups, strict=True))) == 40
    parts = split(films, groups)
    of_part = [{(path.parent.name, path.name[:8]) for path in part.paths} for part in parts]
    assert sum(map(len, of_part)) == 40
    assert sorted(path for part in parts for path in part.paths) == films.paths.tolist()
    assert 0.6 < len(parts[0].paths) / 120 < 0.8
    again, other = (split(films, groups, seed)[2].paths.tolist() for seed in (0, 1))
    assert again == parts[2].paths.tolist() != other


def test_images_of_one_color_are_near_duplicates(load, photos):
    fill(photos, a=3, b=3)
    for shade in (0, 255):
        Image.new("L", (50, 50), shade).save(photos / "a" / f"{shade}.png")
    assert sorted(np.bincount(grouped(load()[0]))) == [1] * 6 + [2]


@pytest.mark.parametrize("counts", [(3, 300), (4, 60), (3, 3), (5,) * 20, (90, 9, 30)])
def test_every_class_is_in_every_part(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    paths = np.array([Path("photos", str(i), "image.jpg") for i in labels], dtype=object)
    names = [str(i) for i in range(len(counts))]
    images = folders.Images(names, paths, labels, np.zeros((len(labels), 2)))
    for seed in range(5):
        for part in split(images, np.arange(len(labels)), seed):
            assert set(part.labels) == set(range(len(counts)))


def test_few_scenes_of_many_frames_are_split_or_refused(load, photos, capsys):
    fill(photos, frames=5, a=4, b=5)
    images = load()[0]
    parts = split(images, grouped(images))
    assert [np.bincount(part.labels)[0] for part in parts] == [10, 5, 5]
    assert "Split into 4 folds instead of 7" in capsys.readouterr().out
    fill(photos, frames=5, few=2)
    images = load()[0]
    with pytest.raises(Mistake, match=r"too few different images of few.* 2 of the 3 groups"):
        split(images, grouped(images))
    with pytest.raises(Mistake, match="none is left for train"):
        folders.link({"train": images.take(np.flatnonzero(images.labels == 0))})


def read_linked(folder):
    """As the lesson reads a part: the dataset, and its images."""
    settings = {"image_size": (32, 32), "pad_to_aspect_ratio": True, "verbose": False}
    read = keras.utils.image_dataset_from_directory
    dataset = read(folder, batch_size=None, shuffle=False, **settings)
    return dataset, list(dataset)


def test_linked_folders_are_what_keras_reads(films):
    train, _, test = split(films, grouped(films))
    place = folders.link({"train": train, "test": test})
    for part, images in [("train", train), ("test", test)]:
        dataset, pairs = read_linked(place / part)
        assert [Path(path).resolve() for path in dataset.file_paths] == images.paths.tolist()
        assert [int(label) for _, label in pairs] == images.labels.tolist()
        assert dataset.class_names == images.class_names
    array = folders.ImageArray(dataset)
    np.testing.assert_array_equal(array[[3, 1]][0], np.asarray(pairs[3][0]).astype(np.uint8))
    assert array[np.array([], int)].shape == (0, 32, 32, 3)


def test_a_file_that_is_gone_before_it_is_read_is_named(films):
    dataset, _ = read_linked(folders.link({"train": films}) / "train")
    assert folders.fill_cache(dataset, films).tolist() == films.labels.tolist()
    films.paths[7].unlink()
    with pytest.raises(Mistake, match=rf"{films.paths[7]}: not there any more"):
        folders.fill_cache(dataset.cache(), films)


def test_a_single_image_is_prepared_as_keras_reads_a_folder(photos):
    fill(photos, a=1)
    for name, size in [("wide.jpg", (40, 97)), ("high.png", (13, 9)), ("small.bmp", (201, 80))]:
        scene(3).resize(size).save(photos / "a" / name)
    scene(6).convert("L").save(photos / "a" / "gray.jpg")
    dataset, pairs = read_linked(photos)
    for path, (image, _) in zip(dataset.file_paths, pairs, strict=True):
        read, inverted = predict.prepare(path, (32, 32, 3), "folder")
        assert (read.dtype, inverted) == (np.uint8, False)
        np.testing.assert_array_equal(read, np.round(image))
