"""Images in folders, a folder per class: found, decoded once, split, written for Keras to read."""

import atexit
import contextlib
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image
from sklearn.cluster import DBSCAN
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from common import devices, images
from common.datasets import SAMPLES, Source, drawn
from common.options import DISK, Mistake

_SIDE = 16  # of a thumbnail, in pixels
_LEAST = 3  # images of each class that look different: to train on, to validate, to test
_FOLDS = 7
_TRAIN, _TEST = ("train", "training", "valid", "validation", "val"), ("test", "testing")


@dataclass(frozen=True)
class Images:
    """Image files that could be decoded, and their classes.

    Attributes:
        class_names: Names of the folders, sorted.
        paths: The user's files, an array of `Path`, shape (count,).
        files: The same images in a square, as PNG files of this program; an array of `Path`.
        labels: Their classes, integers, shape (count,).
        thumbnails: Gray ones of 16x16 pixels, float32, shape (count, 256), each with zero mean and
            the length 1: the product of two is their correlation.
    """

    class_names: list
    paths: np.ndarray
    files: np.ndarray
    labels: np.ndarray
    thumbnails: np.ndarray

    def take(self, indices):
        """The images of these indices, in the order that they have here."""
        i = np.sort(indices)
        fields = self.paths[i], self.files[i], self.labels[i], self.thumbnails[i]
        return Images(self.class_names, *fields)


def load(
    folder, *, place, sample, download, kaggle, test_images, test_folder, min_images, side
):  # fmt: skip
    """Find a folder that has a folder of images for each class, and decode every image in it, once.

    It is `folder`, or else `place`, or one folder in it. Where it has `train/` and `test/`, with
    the same class folders in both, the second is the published test set. Where there is none,
    cartoons are drawn. Files are read, never changed.

    Args:
        folder: One that the user named; None: look into `place`.
        place: The folder where Kaggle's images are put.
        sample: Take the drawings at once.
        download: Fetch Kaggle's images into `place`, if there are none.
        kaggle: Owner and name of a data set of Kaggle's, and how large it is, in words.
        test_images: A folder with published test images, in class folders, or called
            <class>_<number>; None: look into the folder of the others.
        test_folder: How that is called there.
        min_images: Where `test_folder` is there, classes with fewer images are left out.
            Elsewhere, a class needs three.
        side: Of the square that each image is shrunk to, in pixels.

    Returns:
        The `Images`; the published test images in a dict, by `published test`; the `Source`.

    Raises:
        Mistake: There are no images that can be read, or of one class only.
        OSError: The disk is full.
    """
    root, source = _find(folder, place, sample, download, *kaggle)
    pools, test = _layout(root, test_images, test_folder)
    found = {}
    for pool in pools:
        for name, files in _list_classes(pool, test).items():
            found.setdefault(name, []).extend(files)
    known = _list_test(test, found) if test else {}
    words = {"folder": "from your folder", "kaggle": "downloaded", "sample": "the small sample"}
    count = sum(map(len, found.values()))
    print(f"Data: {words[source.kind]}, {pools[0]} ({count:,} images)")
    if source.note:
        print(f"{source.note}.")
    everything = [path for own in (found, known) for files in own.values() for path in files]
    decoded = _decode_all(list(dict.fromkeys(everything)), side)
    found = {name: [path for path in files if path in decoded] for name, files in found.items()}
    of_the_lesson = known and test.name == test_folder and source.kind != "sample"
    least = min_images if of_the_lesson else _LEAST
    names = sorted(name for name, files in found.items() if len(files) >= least)
    if rare := [f"{name} ({len(found[name])})" for name in sorted(found) if name not in names]:
        print(f"Left out, with fewer than {least} images: {', '.join(rare)}")
    if len(names) < 2:
        left = f"only one class ({names[0]})" if names else "no class"
        raise Mistake(f"{root}: {left} of at least {least} readable images; two are needed.")
    pairs = [(path, i) for i, name in enumerate(names) for path in found[name]]
    tests = [(p, i) for i, name in enumerate(names) for p in known.get(name, []) if p in decoded]
    published = {"published test": _images(names, tests, decoded)} if tests else {}
    return _images(names, pairs, decoded), published, source


