"""Folders of images: found, checked, grouped, split, and never changed."""

import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image
from test_images import sound

import predict
from common import folders
from common.options import Mistake


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
        of_lesson |= {"sample": False, "download": False, "test_images": None, "side": 32}
        options = of_lesson | options
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


# Files that cannot be read: how to write each, and what is said of it. (More: test_images.py.)
BROKEN = {
    "cut.jpg": (cut("JPEG", 800), "cut off"),
    "cut.PNG": (cut("PNG"), "cut off|damaged"),
    "empty.png": (lambda path: path.touch(), "it is empty"),
    "page.jpg": (lambda path: path.write_text("<html>Not found</html>"), "no image"),
    "line.png": (lambda path: Image.new("RGB", (400, 2)).save(path), "too long and narrow"),
    "loop.jpg": (lambda path: path.symlink_to("loop.jpg"), "cannot be opened"),
    "gone.jpg": (lambda path: path.symlink_to("nowhere.jpg"), "cannot be opened"),
    "zero.jpg": (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
    "pipe.jpg": (lambda path: os.mkfifo(path), "not a regular file"),
}


def write_odd(folder):
    """Files that can be read, whatever their names say; how many."""
    image = scene(6)
    image.save(folder / "bmp.jpg", "BMP")
    image.save(folder / "tiff.jpg", "TIFF")
    image.save(folder / "new.webp")
    for mode, name in [("CMYK", "c.jfif"), ("L", "l.png"), ("P", "p.png"), ("RGBA", "r.png")]:
        image.convert(mode).save(folder / name, "JPEG" if mode == "CMYK" else None)
    image.save(folder / "film.gif", save_all=True, append_images=[scene(7), scene(8)])
    image.save(folder / os.fsdecode(b"\xff.JPG"))  # its name is no UTF-8
    return 9


@pytest.mark.skipif(os.name == "nt", reason="no links, pipes and devices on Windows")
def test_files_that_cannot_be_read_are_named_and_not_touched(load, photos, monkeypatch, capsys):
    fill(photos, a=5, b=5, c=0, closed=5)
    for name, (write, _) in BROKEN.items():
        write(photos / "a" / name)
    odd = write_odd(photos / "b")
    for name in ["b/notes.txt", "b/.hidden.jpg", "c/film.mov"]:
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
    assert "1 .txt, 1 .mov" in told
    for name, reason in [("c", "has no"), ("loop", "leads back"), ("closed", "cannot be read")]:
        assert f"Skipped: {photos / name} {reason}" in told
    place = folders.write({"train": images})
    assert len(read_written(place / "train")[1]) == 10 + odd


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
    for year in ("2023", "2024"):
        fill(tmp_path / "years" / year, cup=3, mug=3)
    refused("2023 and in .*2024.* Name the folder", tmp_path / "years")


def test_images_in_folders_below_a_class_folder_are_taken_as_keras_does(load, photos):
    fill(photos, cup=3)
    fill(photos / "mug", **{"2023": 2, "2024": 3})
    images, _, _ = load()
    assert images.class_names == ["cup", "mug"]
    assert np.bincount(images.labels).tolist() == [3, 5]


@pytest.mark.parametrize("names", [("train", "test"), ("Training", "Testing")])
def test_a_published_split_gives_the_published_test_set(load, photos, names):
    fill(photos / names[0], cup=3, mug=3)
    fill(photos / names[1], cup=2, mug=1, other=1)
    fill(photos / "valid", cup=1, mug=1)
    images, published, _ = load(min_images=290)  # which is of the lesson's own images alone
    assert np.bincount(images.labels).tolist() == [4, 4]  # those of valid/ are split, too
    assert published["published test"].labels.tolist() == [0, 0, 1]


def test_published_test_images_elsewhere_are_named(load, photos, tmp_path):
    fill(photos, cup=4, mug=4)
    fill(tmp_path / "elsewhere", cup=2)
    _, published, _ = load(test_images=tmp_path / "elsewhere")
    assert published["published test"].labels.tolist() == [0, 0]


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


def scenes_of(images):
    return [(path.parent.name, path.name[:8]) for path in images.paths]


def test_frames_of_a_scene_are_one_group_and_stay_in_one_part(films, capsys):
    parts, groups = folders.split(films, seed=0)
    both = zip(scenes_of(films), groups, strict=True)
    assert len(set(groups)) == len(set(scenes_of(films))) == len(set(both)) == 40
    of_part = [set(scenes_of(part)) for part in parts.values()]
    assert sum(map(len, of_part)) == 40
    paths = sorted(path for part in parts.values() for path in part.paths)
    assert paths == films.paths.tolist()
    assert 0.6 < len(parts["train"].paths) / 120 < 0.8
    again, other = (folders.split(films, seed)[0]["test"].paths.tolist() for seed in (0, 1))
    assert again == parts["test"].paths.tolist() != other
    told = capsys.readouterr().out
    assert told.count("near-duplicate in the training set") == told.count(": 0\n") == 3


def test_a_split_without_groups_tells_how_many_test_images_leak(films, capsys):
    parts, groups = folders.split(films, seed=0, correlation=None)
    assert len(set(groups)) == 120
    shared = set(scenes_of(parts["test"])) & set(scenes_of(parts["train"]))
    leaked = sum(scene in shared for scene in scenes_of(parts["test"]))
    assert f": {leaked}\n" in capsys.readouterr().out
    assert leaked > 5


def test_near_duplicates_of_two_classes_are_counted_but_not_one_group(load, photos, capsys):
    fill(photos, a=10, b=30)
    for i in range(10):  # the same scenes, so some of them are in both parts
        scene(i, *b"a").save(photos / "b" / f"scene_{i:02}_0.png")
    _, groups = folders.split(load()[0], seed=0)
    assert len(set(groups)) == 40
    assert ": 0\n" not in capsys.readouterr().out


def made(labels, thumbnails):
    """`Images` that have nothing but labels and thumbnails."""
    names = [str(i) for i in range(labels.max() + 1)]
    paths = np.array([Path("photos", str(i), "image.jpg") for i in labels], dtype=object)
    thumbnails = thumbnails / np.linalg.norm(thumbnails, axis=1, keepdims=True)
    return folders.Images(names, paths, paths, labels, thumbnails.astype(np.float32))


def test_a_chain_through_a_class_does_not_make_a_part_of_it(capsys):
    """Each image is like the next one, and the last is unlike the first: no scene of a film."""
    angles = np.linspace(0, 60, 400)
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    other = np.eye(400)
    thumbnails = np.zeros((800, 402))
    thumbnails[:400, :2], thumbnails[400:, 2:] = chain, other
    parts, _ = folders.split(made(np.repeat([0, 1], 400), thumbnails), seed=0)
    for part in ("validation", "test"):
        assert np.ptp(np.bincount(parts[part].labels)) <= 20
    assert "for large groups: 0 (" in capsys.readouterr().out


@pytest.mark.parametrize("counts", [(3, 300), (4, 60), (3, 3), (5,) * 20, (90, 9, 30)])
def test_every_class_is_in_every_part(counts):
    labels = np.repeat(np.arange(len(counts)), counts)
    for seed in range(5):
        parts, _ = folders.split(made(labels, np.eye(len(labels))), seed)
        for part in parts.values():
            assert set(part.labels) == set(range(len(counts)))


def test_few_scenes_of_many_frames_are_split_or_refused(load, photos, capsys):
    fill(photos, frames=5, a=4, b=5)
    parts, _ = folders.split(load()[0], seed=0)
    assert [np.bincount(part.labels)[0] for part in parts.values()] == [10, 5, 5]
    assert "Split into 4 folds instead of 7" in capsys.readouterr().out
    fill(photos, frames=5, few=2)
    with pytest.raises(Mistake, match=r"too few different images of few.* 2 of the 3 groups"):
        folders.split(load()[0], seed=0)


def test_images_of_one_color_are_near_duplicates(load, photos):
    fill(photos, a=3, b=3)
    for shade in (0, 255):
        Image.new("L", (50, 50), shade).save(photos / "a" / f"{shade}.png")
    _, groups = folders.split(load()[0], seed=0)
    assert sorted(np.bincount(groups)) == [1] * 6 + [2]


def read_written(folder):
    """As the lesson reads a part: the dataset, and its images."""
    settings = {"image_size": (32, 32), "verbose": False}
    read = keras.utils.image_dataset_from_directory
    dataset = read(folder, batch_size=None, shuffle=False, **settings)
    return dataset, list(dataset)


def test_what_keras_reads_is_what_was_decoded_in_the_order_of_the_images(films):
    parts, _ = folders.split(films, seed=0)
    place = folders.write(parts)
    for part, images in parts.items():
        dataset, pairs = read_written(place / part)
        assert [int(label) for _, label in pairs] == images.labels.tolist()
        assert dataset.class_names == images.class_names
        for path, (image, _) in zip(images.paths, pairs, strict=True):
            read, inverted = predict.prepare(path, (32, 32, 3), "folder")
            assert (read.dtype, inverted) == (np.uint8, False)
            np.testing.assert_array_equal(read, image)
    assert folders.fill_cache(dataset.cache()).tolist() == images.labels.tolist()
    array = folders.ImageArray(dataset)
    np.testing.assert_array_equal(array[[3, 1]][0], np.asarray(pairs[3][0]).astype(np.uint8))
    assert array[np.array([], int)].shape == (0, 32, 32, 3)


def test_files_of_every_kind_give_training_and_predict_the_same_pixels(load, photos):
    kinds = sound()
    for name in "ab":
        (photos / name).mkdir(parents=True)
    for i, content in enumerate(kinds.values()):
        (photos / "ab"[i % 2] / f"{i:02}.jpg").write_bytes(content)
    images, _, _ = load()
    assert len(images.paths) == len(kinds) >= 15
    _, pairs = read_written(folders.write({"train": images}) / "train")
    for path, (image, _) in zip(images.paths, pairs, strict=True):
        read, _ = predict.prepare(path, (32, 32, 3), "folder")
        np.testing.assert_array_equal(read, image, err_msg=path.name)


def test_originals_that_are_gone_are_not_needed_any_more(films):
    for path in films.paths:
        path.unlink()
    parts, _ = folders.split(films, seed=0)
    assert len(read_written(folders.write(parts) / "train")[1]) == len(parts["train"].paths)
