"""Keras's backups of a training that was cut off: is there one that can be read?"""

import csv
import json
import shutil

import h5py

from common.options import Mistake


def check(folder, lowest):
    """Make sure that Keras's `BackupAndRestore` can read its backup, or else the one before.

    Args:
        folder: Of the backups.
        lowest: Returns the lowest of the numbers that several processes give it.

    Returns:
        How many epochs were trained before the backup that is taken: in all processes the same.

    Raises:
        Mistake: Neither can be read.
    """
    names = "latest.weights.h5", "training_metadata.json"
    latest = [folder / name for name in names]
    before = [folder / f"{name}.bkp" for name in names]
    found = _epochs(*latest), _epochs(*before)
    if not any(found) and before[0].exists():
        raise Mistake(f"{folder} is damaged. Begin a new run, without --resume.")
    epochs = lowest(max(found))
    if not epochs:  # killed in the first epoch: nothing is lost by beginning again
        shutil.rmtree(folder, ignore_errors=True)
    elif epochs not in found:
        raise Mistake(f"{folder} has no backup after epoch {epochs}, as another process has.")
    elif epochs != found[0]:
        for source, target in zip(before, latest, strict=True):
            shutil.copy(source, target)
    return epochs


def _epochs(weights, metadata):
    """After how many epochs this backup was made; 0: none that can be read."""
    try:
        with h5py.File(weights):  # one that was cut off cannot be opened
            return int(json.loads(metadata.read_text(encoding="utf-8"))["epoch"])
    except (OSError, ValueError, KeyError, TypeError, RuntimeError):
        return 0


def rows(path):
    """The last row of each epoch that `CSVLogger` wrote: dicts of texts, none of them cut off."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if None not in row.values()]
    except FileNotFoundError:
        return []
    return list({row["epoch"]: row for row in rows}.values())


def write_rows(path, rows):
    """Write rows as `CSVLogger` does, if there are any; the file is there whole or as it was."""
    if not rows:
        path.unlink(missing_ok=True)
    else:
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        partial = path.with_name(f"{path.name}.part")
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
        partial.replace(path)
