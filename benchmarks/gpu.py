"""Train the lessons on this machine's GPU, then on its CPU: accuracy, times, waiting for input.

    python benchmarks/gpu.py --images five                  # all four
    python benchmarks/gpu.py mnist cifar10
    python benchmarks/gpu.py mnist --sample --epochs 3      # does it work?

On the GPU, the lessons run with their defaults; on the CPU, for two epochs. With
`KERAS_BACKEND=jax` in the environment, both compute on JAX. Nothing else should run meanwhile. The
table and the JSON file have of the last model's training:

- fit: its seconds; first: those of the first epoch, which compiles; later: of a later one, the
  median;
- waiting: the share of a step that is waiting for input (see benchmarks/README.md).
"""

import itertools
import os
import shutil
import statistics

import shared

from common import options

LESSONS = {
    "mnist": [],
    "fashion": [],
    "cifar10": ["--model", "deep"],
    "simpsons": [],
}
HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}  # from TensorFlow, and from JAX
COLUMNS = ["lesson", "on", "precision", "test accuracy", "epochs", "fit", "first", "later"]
COLUMNS += ["waiting"]


def main():
    parser = shared.parser(__doc__, "gpu")
    parser.add_argument("names", nargs="*", metavar="LESSON", help=f"{', '.join(LESSONS)}; all")
    args = parser.parse_args()
    names = shared.chosen(parser, args.names, LESSONS)
    options.explain_errors()

    places = [("gpu", {}), ("cpu", HIDDEN)]
    figures = []
    print(f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|", flush=True)
    for name in names:
        for on, hidden in places if shutil.which("nvidia-smi") else places[1:]:
            short = ["--epochs", "2"] if on == "cpu" and not args.epochs else []
            more = [*LESSONS[name], *short]
            measured = shared.measure("lesson", name, args, more, os.environ | hidden)
            if measured["device"]["kind"] != on:
                print(f"| {name} | no GPU is used here |", flush=True)
                continue
            figures.append({"lesson": name, "options": more, **last_training(measured)})
            print(row(figures[-1]), flush=True)
            shared.write(args.output, figures)
    print(f"Figures: {args.output}")


def last_training(measured):
    """What is kept of a lesson: the seconds are those of its last training."""
    start, last = measured["starts"][-1], len(measured["starts"])
    ends = [seconds for seconds, _, training in measured["epochs"] if training == last]
    first, *later = [end - begin for begin, end in itertools.pairwise([start, *ends])]
    kept = ("device", "versions", "test_accuracy", "step_seconds", "waiting", "waiting_rounds")
    return {
        "epochs": len(ends),
        "fit_seconds": measured["fit_seconds"] - start,
        "first_epoch": first,
        "later_epoch": statistics.median(later or [first]),
        **{key: measured.get(key) for key in kept},
    }


def row(figures):
    cells = [
        figures["lesson"],
        figures["device"]["name"],
        figures["device"]["precision"],
        f"{figures['test_accuracy']:.2%}",
        str(figures["epochs"]),
        f"{figures['fit_seconds']:.0f} s",
        f"{figures['first_epoch']:.1f} s",
        f"{figures['later_epoch']:.1f} s",
        "-" if figures["waiting"] is None else f"{figures['waiting']:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
