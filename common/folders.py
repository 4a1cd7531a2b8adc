"""Folders of pictures, one a class: found, checked, grouped, split and linked."""

import atexit
import hashlib
import os
import re
import shutil
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow as tf
from sklearn.cluster import DBSCAN
from sklearn.model_selection import StratifiedGroupKFold

from common import devices, samples
from common.datasets import DataError, Source
from common.options import DISK

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")  # what Keras's utility reads
KAGGLE = "alexattia/the-simpsons-characters-dataset"  # Alexandre Attia's, 2017; 42 characters
KAGGLE_TEST = "kaggle_simpson_testset"
_KAGGLE_NAMES = {"homer_simpson", "lionel_hutz"}  # two of the 42
_KAGGLE_MINIMUM = 290  # as many have twenty of them
_DEEPEST = 6  # levels below the folder that is given
_SIDE = 16  # of a thumbnail, in pixels
ALIKE = 0.95  # correlation of two thumbnails, from which two pictures count as near-duplicates
_REMEMBERED = "checked-pictures"  # below the output folder


@dataclass(frozen=True)
class Pictures:
    """Pictures that TensorFlow can read, and their classes.

    Attributes:
        class_names: Names of the folders, sorted.
        paths: Their files, an array of `Path`, shape (count,).
        labels: Their classes, integers, shape (count,).
        sizes: Their heights and widths in pixels, integers, shape (count, 2).
        thumbnails: Grey ones of 16x16 pixels, float32, shape (count, 256), each with a mean of
            0 and a length of 1: the product of two is their correlation.
    """

    class_names: list
    paths: np.ndarray
    labels: np.ndarray
    sizes: np.ndarray
    thumbnails: np.ndarray

    def take(self, indices):
        """The pictures of these indices."""
        arrays = self.paths, self.labels, self.sizes, self.thumbnails
        return Pictures(self.class_names, *(array[indices] for array in arrays))


def load(args):
    """Find a folder of class folders, and check every picture in it.

    It is looked for at `args.pictures`, by default `<data-dir>/simpsons`, however deep below it
    the class folders lie; else Kaggle's Simpsons are downloaded there; else, or with
    `args.sample`, cartoons are drawn. Files are read, never changed.

    Returns:
        `pictures, test, source`: the `Pictures` of all classes with at least `args.min_images`;
        those of the published test set beside them, or None; and the `Source`.

    Raises:
        DataError: There are no pictures, or of one class only.
    """
    root, source = _find(args)
    top = _class_root(root, args.output_dir)
    if top is None:
        flat = any(_is_picture(entry) for entry in _entries(root))
        what = "its pictures lie in no folders of classes" if flat else "no pictures in it"
        raise DataError(
            f"{root}: {what}. Make a folder for each class, with its pictures inside "
            f"({', '.join(EXTENSIONS)})."
        )
    found, others, bare = {}, Counter(), []
    for folder in _folders(top):
        files = [entry for entry in _entries(folder) if not _is_folder(entry)]
        own = sorted(Path(entry.path) for entry in files if _is_picture(entry))
        others.update(Path(entry.name).suffix.lower() for entry in files if not _is_picture(entry))
        if own:
            found[folder.name] = own
        elif folder.name != top.name:  # Kaggle's archive has its folder twice, one in the other
            bare.append(folder.name)
    print(f"Data: {_WORDS[source.kind]}, {top} ({sum(map(len, found.values())):,} pictures)")
    if source.note:
        print(f"{source.note}.")
    if others:
        kinds = ", ".join(f"{count:,} {kind or 'without one'}" for kind, count in others.items())
        print(f"Passed over, no pictures by their names' ends: {kinds}")
    if bare:
        print(f"Passed over, folders without pictures of their own: {', '.join(bare)}")

    minimum = args.min_images
    if minimum is None:
        kaggles = len(found) == 42 and found.keys() >= _KAGGLE_NAMES
        minimum = _KAGGLE_MINIMUM if kaggles else 2
    everything = [path for files in found.values() for path in files]
    published = _published_test(root, top)
    checked = _check([*everything, *published], args.output_dir)
    found = {name: [p for p in files if p in checked] for name, files in found.items()}
    rare = {name: len(files) for name, files in found.items() if len(files) < minimum}
    if rare:
        listed = ", ".join(f"{name} ({count})" for name, count in rare.items())
        print(f"Left out, with fewer than {minimum} pictures (--min-images): {listed}")
    names = [name for name in found if name not in rare]
    if len(names) < 2:
        left = f"only one class ({names[0]})" if names else "no class"
        raise DataError(
            f"{top}: {left} of at least {minimum} readable pictures (--min-images); two are needed."
        )
    pictures = _pictures(names, [(path, name) for name in names for path in found[name]], checked)
    known = [(path, _of_test(path)) for path in published if path in checked]
    known = sorted((names.index(name), path) for path, name in known if name in names)
    known = [(path, names[label]) for label, path in known]
    if published and (strange := sum(path in checked for path in published) - len(known)):
        print(f"Published test pictures of no class that is learned, left out: {strange:,}")
    return pictures, _pictures(names, known, checked) if known else None, source