def split(images_, seed, correlation=0.95):
    """Split images into training, validation and test, with near-duplicates in one part.

    Two images of a class are near-duplicates if their thumbnails correlate by `correlation` or
    more; near-duplicates of near-duplicates are in one group, by scikit-learn's `DBSCAN`. Where
    chains make a group of more than a tenth of its class, the limit is raised for that class; a
    group that stays as large is divided. The parts are folds of `StratifiedGroupKFold`: seven, or
    fewer where a class has few groups. One is for validation, one for the test.

    Args:
        images_: The `Images`.
        seed: Of the folds.
        correlation: 0 to 1; None: a plain stratified split.

    Returns:
        A dict of `Images`: `train`, `validation`, `test`; and the groups of all images, integers,
        shape (count,).

    Raises:
        Mistake: A class has fewer than three groups.
    """
    labels, count = images_.labels, len(images_.labels)
    groups = np.arange(count) if correlation is None else _groups(images_, correlation)
    fewest = [len(np.unique(groups[labels == i])) for i in range(len(images_.class_names))]
    few, name = min(zip(fewest, images_.class_names, strict=True))
    if few < _LEAST:
        raise Mistake(
            f"{images_.paths[0].parent.parent}: too few different images of {name}: they form "
            f"{few} of the {_LEAST} groups of near-duplicates that training, validation and "
            "test need. Add different ones, or move its folder away."
        )
    folds = min(few, _FOLDS)
    if few < _FOLDS:
        print(f"Split into {folds} folds instead of {_FOLDS}: {name} has {few} different images.")
    if correlation is None:
        found = StratifiedKFold(folds, shuffle=True, random_state=seed).split(labels, labels)
    else:
        kind = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
        found = kind.split(labels, labels, groups)
    *training, validation, test = [fold for _, fold in found]
    chosen = {"train": np.concatenate(training), "validation": validation, "test": test}
    parts = {part: images_.take(indices) for part, indices in chosen.items()}
    for part, own in parts.items():
        if missing := [n for i, n in enumerate(images_.class_names) if i not in own.labels]:
            raise Mistake(f"too few different images of {missing[0]}: none is left for {part}.")
    leaked = _leaked(parts["train"], parts["test"], correlation or 0.95)
    what = f"with a correlation of {correlation or 0.95} or more"
    print(f"Test images with a near-duplicate in the training set ({what}): {leaked:,}")
    return parts, groups


def write(parts):
    """Make temporary folders `<part>/<class>/000001.png` of the images, for Keras to read.

    Args:
        parts: A dict of `Images` by the name of their part.

    Returns:
        The `Path` that holds the folders.
    """
    place = _temporary("lesson-images-")
    for part, own in parts.items():
        for name in own.class_names:
            (place / part / name).mkdir(parents=True)
        for i, (file, label) in enumerate(zip(own.files, own.labels, strict=True), start=1):
            new = place / part / own.class_names[label] / f"{i:06}.png"
            try:
                os.link(file, new)  # a second name of the same file
            except OSError:
                shutil.copyfile(file, new)
    return place


def fill_cache(dataset):
    """Read a cached dataset from end to end: from now on, its files are not needed any more.

    Returns:
        The labels in the dataset's order, integers, shape (count,).

    Raises:
        Mistake: The disk is full.
    """
    try:
        return np.array([label for _, label in dataset.as_numpy_iterator()])
    except tf.errors.OpError as error:
        what = f"the images cannot be read and cached ({type(error).__name__})"
        raise Mistake(f"{what}. Is the disk full?") from None


@dataclass(frozen=True)
class ImageArray:
    """A dataset of pairs whose images are indexed like an array, by an array of integers.

    It reads up to the last that is asked for: a uint8 array, shape (count, height, width, 3).
    """

    dataset: tf.data.Dataset

    def __getitem__(self, indices):
        indices = np.asarray(indices, dtype=int)
        found = np.empty((len(indices), *self.dataset.element_spec[0].shape), np.uint8)
        first = self.dataset.take(int(max(indices, default=-1)) + 1)
        for i, (image, _) in enumerate(first.as_numpy_iterator()):
            found[indices == i] = image
        return found


# Finding

_HOW = "Make a folder for each class, with its images inside"


