"""Give ten images another label on purpose, and see whether the Simpsons lesson finds them.

    python benchmarks/swapped_labels.py --images five        # two trainings of about 7 minutes
    python benchmarks/swapped_labels.py --sample --epochs 10 --image-size 48

All images are linked into a new folder, and five pairs of different classes change places there. We
take them of the validation and the test set. The lesson is trained on that folder. Its
`doubtful.csv` lists all images of the two sets, the ones first whose own label is least probable.
Printed is how many of the ten are among the first thirty. Each seed splits and swaps anew.
"""

import argparse
import contextlib
import csv
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

import numpy as np
from sklearn.cluster import DBSCAN
from sklearn.model_selection import StratifiedGroupKFold

from common import devices, options

PAIRS, FIRST = 5, 30


def main():
    parser = options.Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--images", type=options.existing_folder, help="a folder for each class")
    parser.add_argument("--sample", action="store_true", help="on the drawings")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], metavar="N")
    parser.add_argument("--epochs", type=int, help="default: the lesson's")
    parser.add_argument("--image-size", type=int, help="default: the lesson's")
    parser.add_argument("--output", type=Path, help="JSON file (default: in outputs/swapped)")
    options.answer_mistakes(parser.prog)
    args = parser.parse_args()
    if bool(args.images) == args.sample:
        parser.error("name a folder with --images, or take the drawings with --sample")
    command = ["--skip-baseline"]
    for name in ("epochs", "image_size"):
        if value := getattr(args, name):
            command += [f"--{name.replace('_', '-')}", str(value)]

    output = args.output or HOME / "outputs" / "swapped" / time.strftime("%Y%m%d-%H%M%S.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    record = {"options": command, "processor": devices.cpu_name(), "runs": {}}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as place:
            place = Path(place).resolve()
            swapped = link_images(args, place / "images", seed)
            listed = train(place, [*command, "--seed", str(seed)])
        places = sorted(listed.index(str(path)) + 1 for path in swapped)
        found = sum(place <= FIRST for place in places)
        record["runs"][str(seed)] = {"found": found, "places": places, "listed": len(listed)}
        output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        text = f"{found} of {len(swapped)} are among the first {FIRST} of {len(listed)}"
        print(f"Seed {seed}: {text}")
        print(f"  places: {', '.join(map(str, places))}", flush=True)
    print(f"Figures: {output}")


def link_images(args, top, seed):
    """Link all images into class folders in `top`; return the paths of the ten that are swapped.

    They are images without near-duplicates, so that the lesson finds the same groups as before, and
    makes the same split of them.
    """
    with devices.quiet():
        from common import folders  # imports TensorFlow

    asked = SimpleNamespace(images=args.images, sample=args.sample, min_images=None)
    asked.download, asked.data_dir, asked.begun = False, HOME / "data", {"script": "simpsons.py"}
    where = {"test_folder": "kaggle_simpson_testset", "min_images": 290}
    with contextlib.redirect_stdout(None), devices.quiet():
        images, _, _ = folders.load(asked, kaggle=("", ""), **where)
        groups = DBSCAN(eps=1 - 0.95, min_samples=1, metric="cosine").fit_predict(images.thumbnails)
        n_splits = folders.fold_count(images, groups, most=7)
    folds = StratifiedGroupKFold(n_splits, shuffle=True, random_state=seed)
    *_, validation, test = [fold for _, fold in folds.split(images.paths, images.labels, groups)]
    alone = np.bincount(groups)[groups] == 1
    generator = np.random.default_rng(seed)
    candidates = generator.permutation([i for i in [*validation, *test] if alone[i]]).tolist()
    contents = np.arange(len(images.paths))  # which image is linked at each place
    swapped = []
    while len(swapped) < 2 * PAIRS:
        first = candidates.pop()
        other = next(i for i in candidates if images.labels[i] != images.labels[first])
        candidates.remove(other)
        contents[[first, other]] = contents[[other, first]]
        swapped += [first, other]
    links = []
    for path, label in zip(images.paths, images.labels, strict=True):
        links.append(top / images.class_names[label] / path.name)
    for link, content in zip(links, contents, strict=True):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(images.paths[content].resolve())
    return [links[i] for i in swapped]


def train(place, command):
    """Train the lesson on `place`/images; return the files that `doubtful.csv` lists, in order."""
    command = [sys.executable, "train_simpsons.py", "--images", str(place / "images"), *command]
    command += ["--output-dir", str(place / "outputs")]
    done = subprocess.run(command, cwd=HOME, capture_output=True, text=True)
    found = list(place.glob("outputs/*/*/doubtful.csv"))
    if done.returncode or not found:
        raise options.Mistake(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    with open(found[0], newline="", encoding="utf-8") as file:
        return [row["file"] for row in csv.DictReader(file)]


if __name__ == "__main__":
    main()