def near_duplicates(pictures):
    """Number the groups of pictures that are nearly the same, such as neighboring frames.

    Two belong together where their thumbnails correlate by at least `ALIKE`, and so do all that
    are chained by such pairs (single linkage: DBSCAN where every point is a core point).

    Returns:
        The group of each picture, integers from 0, shape (count,).
    """
    # Vectors of length 1: the square of their distance is 2 - 2 * correlation.
    distance = float(np.sqrt(2 - 2 * ALIKE))
    clusters = DBSCAN(eps=distance, min_samples=1, algorithm="brute")
    groups = clusters.fit_predict(pictures.thumbnails)
    sizes = np.bincount(groups)
    print(f"\nPictures with a near-duplicate: {np.mean(sizes[groups] > 1):.1%},", end=" ")
    print(f"in {np.sum(sizes > 1):,} groups, the largest of {sizes.max()}")
    return groups


def with_and_without_twins(published, training):
    """The published test set, and what of it has no near-duplicate in training.

    Args:
        published: `Pictures`, or None.
        training: The `Pictures` that are trained on.

    Returns:
        A dict by `published test` and `without twins` of `Pictures`, without those that are
        empty.
    """
    if published is None:
        return {}
    known = twins(published, training)
    print(f"Of the {len(known):,} pictures of the published test set,", end=" ")
    print(f"{np.sum(known):,} have a near-duplicate among the training pictures")
    alone = {} if known.all() else {"without twins": published.take(~known)}
    return {"published test": published} | alone


