"""Keras's backups of a training that was cut off: is there one that can be read?"""

import csv
import json
import shutil

import h5py

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


def _is_whole(weights, metadata):
    try:
        with h5py.File(weights):  # one that was cut off cannot be opened
            return json.loads(metadata.read_text(encoding="utf-8"))["epoch"] >= 0
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return False


def rows(path):
    """The last row of each epoch that `CSVLogger` wrote: dicts of texts, none of them cut off."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
    except FileNotFoundError:
        return []
    return list({row["epoch"]: row for row in rows}.values())


def write_rows(path, rows):
    """Write rows as `CSVLogger` does; the file is there whole or as it was."""
    if rows:
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        partial = path.with_name(f"{path.name}.part")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)
