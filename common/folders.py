"""Images in folders, a folder per class: found, checked, linked for Keras, and read once."""

import atexit
import contextlib
import os
import shutil
import stat
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf

from common import devices
from common.datasets import SAMPLES, Source, drawn
from common.options import DISK, Mistake

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_SIDE = 16  # of a thumbnail, in pixels
_LONGEST = 32  # longer sides than this, in shorter ones, would be resized to nothing
_LEAST = 3  # groups of each class: one to train on, one to validate, one to test


@dataclass(frozen=True)
class Images:
    """Image files that TensorFlow can read, and their classes.

    Attributes:
        class_names: Names of the folders, sorted.
        paths: The files, an array of `Path`, shape (count,).
        labels: Their classes, integers, shape (count,).
        thumbnails: Gray ones of 16x16 pixels, float32, shape (count, 256), each with zero mean:
            the cosine of two is their correlation.
    """

    class_names: list
    paths: np.ndarray
    labels: np.ndarray
    thumbnails: np.ndarray

    def take(self, indices):
        """The images of these indices, in the order that they have here."""
        i = np.sort(indices)
        return Images(self.class_names, self.paths[i], self.labels[i], self.thumbnails[i])


def load(images, *, place, sample, download, kaggle, test_folder, min_images):
    """Find a folder that has a folder of images for each class, and check every image in it.

    It is `images`, or else `place`, or one folder in it. Where there is none, cartoons are drawn.
    Files are read, never changed.

    Args:
        images: A folder that the user named; None: look into `place`.
        place: The folder where Kaggle's images are put.
        sample: Take the drawings at once.
        download: Fetch Kaggle's images into `place`, if there are none.
        kaggle: Owner and name of a data set of Kaggle's, and how large it is, in words.
        test_folder: The folder of its published test images, called <class>_<number>.
        min_images: Where `test_folder` is there, classes with fewer images are left out.
            Elsewhere, a class needs three.

    Returns:
        The `Images`; those of `test_folder` in a dict, by `published test`; the `Source`.

    Raises:
        Mistake: There are no images that can be read, or of one class only.
    """
    root, source = _find(images, place, sample, download, *kaggle)
    top = _class_root(root, test_folder)
    found = _list_classes(top, test_folder)
    words = {"folder": "from your folder", "kaggle": "downloaded", "sample": "the small sample"}
    print(f"Data: {words[source.kind]}, {top} ({sum(map(len, found.values())):,} images)")
    if source.note:
        print(f"{source.note}.")
    published = _images_in(root / test_folder / test_folder) or _images_in(root / test_folder)
    least = min_images if published and source.kind != "sample" else _LEAST
    checked = _check([*(path for files in found.values() for path in files), *published])
    found = {name: [path for path in files if path in checked] for name, files in found.items()}
    names = [name for name, files in found.items() if len(files) >= least]
    if rare := [f"{name} ({len(found[name])})" for name in found if name not in names]:
        print(f"Left out, with fewer than {least} images: {', '.join(rare)}")
    if len(names) < 2:
        left = f"only one class ({names[0]})" if names else "no class"
        raise Mistake(f"{top}: {left} of at least {least} readable images; two are needed.")
    images = _images(names, [(path, name) for name in names for path in found[name]], checked)
    # The character of homer_simpson_12.jpg is homer_simpson.
    known = sorted((path.stem.rpartition("_")[0], path) for path in published if path in checked)
    known = [(path, name) for name, path in known if name in names]
    published = {"published test": _images(names, known, checked)} if known else {}
    return images, published, source


def fold_count(images, groups, most):
    """How many folds the images can be split into, so that every class is in every fold.

    That is `most`, or the groups of the class that has the fewest.

    Args:
        images, groups: The `Images`, and each one's group, integers, shape (count,).
        most: The wished number of folds.

    Raises:
        Mistake: A class has fewer than three groups.
    """
    pairs = np.unique([groups, images.labels], axis=1)
    alone = np.bincount(pairs[0])[pairs[0]] == 1  # a group of one class only
    counts = np.bincount(pairs[1, alone], minlength=len(images.class_names))
    fewest, name = min(zip(counts, images.class_names, strict=True))
    if fewest < _LEAST:
        raise Mistake(
            f"{images.paths[0].parent.parent}: too few different images of {name}: they form "
            f"{fewest} of the {_LEAST} groups of near-duplicates that training, validation and "
            "test need. Add different ones, or move its folder away."
        )
    if fewest < most:
        text = f"Split into {fewest} folds instead of {most}, {fewest - 2} of them for training:"
        print(f"{text} {name} has {fewest} different images.")
    return min(most, fewest)