def twins(pictures, others):
    """Which of these pictures have a near-duplicate among the others: booleans, (count,)."""
    blocks = np.array_split(pictures.thumbnails, max(1, len(pictures.labels) // 500))
    return np.concatenate([(b @ others.thumbnails.T).max(axis=1) >= ALIKE for b in blocks])


def split(pictures, groups, seed):
    """Split into training, validation and test, about 5 : 1 : 1, each group on one side.

    Every class is spread in proportion (scikit-learn's `StratifiedGroupKFold`).

    Returns:
        A dict by `train`, `validation` and `test` of `Pictures`.

    Raises:
        DataError: A class has too few groups to be in all three.
    """
    labels, names = pictures.labels, pictures.class_names
    root = pictures.paths[0].parent.parent
    for i, name in enumerate(names):
        if (count := len(np.unique(groups[labels == i]))) < 3:
            raise DataError(
                f"{root}: the {np.sum(labels == i):,} pictures of {name} form {count} "
                f"group{'s'[: count - 1]} of near-duplicates; training, validation and test need "
                "one each. Add different ones, or take the folder away."
            )
    generator = np.random.default_rng(seed)
    rest, parts = np.arange(len(labels)), {}
    for part, share in [("test", 7), ("validation", 6)]:
        chosen = _cut(labels[rest], groups[rest], share, generator)
        parts[part], rest = rest[chosen], rest[~chosen]
    indices = {"train": rest, "validation": parts["validation"], "test": parts["test"]}
    for part, own in indices.items():
        if len(lacking := np.setdiff1d(labels, labels[own])):
            raise DataError(
                f"{root}: too few different pictures of {names[lacking[0]]} for {part}."
            )
    return {part: pictures.take(i) for part, i in indices.items()}


def _cut(labels, groups, share, generator):
    """Choose one in `share` pictures, whole groups, of every class: booleans, (count,)."""
    _, groups = np.unique(groups, return_inverse=True)
    groups = generator.permutation(groups.max() + 1)[groups]  # their numbers decide among equals
    folds = StratifiedGroupKFold(min(share, np.bincount(labels).max()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes with fewer pictures than folds: see below
        candidates = [chosen for _, chosen in folds.split(groups, labels, groups)]

    def merit(fold):
        return len(np.unique(labels[fold])), -abs(len(fold) - len(labels) / share)

    chosen = np.zeros(len(labels), bool)
    chosen[max((candidates[i] for i in generator.permutation(len(candidates))), key=merit)] = True
    for i in np.setdiff1d(labels, labels[chosen]):  # a class too small to be in each fold
        chosen |= groups == generator.choice(groups[labels == i])
    return chosen


def link(parts):
    """Make temporary folders `<part>/<class>/` with a link to each picture, for Keras to read.

    Links take no room; where the system allows none (Windows), the files are copied. The
    folders are removed when the program ends.

    Args:
        parts: Dict of `Pictures` by the name of their part.

    Returns:
        The `Path` that holds the folders.
    """
    place = Path(tempfile.mkdtemp(prefix="lesson-pictures-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    for part, pictures in parts.items():
        for name in pictures.class_names:
            (place / part / name).mkdir(parents=True, exist_ok=True)
        for i, (path, label) in enumerate(zip(pictures.paths, pictures.labels, strict=True)):
            # Numbered: in the order of `pictures`, and no two names alike on any system.
            new = place / part / pictures.class_names[label] / f"{i:07}{path.suffix}"
            try:
                new.symlink_to(path.absolute())
            except OSError:
                shutil.copyfile(path, new)
    return place


def read(path, side):
    """Read one picture as `keras.utils.image_dataset_from_directory` reads those of a folder.

    That is with `pad_to_aspect_ratio=True`, by TensorFlow's `resize_with_pad`. Keras's layer
    `Resizing` smooths besides: not what a network has learned from.

    Returns:
        Its bytes, uint8, shape (side, side, 3).

    Raises:
        tf.errors.OpError: It cannot be opened or decoded.
    """
    with tf.device("CPU"):
        content = tf.io.read_file(str(path))
        picture = tf.image.decode_image(content, channels=3, expand_animations=False)
        picture = tf.image.resize_with_pad(picture, side, side)
        return tf.cast(tf.round(picture), tf.uint8).numpy()


# Finding


_WORDS = {
    "folder": "from the folder of pictures",
    "download": "downloaded",
    "sample": "the small sample",
}


def _find(args):
    """The folder to look in, and its `Source`."""
    root = args.pictures or args.data_dir / "simpsons"
    if not args.sample:
        if args.pictures or _class_root(root, args.output_dir):
            return root, Source("folder", root)
        problem = _download(root)
        if not problem:
            return root, Source("download", root)
        print(
            f"\nNotice: no pictures in {root}, and {problem}\n"
            f"By hand: download https://www.kaggle.com/datasets/{KAGGLE} and unpack it into\n"
            f"{root}. Pictures of your own: --pictures DIR, with a folder for each class.\n"
            "Going on with the small sample: the figures below are those of a small sample.\n"
        )
    drawn = args.data_dir / "sample" / "simpsons"
    note = "Drawings made by this program, not frames of the films"
    if not drawn.exists():
        try:
            samples.write_cartoons(drawn)
        except OSError:  # a place that cannot be written to
            drawn = Path(tempfile.mkdtemp(prefix="lesson-sample-")) / "simpsons"
            atexit.register(shutil.rmtree, drawn.parent, ignore_errors=True)
            samples.write_cartoons(drawn)
    return drawn, Source("sample", drawn, note)


def _download(folder):
    """Fetch Kaggle's Simpsons into a folder that is not there yet; return why not, or None."""
    partial = folder.with_name(f"{folder.name}.part")
    print(f"Downloading the Simpsons (1.2 GB) from Kaggle into {folder}", flush=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tqdm's, in a notebook without ipywidgets
            import kagglehub

        place = kagglehub.dataset_download(KAGGLE, output_dir=str(partial), force_download=True)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed (pip install kagglehub)."
    except Exception as error:  # whatever kagglehub and its parts raise
        if isinstance(error, OSError) and error.errno in DISK:
            raise
        return f"Kaggle did not give them ({type(error).__name__})."
    new = folder / "kaggle" if folder.exists() else folder
    if partial.exists():
        partial.rename(new)
    else:  # in Kaggle's and Colab's own notebooks, it is there already
        new.symlink_to(place)
    return None


def _class_root(root, output_dir):
    """The folder, at `root` or below, whose own folders hold pictures: the highest one.

    Raises:
        DataError: There are several, and nothing tells which is meant.
    """
    level, seen, single = [root], {output_dir.resolve()}, []
    for _ in range(_DEEPEST):
        below, several = [], []
        for folder in level:
            inner = [p for p in _folders(folder) if p.resolve() not in seen]
            seen |= {p.resolve() for p in inner}
            filled = [p for p in inner if any(map(_is_picture, _entries(p)))]
            if len(filled) > 1:
                several.append(folder)
            elif filled:
                single.append(folder)
            below += inner
        if several:
            if len(several + single) > 1:
                both = " and in ".join(str(folder) for folder in (single + several)[:2])
                raise DataError(f"{root}: folders of pictures in {both}. Name one with --pictures.")
            return several[0]
        level = below
    return single[0] if single else None


def _folders(folder):
    inner = [Path(e.path) for e in _entries(folder) if _is_folder(e) and e.name[0] != "."]
    return sorted(p for p in inner if p.name not in (KAGGLE_TEST, "__MACOSX"))


def _entries(folder):
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _is_folder(entry):
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or to where one may not look
        return False


def _is_picture(entry):
    return entry.name.lower().endswith(EXTENSIONS) and not _is_folder(entry)


def _published_test(root, top):
    """The pictures of Kaggle's test set, which lie flat in a folder beside the classes."""
    for folder in [root, top, top.parent, top.parent.parent]:
        for place in [folder / KAGGLE_TEST / KAGGLE_TEST, folder / KAGGLE_TEST]:
            found = sorted(Path(entry.path) for entry in _entries(place) if _is_picture(entry))
            if found:
                return found
    return []


def _of_test(path):
    """The character of a test picture: homer_simpson of homer_simpson_12.jpg."""
    return path.stem.rpartition("_")[0]


# Checking


def _check(paths, output_dir):
    """Try every file with TensorFlow's decoder, once; name those that it refuses.

    What was found is remembered below `output_dir`, by path, size and time of change.

    Returns:
        A dict by path of those that can be read: heights, widths and thumbnails, integers,
        shape (258,).
    """
    keys = [_key(path) for path in paths]
    top = os.path.commonpath([str(path.absolute().parent) for path in paths])
    name = f"{hashlib.sha256(os.fsencode(top)).hexdigest()[:16]}-{tf.__version__}-1.npz"
    memory = output_dir / _REMEMBERED / name
    known = _recall(memory)
    new = [(path, key) for path, key in zip(paths, keys, strict=True) if key not in known]
    if new:
        print(f"Checking {len(new):,} files with TensorFlow's decoder", flush=True)
        # What the decoders complain of, without a name, is said below with one.
        with devices.quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
            known |= dict(pool.map(lambda pair: (pair[1], _try(pair[0])), new))
        lasting = {key: known[key] for key in keys if not known[key][0].startswith(_PASSING)}
        _remember(memory, lasting)
    answers = {path: known[key] for path, key in zip(paths, keys, strict=True)}
    refused = {path: reason for path, (reason, _) in answers.items() if reason}
    if refused:
        print(f"Not used, because TensorFlow cannot read them ({len(refused):,}):")
        for path, reason in refused.items():
            print(f"  {path}: {reason}")
    return {path: found for path, (reason, found) in answers.items() if not reason}


_NOTHING = np.zeros(2 + _SIDE**2, np.uint32)


def _key(path):
    try:
        status = path.stat()
    except OSError:  # a broken link
        return f"{path.absolute()}|"
    return f"{path.absolute()}|{status.st_size}|{status.st_mtime_ns}"


_PASSING = "cannot be opened"  # for now: not remembered
_LONGEST = 32  # longer sides than this, in shorter ones, would be resized to nothing


def _try(path):
    """Why a file cannot be read ("": it can); its height, its width and its thumbnail."""
    try:
        with tf.device("CPU"):
            content = tf.io.read_file(str(path))
            # As Keras's utility does it: whatever this refuses would end the run.
            picture = tf.image.decode_image(content, channels=3, expand_animations=False)
            small = tf.image.resize(picture, (_SIDE, _SIDE), method="area")
            small = tf.image.rgb_to_grayscale(small).numpy().round()
        height, width = picture.shape[:2]
        if max(height, width) > _LONGEST * min(height, width):
            return f"{width}x{height} pixels are too long and narrow", _NOTHING
        return "", np.array([height, width, *small.ravel()]).astype(np.uint32)
    except tf.errors.InvalidArgumentError as error:
        if not content.numpy():
            return "it is empty", _NOTHING
        reason = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message).strip().split("\n")[0]
        return reason or "it cannot be decoded", _NOTHING
    except (tf.errors.OpError, OSError, ValueError) as error:
        return f"{_PASSING} ({type(error).__name__})", _NOTHING


def _recall(memory):
    """What an earlier run has found: a dict by key of reasons and thumbnails."""
    try:
        with np.load(memory, allow_pickle=False) as file:
            rows = zip(file["keys"], file["reasons"], file["found"], strict=True)
            return {str(key): (str(reason), found) for key, reason, found in rows}
    except Exception:  # it is not there, or damaged: the files are checked again
        return {}


def _remember(memory, found):
    memory.parent.mkdir(parents=True, exist_ok=True)
    partial = memory.with_suffix(f".{os.getpid()}.part")
    with open(partial, "wb") as file:
        np.savez_compressed(
            file,
            keys=np.array(list(found)),
            reasons=np.array([reason for reason, _ in found.values()]),
            found=np.stack([found for _, found in found.values()]),
        )
    partial.replace(memory)


def _pictures(names, files, checked):
    """Pairs of a path and a class's name -> `Pictures`, with normalized thumbnails."""
    paths = np.empty(len(files), dtype=object)
    paths[:] = [path for path, _ in files]
    labels = np.array([names.index(name) for _, name in files])
    found = np.stack([checked[path] for path in paths])
    thumbnails = found[:, 2:].astype(np.float32)
    thumbnails -= thumbnails.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(thumbnails, axis=1, keepdims=True)
    return Pictures(names, paths, labels, found[:, :2], thumbnails / np.maximum(lengths, 1e-6))
