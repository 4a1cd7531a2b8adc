"""Keras's backups of a training that was cut off: is there one that can be read?"""

import json
import shutil

import h5py
import numpy as np

from common.options import Mistake


def check(folder):
    """Make sure that Keras's `BackupAndRestore` can read its backup, or else the one before.

    Raises:
        Mistake: Neither can be read.
    """
    names = "latest.weights.h5", "training_metadata.json"
    latest = [folder / name for name in names]
    before = [folder / f"{name}.bkp" for name in names]
    if _is_whole(*latest):
        return
    if not before[0].exists():  # killed in the first epoch: nothing is lost by beginning again
        shutil.rmtree(folder, ignore_errors=True)
        return
    if not _is_whole(*before):
        raise Mistake(f"{folder} is damaged. Begin a new run, without --resume.")
    for source, target in zip(before, latest, strict=True):
        shutil.copy(source, target)


def _read_through(_, item):
    if isinstance(item, h5py.Dataset):
        np.asarray(item)


def _is_whole(weights, metadata):
    try:
        with h5py.File(weights) as file:
            file.visititems(_read_through)
        return json.loads(metadata.read_text(encoding="utf-8"))["epoch"] >= 0
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return False