def _find(folder, place, sample, download, kaggle, size):
    """The folder to look in, and its `Source`."""
    if not sample:
        if folder or _names(place):
            return folder or place, Source("folder", folder or place)
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
            drawings = _temporary("lesson-sample-") / "cartoons"
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


def _layout(root, test_images, test_folder):
    """The folders of class folders, and the one of published test images, or None.

    Raises:
        Mistake: There is none, or nothing tells which of several is meant.
    """
    try:
        os.listdir(root)
    except OSError as error:
        raise Mistake(f"{root}: cannot be read ({error.strerror}).") from None
    test = test_images or next((f for f in _folders(root) if f.name == test_folder), None)
    inner = [folder for folder in _folders(root) if folder != test]
    train = [folder for folder in inner if folder.name.lower() in _TRAIN]
    if train and not test_images:
        test = next((folder for folder in inner if folder.name.lower() in _TEST), test)
    if train and all(len(_filled(folder)) > 1 for folder in train):
        return sorted(train, key=lambda folder: _TRAIN.index(folder.name.lower())), test
    holders = [folder for folder in inner if len(_filled(folder)) > 1]
    shared = [_names(folder) for folder in holders]
    if len(holders) > 1 and len(set(shared[0]) & set(shared[1])) > 1:
        both = " and in ".join(str(folder) for folder in holders[:2])
        raise Mistake(f"{root}: images in {both}. Name the folder of class folders by --images.")
    filled = [folder for folder in inner if _has_images(folder)]
    if len(filled) == 1 and holders == filled:
        return holders, test
    if filled:
        return [root], test
    closed = [f"{folder} may not be read" for folder in inner if not os.access(folder, os.R_OK)]
    what = "its images lie in no class folders" if _images_in(root) else "no images in its folders"
    what = closed[0] if closed else what
    raise Mistake(f"{root}: {what}. {_HOW} ({', '.join(images.EXTENSIONS)}).")


def _list_classes(top, test):
    """The image files of each class folder, and of folders below; what is skipped is named."""
    found, others = {}, Counter()
    for folder in _folders(top):
        if folder in (test, top / top.name):  # Kaggle's archive has its folder twice
            continue
        try:
            os.listdir(folder)
            folder.name.encode()  # for the files that name it
        except (OSError, UnicodeError) as error:
            print(f"Skipped: {folder} cannot be read ({error})")
            continue
        if folder.resolve() in (top.resolve(), *top.resolve().parents):
            print(f"Skipped: {folder} leads back to where it is")
            continue
        files = list(_files_below(folder))
        own = [file for file in files if file.suffix.lower() in images.EXTENSIONS]
        others.update(file.suffix for file in files if file.suffix.lower() not in images.EXTENSIONS)
        if own:
            found[folder.name] = own
        else:
            print(f"Skipped: {folder} has no images")
    if others:
        print(f"Skipped: {skipped(others)}")
    return found


def skipped(endings):
    """In words, which files were passed over; `endings`: a `Counter` of their endings."""
    kinds = ", ".join(f"{count:,} {kind or 'without one'}" for kind, count in endings.items())
    return f"what is no image by its ending ({kinds})"


def _list_test(test, class_names):
    """The published test images of each class: in class folders, or called <class>_<number>."""
    inner = test / test.name
    test = inner if inner.is_dir() else test
    if any(folder.name in class_names for folder in _folders(test)):
        return {f.name: _images_in(f, below=True) for f in _folders(test) if f.name in class_names}
    found = {}
    for path in _images_in(test):
        name = path.stem.rpartition("_")[0]  # that of homer_simpson_12.jpg is homer_simpson
        if name in class_names:
            found.setdefault(name, []).append(path)
    return found


def _names(folder):
    """What is in a folder and not hidden, sorted; nothing where one may not look."""
    with contextlib.suppress(OSError):
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    return []


def _folders(folder):
    paths = [folder / name for name in _names(folder) if name != "__MACOSX"]
    return [path for path in paths if os.path.isdir(path)]


def _files_below(folder):
    """Yield all files in a folder and in those below; links to folders are passed over."""
    for place, inner, names in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__MACOSX")))
        yield from (Path(place, name) for name in sorted(names) if not name.startswith("."))