def link(parts):
    """Make temporary folders `<part>/<class>/` with a link to each image, for Keras to read.

    Where the system allows no links (Windows), the files are copied.

    Args:
        parts: A dict of `Images` by the name of their part.

    Returns:
        The `Path` that holds the folders.

    Raises:
        Mistake: A class is not in all of `train`, `validation` and `test`.
    """
    place = Path(tempfile.mkdtemp(prefix="lesson-images-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for part, images in parts.items():
        for i, name in enumerate(images.class_names):
            if i not in images.labels and part in ("train", "validation", "test"):
                raise Mistake(f"too few different images of {name}: none is left for {part}.")
            (place / part / name).mkdir(parents=True)
        for i, (path, label) in enumerate(zip(images.paths, images.labels, strict=True)):
            # In the order of `images`. TensorFlow looks at the content, and Keras at the ending:
            # .webp is none that it knows.
            new = place / part / images.class_names[label] / f"{i:07}.jpg"
            try:
                new.symlink_to(path.absolute())
            except OSError:
                shutil.copyfile(path, new)
    return place


def fill_cache(dataset, images):
    """Read a cached dataset from end to end: from now on, its files are not needed any more.

    Args:
        dataset, images: A `tf.data.Dataset` of pairs, image and label; the `Images` in it.

    Returns:
        The labels in the dataset's order, integers, shape (count,).

    Raises:
        Mistake: A file cannot be read any more, or the disk is full.
    """
    try:
        return np.array([label for _, label in dataset.as_numpy_iterator()])
    except tf.errors.OpError as error:
        gone = next((path for path in images.paths if not os.path.isfile(path)), None)
        what = f"{gone}: not there any more" if gone else "the images cannot be read and cached"
        raise Mistake(f"{what} ({type(error).__name__}). Is the disk full, or gone?") from None


@dataclass(frozen=True)
class ImageArray:
    """A dataset of pairs whose images are indexed like an array, by an array of integers.

    It reads up to the last that is asked for: a uint8 array, shape (count, height, width, 3).
    """

    dataset: tf.data.Dataset

    def __getitem__(self, indices):
        indices = np.asarray(indices, dtype=int)
        images = np.empty((len(indices), *self.dataset.element_spec[0].shape), np.uint8)
        first = self.dataset.take(int(max(indices, default=-1)) + 1)
        for i, (image, _) in enumerate(first.as_numpy_iterator()):
            images[indices == i] = image
        return images


# Finding

_HOW = "Make a folder for each class, with its images inside"


def _find(images, place, sample, download, kaggle, size):
    """The folder to look in, and its `Source`."""
    if not sample:
        if images or _names(place):
            return images or place, Source("folder", images or place)
        problem = f"--download fetches {kaggle} ({size})"
        if download:
            problem = _from_kaggle(kaggle, size, place)
            if not problem:
                return place, Source("kaggle", place)
        elif not SAMPLES.exists():
            raise Mistake(f"{place}: no images there. {_HOW}, or name another one with --images.")
        print(
            f"\nNotice: no images in {place}; {problem}.\n"
            f"By hand: unpack https://www.kaggle.com/datasets/{kaggle} into it.\n"
            "Images of your own: --images DIR, with a folder for each class.\n"
            "Using the small sample: the figures below are those of a small sample.\n"
        )
    drawings = SAMPLES / "cartoons"
    if not drawings.exists():
        try:
            drawn("write_cartoons", drawings)
        except OSError:  # a place that cannot be written to
            drawings = Path(tempfile.mkdtemp(prefix="lesson-sample-")) / "cartoons"
            atexit.register(shutil.rmtree, drawings.parent, ignore_errors=True)
            drawn("write_cartoons", drawings)
    return drawings, Source("sample", drawings, "Drawings made by this program, not film frames")


def _from_kaggle(handle, size, folder):
    """Fetch a data set of Kaggle's into a folder that is not there yet, or empty.

    Returns:
        In words why it did not work, or None.

    Raises:
        OSError: The disk is full, or the folder not writable.
    """
    print(f"Downloading {handle} ({size}) from Kaggle into {folder}", flush=True)
    partial = folder.with_name(f"{folder.name}.part")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm's, in a notebook without ipywidgets
            import kagglehub

        found = kagglehub.dataset_download(handle, output_dir=str(partial), force_download=True)
    except Exception as error:  # whatever kagglehub and its parts raise
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        return f"Kaggle did not give them ({type(error).__name__})"
    folder.mkdir(parents=True, exist_ok=True)  # hidden files may be there
    for entry in Path(found).iterdir():
        if partial.exists():
            entry.rename(folder / entry.name)
        else:  # in Kaggle's and Colab's own notebooks, it is there already
            (folder / entry.name).symlink_to(entry)
    shutil.rmtree(partial, ignore_errors=True)
    return None


def _class_root(root, test_folder):
    """The folder whose own folders hold images: `root`, or the only such folder in it.

    Raises:
        Mistake: There is none, or nothing tells which of several is meant.
    """
    try:
        os.listdir(root)
    except OSError as error:
        raise Mistake(f"{root}: cannot be read ({error.strerror}).") from None
    inner = _folders(root, test_folder)
    filled = [folder for folder in inner if _images_in(folder)]
    if len(filled) > 1:
        return root
    holders = [f for f in inner if sum(map(bool, map(_images_in, _folders(f, test_folder)))) > 1]
    if len(holders) > 1 or (holders and filled):
        both = " and in ".join(str(folder) for folder in [*filled, *holders][:2])
        raise Mistake(f"{root}: images in {both}. Name the folder of class folders by --images.")
    if holders or filled:
        return holders[0] if holders else root
    closed = [f"{folder} may not be read" for folder in inner if not os.access(folder, os.R_OK)]
    what = "its images lie in no class folders" if _images_in(root) else "no images in its folders"
    what = closed[0] if closed else what
    raise Mistake(f"{root}: {what}. {_HOW} ({', '.join(EXTENSIONS)}).")


def _list_classes(top, test_folder):
    """The image files of each class folder; what is skipped is named."""
    found, others = {}, Counter()
    for folder in _folders(top, test_folder):
        try:
            os.listdir(folder)
            folder.name.encode()  # for the files that name it
        except (OSError, UnicodeError) as error:
            print(f"Skipped: {folder} cannot be read ({error})")
            continue
        names = [name for name in _names(folder) if not os.path.isdir(folder / name)]
        others.update(Path(n).suffix for n in names if not n.lower().endswith(EXTENSIONS))
        if images := _images_in(folder):
            found[folder.name] = images
        elif folder.name != top.name:  # Kaggle's archive has its folder twice, one in the other
            print(f"Skipped: {folder} has no images of its own")
    if others:
        kinds = ", ".join(f"{count:,} {kind or 'without one'}" for kind, count in others.items())
        print(f"Skipped: what is no image by its ending ({kinds})")
    return found


def _names(folder):
    """What is in a folder and not hidden, sorted; nothing where one may not look."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def _folders(folder, test_folder):
    paths = [folder / name for name in _names(folder) if name not in (test_folder, "__MACOSX")]
    return [path for path in paths if os.path.isdir(path)]


def _images_in(folder):
    paths = [folder / name for name in _names(folder) if name.lower().endswith(EXTENSIONS)]
    return [path for path in paths if not os.path.isdir(path)]


# Checking


def _check(paths):
    """Decode every file as Keras will; name those that cannot be read.

    Returns:
        A dict by path of the others: their thumbnails, floats, shape (256,).
    """
    print(f"Checking {len(paths):,} files", flush=True)
    # What the decoders complain of, without a name, is said below with one.
    with devices.quiet(), ThreadPoolExecutor(devices.cores()) as pool:
        answers = dict(zip(paths, pool.map(_try, paths), strict=True))
    refused = {path: answer for path, answer in answers.items() if isinstance(answer, str)}
    if refused:
        print(f"Skipped, because they cannot be read ({len(refused):,}):")
        for path, reason in refused.items():
            print(f"  {path}: {reason}")
    return {path: answer for path, answer in answers.items() if path not in refused}


def _try(path):
    """A file's thumbnail; or in words why it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device, which may never end
            return "not a regular file"
        if not status.st_size:
            return "it is empty"
        with tf.device("CPU"):
            image = _decode(path)
            small = tf.image.resize(image, (_SIDE, _SIDE), method="area")
            small = tf.image.rgb_to_grayscale(small).numpy().round()
        height, width = image.shape[:2]
        if max(height, width) > _LONGEST * min(height, width):
            return f"{width}x{height} pixels are too long and narrow"
        return small.ravel()
    except tf.errors.InvalidArgumentError:
        return "damaged, or no image of a kind that TensorFlow decodes"
    except (tf.errors.OpError, OSError, ValueError) as error:
        return f"cannot be opened ({getattr(error, 'strerror', None) or type(error).__name__})"


def _decode(path):
    content = tf.io.read_file(os.fsencode(path))
    return tf.image.decode_image(content, channels=3, expand_animations=False)


def _images(names, files, checked):
    """Pairs of a path and a class's name -> `Images`."""
    paths = np.array([path for path, _ in files], dtype=object)
    labels = np.array([names.index(name) for _, name in files])
    thumbnails = np.stack([checked[path] for path in paths]).astype(np.float32)
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    thumbnails[~thumbnails.any(axis=1)] = 1  # of one color: near-duplicates of one another
    return Images(names, paths, labels, thumbnails)
