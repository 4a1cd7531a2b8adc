"""Train what a user would run instead, then our lesson: side by side, on this machine.

    python benchmarks/beside_the_tutorials.py                    # all four, about 75 minutes
    python benchmarks/beside_the_tutorials.py mnist fashion
    python benchmarks/beside_the_tutorials.py --sample --epochs 2 mnist    # does it work?

The tutorials are Keras's `mnist_convnet` and TensorFlow's `keras/classification`, `images/cnn` and
`images/classification`: their networks, epochs, batches and pipelines. The lessons run with their
defaults; CIFAR-10's with `--model deep`. Each side has a process of its own, one after another, the
tutorial first. The accuracy on the test images after each epoch takes no part of the measured time.
"Passed" is the first epoch of ours above the tutorial's last one; of several networks, each counts.
One run each: repeat it before you trust a small difference. What is printed is a row of the table
in benchmarks/README.md.
"""

import platform
import time
from importlib.metadata import version

import shared

from common import devices, options

# The lesson's options, and the tutorial.
PAIRS = {
    "mnist": ([], "Keras's `mnist_convnet`"),
    "fashion": ([], "TensorFlow's `keras/classification`"),
    "cifar10": (["--model", "deep"], "TensorFlow's `images/cnn`"),
    "simpsons": ([], "TensorFlow's `images/classification`"),
}


def main():
    parser = shared.parser(__doc__, "benchmarks")
    parser.add_argument("names", nargs="*", metavar="LESSON", help=f"{', '.join(PAIRS)}; all")
    parser.add_argument("--precision", choices=["auto", "float32", "mixed"], help="of the lessons")
    args = parser.parse_args()
    names = shared.chosen(parser, args.names, PAIRS)
    options.explain_errors()

    record = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": devices.cpu_name(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras")},
        "options": {name: getattr(args, name) for name in ("sample", "epochs", "precision")},
    }
    for name in names:
        extra, peer = PAIRS[name]
        theirs = shared.measure("tutorial", name, args)
        extra = [*extra, *shared.passed_on(args, "precision")]
        record[name] = compare(theirs, shared.measure("lesson", name, args, extra))
        shared.write(args.output, record)
        print(row(peer, record[name]), flush=True)
    print(f"Figures: {args.output}")


def compare(theirs, ours):
    """Both sides, and the ratios of ours to theirs."""
    goal = theirs["test_accuracy"]
    passed = next((seconds for seconds, accuracy, _ in ours["epochs"] if accuracy > goal), None)
    first = next(seconds for seconds, accuracy, _ in theirs["epochs"] if accuracy >= goal)
    until_their_end = [own[1] for own in ours["epochs"] if own[0] <= theirs["fit_seconds"]]
    memory = [side["peak_megabytes"] - side["import_megabytes"] for side in (ours, theirs)]
    return {
        "tutorial": theirs,
        "lesson": ours,
        "seconds_until_passed": passed,
        "our_accuracy_at_their_end": until_their_end[-1] if until_their_end else None,
        "ratios": {
            "until_passed_to_their_fit": passed and passed / theirs["fit_seconds"],
            "until_passed_to_their_first": passed and passed / first,
            "fit": ours["fit_seconds"] / theirs["fit_seconds"],
            "memory_above_import": memory[0] / memory[1],
        },
    }


def row(peer, pair):
    """A row of the table in benchmarks/README.md."""
    theirs, ratios, passed = pair["tutorial"], pair["ratios"], pair["seconds_until_passed"]
    waiting = pair["lesson"]["waiting"]
    cells = [
        peer,
        f"{theirs['test_accuracy']:.1%}",
        f"{theirs['fit_seconds']:.0f} s",
        f"{passed:.0f} s" if passed else "-",
        f"{ratios['until_passed_to_their_fit']:.2f}" if passed else "-",
        f"{ratios['memory_above_import']:.2f}",
        "-" if waiting is None else f"{waiting:.0%}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