def _images_in(folder, below=False):
    files = _files_below(folder) if below else [folder / name for name in _names(folder)]
    known = [path for path in files if path.suffix.lower() in images.EXTENSIONS]
    return [path for path in known if not os.path.isdir(path)]


def _has_images(folder):
    return any(path.suffix.lower() in images.EXTENSIONS for path in _files_below(folder))


def _filled(folder):
    return [inner for inner in _folders(folder) if _has_images(inner)]


# Decoding


def _temporary(prefix):
    """A folder that goes when the program ends."""
    place = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _decode_all(paths, side):
    """Decode each file once: its thumbnail, and the image in a square, as a PNG file.

    Those that cannot be decoded are named.

    Returns:
        A dict by path: the PNG file, and the thumbnail, floats, shape (256,).
    """
    place = _temporary("lesson-squares-")

    def decode(job):
        number, path = job
        try:
            image = images.decode(path, side)
        except images.ImageError as error:
            return path, str(error)
        file = place / f"{number:06}.png"
        Image.fromarray(images.square(image, side)).save(file, compress_level=1)
        gray = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX)
        return path, (file, np.asarray(gray, np.float32).ravel())

    decoded, refused = {}, {}
    shown = sys.stdout.isatty()
    print(f"Decoding {len(paths):,} files", end="" if shown else "\n", flush=True)
    # What decoders complain of, without a name, is said below with one.
    with devices.quiet(), ThreadPoolExecutor(devices.cores()) as pool:
        for number, (path, answer) in enumerate(pool.map(decode, enumerate(paths, start=1)), 1):
            (refused if isinstance(answer, str) else decoded)[path] = answer
            if shown and (number % 100 == 0 or number == len(paths)):
                print(f"\rDecoding {len(paths):,} files: {number / len(paths):.0%}", end="")
    print("\n" if shown else "", end="", flush=True)
    if refused:
        print(f"Skipped, because they cannot be read ({len(refused):,}):")
        for path, reason in refused.items():
            print(f"  {path}: {reason}")
    return decoded


def _images(names, pairs, decoded):
    """Pairs of a path and its class -> `Images`."""
    paths = np.array([path for path, _ in pairs], dtype=object)
    files = np.array([decoded[path][0] for path in paths], dtype=object)
    thumbnails = np.stack([decoded[path][1] for path in paths])
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    thumbnails[~thumbnails.any(axis=1)] = 1  # of one color: near-duplicates of one another
    thumbnails /= np.linalg.norm(thumbnails, axis=1, keepdims=True)
    return Images(names, paths, files, np.array([label for _, label in pairs]), thumbnails)


# Near-duplicates


def _groups(images_, correlation):
    """The group of each image, of near-duplicates of its class: integers, shape (count,)."""
    groups, next_group, raised = np.empty(len(images_.labels), int), 0, []
    for label, name in enumerate(images_.class_names):
        own = np.flatnonzero(images_.labels == label)
        most = max(30, len(own) // 10)
        for limit in [c for c in (correlation, 0.97, 0.98, 0.99, 0.995) if c >= correlation]:
            found = DBSCAN(eps=np.sqrt(2 - 2 * limit), min_samples=1).fit_predict(
                images_.thumbnails[own]
            )
            if np.bincount(found).max() <= most:
                break
        else:  # chains through most of the class: they are no near-duplicates of one another
            alone = len(own) + np.arange(len(own))
            found = np.where(np.bincount(found)[found] > most, alone, found)
            _, found = np.unique(found, return_inverse=True)
        if limit > correlation:
            raised.append(f"{name} ({limit})")
        groups[own] = next_group + found
        next_group += found.max() + 1
    if raised:
        print(
            f"Near-duplicates only from a higher correlation on, for large groups: {_few(raised)}"
        )
    return groups


def _few(texts):
    more = f", and {len(texts) - 5} more" if len(texts) > 5 else ""
    return ", ".join(texts[:5]) + more


def _leaked(train, test, correlation):
    """How many test images have a training image with such a correlation."""
    highest = [(rows @ train.thumbnails.T).max(axis=1) for rows in _chunks(test.thumbnails)]
    return int((np.concatenate(highest) >= correlation - 1e-6).sum())


def _chunks(array, size=500):
    return np.split(array, range(size, len(array), size))
