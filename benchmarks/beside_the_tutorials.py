"""Train what a user would run instead, then our lesson: side by side, on this machine.

    python benchmarks/beside_the_tutorials.py                    # all four, about an hour
    python benchmarks/beside_the_tutorials.py mnist fashion
    python benchmarks/beside_the_tutorials.py --sample --epochs 2 mnist    # does it work?

The tutorials are Keras's `mnist_convnet` and TensorFlow's `keras/classification`, `images/cnn` and
`images/classification`: their networks, epochs, batches and pipelines. The lessons run with their
defaults; CIFAR-10's with `--model cnn`. Each side has a process of its own, one after another, the
tutorial first. The accuracy on the test images is taken after each epoch, outside of the measured
time, for both sides. "Passed" is the first epoch of ours above the tutorial's last one; of two
networks, the first counts, too. One run each: repeat it before you trust a small difference.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from common import devices, options

SIDE = Path(__file__).resolve().parent / "side.py"
# The lesson's options, and the tutorial.
PAIRS = {
    "mnist": ([], "Keras's mnist_convnet"),
    "fashion": ([], "TensorFlow's keras/classification"),
    "cifar10": (["--model", "cnn"], "TensorFlow's images/cnn"),
    "simpsons": ([], "TensorFlow's images/classification"),
}


def main():
    parser = options.Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("names", nargs="*", metavar="LESSON", help=f"{', '.join(PAIRS)}; all")
    parser.add_argument("--data-dir", type=options.existing_folder, default=HOME / "data")
    parser.add_argument("--images", type=options.existing_folder, help="of the Simpsons")
    parser.add_argument("--output", type=Path, help="JSON file (default: in outputs/benchmarks)")
    parser.add_argument("--sample", action="store_true", help="on the small samples")
    parser.add_argument("--epochs", type=int, help="of both sides (default: their own)")
    parser.add_argument("--precision", choices=["auto", "float32", "mixed"], help="of the lessons")
    parser.add_argument(
        "--until-passed",
        action="store_true",
        help="end the lesson's training when it has used the tutorial's time and passed it",
    )
    options.answer_mistakes(parser.prog)
    args = parser.parse_args()
    if unknown := [name for name in args.names if name not in PAIRS]:
        parser.error(f"unknown lesson {unknown[0]}; known are {', '.join(PAIRS)}")

    output = args.output or HOME / "outputs" / "benchmarks" / time.strftime("%Y%m%d-%H%M%S.json")
    output.parent.mkdir(parents=True, exist_ok=True)
    import_only = measure("import", "-", [])["peak_megabytes"]
    record = {
        "date": time.strftime("%Y-%m-%d"),
        "processor": devices.cpu_name(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("tensorflow", "keras")},
        "options": {
            "sample": args.sample,
            "epochs": args.epochs,
            "until_passed": args.until_passed,
            "precision": args.precision,
        },
        "import": import_only,
    }
    for name in args.names or PAIRS:
        extra, peer = PAIRS[name]
        data = ["--data-dir", str(args.data_dir), *(["--sample"] if args.sample else [])]
        if name == "simpsons" and args.images:
            data += ["--images", str(args.images)]
        short = ["--epochs", str(args.epochs)] if args.epochs else []
        with tempfile.TemporaryDirectory() as place:
            data += ["--output-dir", place]
            print(f"\n{name}: {peer} …", flush=True)
            theirs = measure("tutorial", name, [*short, *data])
            goal = theirs["test_accuracy"]
            print(f"{name}: our lesson …", flush=True)
            wishes = ["--precision", args.precision] if args.precision else []
            if args.until_passed:
                wishes += ["--goal", str(goal), "--seconds", str(theirs["fit_seconds"])]
            ours = measure("lesson", name, [*wishes, *short, *data, *extra])
        record[name] = compare(theirs, ours, import_only)
        output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        show(name, peer, record[name])
    print(f"\nFigures: {output}")


def measure(side, name, arguments):
    """Run one side in a process of its own; return what it measured."""
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        command = [sys.executable, str(SIDE), side, name, str(report), *arguments]
        with open(Path(place) / "log", "w+", encoding="utf-8") as log:
            done = subprocess.run(command, cwd=HOME, stdout=log, stderr=subprocess.STDOUT)
            log.seek(0)
            if done.returncode or not report.exists():
                raise options.Mistake(f"{name}, {side}: it failed:\n{log.read()[-2000:]}")
        return json.loads(report.read_text())


def compare(theirs, ours, import_only):
    """Both sides, and the ratios of ours to theirs."""
    goal = theirs["test_accuracy"]
    passed = next((seconds for seconds, accuracy, _ in ours["epochs"] if accuracy > goal), None)
    epochs = [epoch for epoch in ours["epochs"] if epoch[0] <= theirs["fit_seconds"]]
    first = next(seconds for seconds, accuracy, _ in theirs["epochs"] if accuracy >= goal)
    memory = [side["peak_megabytes"] - import_only for side in (ours, theirs)]
    return {
        "tutorial": theirs,
        "lesson": ours,
        "seconds_until_passed": passed,
        "our_accuracy_at_their_end": epochs[-1][1] if epochs else None,
        "ratios": {
            "until_passed_to_their_fit": passed and passed / theirs["fit_seconds"],
            "until_passed_to_their_first": passed and passed / first,
            "fit": ours["fit_seconds"] / theirs["fit_seconds"],
            "memory_above_import": memory[0] / memory[1],
        },
    }


def show(name, peer, pair):
    print(f"\n{name:<10} {'fit':>8} {'test accuracy':>14} {'peak memory':>12}")
    for who, side in [(peer, pair["tutorial"]), ("our lesson", pair["lesson"])]:
        memory = f"{side['peak_megabytes']:,} MB"
        figures = f"{side['fit_seconds']:>6.1f} s {side['test_accuracy']:>14.2%} {memory:>12}"
        print(f"{'':<10} {figures}  {who}, {side['precision']}")
    ratios, passed = pair["ratios"], pair["seconds_until_passed"]
    if passed:
        share = ratios["until_passed_to_their_fit"]
        first = ratios["until_passed_to_their_first"]
        print(f"  their accuracy was passed after {passed:.1f} s: {share:.2f} of their time, and")
        print(f"  {first:.2f} of the time after which they had it first")
    else:
        print("  their accuracy was not passed")
    if pair["our_accuracy_at_their_end"]:
        print(f"  when theirs ended, ours had {pair['our_accuracy_at_their_end']:.2%}")
    print(f"  memory above the bare import of both packages: {ratios['memory_above_import']:.2f}")
    waiting, step = pair["lesson"]["waiting"], pair["lesson"]["step_seconds"]
    if step:
        rounds = pair["lesson"]["waiting_rounds"]
        spread = f"{len(rounds)} rounds: {rounds[0]:.1%} to {rounds[-1]:.1%}"
        print(f"  waiting for input: {waiting:.1%} of a step of {1000 * step:.0f} ms ({spread})")


if __name__ == "__main__":
    main()
