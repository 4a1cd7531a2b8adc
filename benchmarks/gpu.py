"""Train the lessons on this machine's GPU, then on its CPU: accuracy, times, waiting for input.

    python benchmarks/gpu.py                                # MNIST, and both other CNNs
    python benchmarks/gpu.py --images five                  # the Simpsons, too
    python benchmarks/gpu.py mnist --sample --epochs 3      # does it work?

On the GPU, the lessons run with their defaults; on the CPU, for two epochs. With
`KERAS_BACKEND=jax` in the environment, both compute on JAX. Nothing else should run meanwhile. The
table and `--output FILE`, in JSON, have of the last model's training:

- fit: the seconds of all epochs; first: those of the first one, which compiles; later: of a later
  one, the median;
- waiting: the share of a step that is waiting for input (see benchmarks/README.md);
- utilization: the share of `fit` in which the GPU computes, as nvidia-smi tells every second.
"""

import argparse
import contextlib
import itertools
import json
import os
import runpy
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))
sys.path.insert(0, str(HOME / "benchmarks"))

LESSONS = {
    "mnist": ["train_mnist.py"],
    "fashion-cnn": ["train_fashion.py", "--model", "cnn"],
    "cifar10-cnn": ["train_cifar10.py", "--model", "cnn"],
    "simpsons": ["train_simpsons.py"],
}
HIDDEN = {"CUDA_VISIBLE_DEVICES": "-1", "JAX_PLATFORMS": "cpu"}  # from TensorFlow, and from JAX


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lessons", nargs="*", help=f"of {', '.join(LESSONS)}; default: all")
    parser.add_argument("--images", help="folder of the Simpsons; without it, they are left out")
    parser.add_argument("--sample", action="store_true", help="on the small samples")
    parser.add_argument("--epochs", type=int, help="instead of the lesson's")
    parser.add_argument("--output", type=Path, help="file for the figures, in JSON")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # a lesson, in a process of its own
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measure(json.loads(args.one))))
        return
    if unknown := set(args.lessons) - set(LESSONS):
        parser.error(f"there is no lesson {unknown.pop()}; there are {', '.join(LESSONS)}")
    usual = [name for name in LESSONS if name != "simpsons" or args.images or args.sample]
    figures = []
    names = "lesson", "on", "precision", "test accuracy", "epochs", "fit", "first", "later"
    names += "waiting", "utilization"
    print(f"| {' | '.join(names)} |\n{'|---' * len(names)}|", flush=True)
    for name in args.lessons or usual:
        more = ["--sample"] if args.sample else []
        if name == "simpsons" and args.images:
            more = ["--images", args.images]
        places = [("gpu", {}), ("cpu", HIDDEN)]
        for on, hidden in places if shutil.which("nvidia-smi") else places[1:]:
            epochs = args.epochs or (2 if on == "cpu" else None)
            command = [*LESSONS[name], *more, *(["--epochs", str(epochs)] if epochs else [])]
            found = in_a_process(command, hidden)
            if on == "gpu" and found["device"]["kind"] != "gpu":
                print(f"| {name} | no GPU is used here | | | | | | | | |", flush=True)
                continue
            figures.append({"lesson": name, "command": command} | found)
            print(row(name, found), flush=True)
            if args.output:
                args.output.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


def row(name, found):
    share = "{:.0%}".format
    cells = [
        name,
        found["device"]["name"],
        found["device"]["precision"],
        f"{found['test_accuracy']:.2%}",
        str(found["epochs"]),
        f"{found['fit_seconds']:.0f} s",
        f"{found['first_epoch']:.1f} s",
        f"{found['later_epoch']:.1f} s",
        "-" if found["waiting"] is None else share(found["waiting"]),
        "-" if found["utilization"] is None else share(found["utilization"]),
    ]
    return f"| {' | '.join(cells)} |"


def in_a_process(command, hidden):
    line = [sys.executable, __file__, "--one", json.dumps(command)]
    done = subprocess.run(line, env=os.environ | hidden, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{done.stderr}{' '.join(command)} ended with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])


def measure(command):
    """Run a lesson, and measure its last training."""
    import keras
    import side  # the waiting

    fit, epochs, used = keras.Model.fit, [], []

    def watched(model, *positional, callbacks=(), **named):
        times = []
        clock = keras.callbacks.LambdaCallback(
            on_train_begin=lambda logs: times.append(time.perf_counter()),
            on_epoch_end=lambda epoch, logs: times.append(time.perf_counter()),
        )
        with utilization() as found:
            fit(model, *positional, callbacks=[*callbacks, clock], **named)
        used[:] = found
        epochs[:] = [after - before for before, after in itertools.pairwise(times)]

    keras.Model.fit = watched
    with tempfile.TemporaryDirectory() as place:
        sys.argv = [*command, "--output-dir", place]
        names = runpy.run_path(str(HOME / command[0]), run_name="__main__")
        (file,) = Path(place).glob("*/*/results.json")
        results = json.loads(file.read_text(encoding="utf-8"))
    keras.Model.fit = fit
    return {
        "device": results["device"],
        "versions": results["versions"],
        "test_accuracy": results["test"]["accuracy"],
        "epochs": results["epochs"],
        "fit_seconds": sum(epochs),
        "first_epoch": epochs[0],
        "later_epoch": statistics.median(epochs[1:] or epochs),
        "utilization": sum(used) / len(used) / 100 if used else None,
        **side.waiting(names["model"], names["training_data"]),
    }


@contextlib.contextmanager
def utilization():
    """A list that gets the GPU's utilization in percent, every second; empty without a GPU."""
    found, monitor = [], None
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    if os.environ.get("CUDA_VISIBLE_DEVICES") != "-1":
        with contextlib.suppress(OSError):  # there is no such program
            monitor = subprocess.Popen([*query, "-l", "1"], stdout=subprocess.PIPE, text=True)
    try:
        yield found
    finally:
        if monitor:
            monitor.terminate()
            found += [int(text) for text in monitor.communicate()[0].split() if text.isdigit()]


if __name__ == "__main__":
    main()
