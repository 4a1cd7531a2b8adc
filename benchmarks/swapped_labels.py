"""Give ten images another label on purpose, and see whether the Simpsons lesson finds them.

    python benchmarks/swapped_labels.py --images five        # two trainings of about 7 minutes
    python benchmarks/swapped_labels.py --sample --epochs 10 --image-size 48

All images are linked into a new folder, and five pairs of different classes change places there. We
take them of the validation and the test set. A copy of the lesson is trained on that folder, whose
plain model gets one epoch. Its `doubtful.csv` lists all images of the two sets, the ones first
whose own label is least probable. Printed is how many of the ten are among the first thirty. Each
seed splits and swaps anew.
"""

import csv
import tempfile
from pathlib import Path

import ideas
import numpy as np
import shared

from common import devices, options

PAIRS, FIRST = 5, 30
LESSON = ideas.LESSONS["simpsons"]


def main():
    parser = shared.parser(__doc__, "swapped")
    seeds = {"nargs": "+", "type": int, "default": [0, 1], "metavar": "N"}
    parser.add_argument("--seeds", help="default: 0 1", **seeds)
    parser.add_argument("--image-size", type=int, metavar="N", help="default: the lesson's")
    args = parser.parse_args()
    options.explain_errors()

    command = shared.passed_on(args, "epochs", "image_size")
    record = {"options": command, "processor": devices.cpu_name(), "runs": {}}
    for seed in args.seeds:
        with tempfile.TemporaryDirectory() as place:
            place = Path(place).resolve()
            swapped = link_images(args, place, seed)
            listed = train([*command, "--model", "cnn", "--images", place, "--seed", seed])
        places = sorted(listed.index(str(path)) + 1 for path in swapped)
        found = sum(place <= FIRST for place in places)
        record["runs"][str(seed)] = {"found": found, "places": places, "listed": len(listed)}
        shared.write(args.output, record)
        text = f"{found} of {len(swapped)} are among the first {FIRST} of {len(listed)}"
        print(f"Seed {seed}: {text}")
        print(f"  places: {', '.join(map(str, places))}", flush=True)
    print(f"Figures: {args.output}")


def link_images(args, top, seed):
    """Link all images into class folders in `top`; return the paths of the ten that are swapped.

    They are images without near-duplicates, so that the lesson finds the same groups as before, and
    makes the same split of them.
    """
    with devices.quiet():  # TensorFlow, which is imported
        images, groups, parts = shared.split(args, seed, args.image_size or 128)
    alone = np.bincount(groups)[groups] == 1
    held_out = {*parts["validation"].paths, *parts["test"].paths}
    candidates = [i for i, path in enumerate(images.paths) if alone[i] and path in held_out]
    candidates = np.random.default_rng(seed).permutation(candidates).tolist()
    contents = np.arange(len(images.paths))  # which image is linked at each place
    swapped = []
    while len(swapped) < 2 * PAIRS:
        first = candidates.pop()
        other = next(i for i in candidates if images.labels[i] != images.labels[first])
        candidates.remove(other)
        contents[[first, other]] = contents[[other, first]]
        swapped += [first, other]
    links = shared.link(top, images, images.paths[contents])
    return [links[i] for i in swapped]


def train(command):
    """Train a copy of the lesson; return the files that `doubtful.csv` lists, in order."""
    with shared.trained(LESSON.script, ideas.copy(LESSON), command) as (folder, _):
        text = (folder / "doubtful.csv").read_text(encoding="utf-8")
    return [row["file"] for row in csv.DictReader(text.splitlines())]


if __name__ == "__main__":
    main()
