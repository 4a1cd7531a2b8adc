"""Ask a trained network about pictures of your own.

    python predict.py photo.jpg photos/ 'more/*.png'     # the newest run
    python predict.py --run outputs/mnist-cnn digit.png  # the newest run of MNIST

Each picture is prepared as the lesson prepared its own, and the three likeliest classes are
printed with their probabilities. A sheet of the pictures, as the network gets them, is written
into the run's folder.
"""

import argparse
import contextlib
import glob
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from common import options

OUTPUTS = options.HOME / "outputs"
BATCH = 100  # pictures at a time
ON_SHEET = 100  # pictures at most


def main():
    parser = options.Parser(
        description=__doc__.replace("    python", "  python"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURE", help="file, folder or glob")
    parser.add_argument(
        "--run",
        type=options.existing_folder,
        default=OUTPUTS,
        metavar="DIR",
        help="a run's folder, or one that holds runs, of which the newest is taken "
        "(default: outputs)",
    )
    parser.add_argument("--output", type=_new_file, metavar="FILE", help="where the sheet goes")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print a line of JSON a picture, for programs; no sheet without --output",
    )
    options.answer_mistakes(parser.prog)
    args = parser.parse_args()

    run, results = find_run(args.run)
    files = list(dict.fromkeys(file for name in args.pictures for file in expand(name)))
    failed = [name for name in args.pictures if not expand(name)]
    for name in failed:
        print(f"{parser.prog}: {name}: no picture there", file=sys.stderr)
    if not files:
        return 1

    with contextlib.redirect_stdout(None):  # the model has its own precision
        from common import devices

        devices.start(SimpleNamespace(precision="auto", deterministic=False), convolutional=False)
    model = load_model(run / "model.keras")
    notices = sys.stderr if args.json else sys.stdout
    print(f"Model: {run / 'model.keras'}\n", file=notices)

    import numpy as np

    from common import photographs, plots

    class_names = results["data"]["classes"]
    shape = tuple(model.input_shape[1:])
    if len(shape) != 3 or model.output_shape[-1] != len(class_names):
        raise options.Mistake(f"{run}: model.keras and results.json are not of one run.")
    size = results["options"].get("image_size")
    sheet, captions, turned = [], [], 0
    for start in range(0, len(files), BATCH):
        readable, pictures = [], []
        for file in files[start : start + BATCH]:
            try:
                picture, was_turned = photographs.prepare(file, shape, results["lesson"], size)
            except photographs.PictureError as error:
                failed.append(file)
                print(f"{parser.prog}: {file}: skipped: {error}", file=sys.stderr)
                continue
            readable.append(file)
            pictures.append(picture)
            turned += was_turned
        if not pictures:
            continue
        for file, row in zip(readable, model.predict(np.stack(pictures), verbose=0), strict=True):
            order = np.argsort(-row, kind="stable")
            likeliest = [(class_names[i], float(row[i])) for i in order]
            if args.json:
                first, probability = likeliest[0]
                line = {"picture": str(file), "class": first, "probability": probability}
                print(json.dumps(line | {"probabilities": dict(likeliest)}, ensure_ascii=False))
            else:
                print(f"{file}: {', '.join(f'{name} {p:.1%}' for name, p in likeliest[:3])}")
            lines = [_short(file.name), *(f"{_short(name)} {p:.0%}" for name, p in likeliest[:3])]
            captions.append("\n".join(lines))
        sheet += pictures[: ON_SHEET - len(sheet)]
    with contextlib.redirect_stdout(sys.stderr if args.json else sys.stdout):
        if turned:
            print(f"\nDark on light, turned around as the network knows it: {turned:,}")
        if sheet and (args.output or not args.json):
            plots.set_up(show=False)
            path = args.output or run / time.strftime("predicted-%Y%m%d-%H%M%S.png")
            rest = (
                f", the first {len(sheet)} of {len(captions):,}" if captions[len(sheet) :] else ""
            )
            title = f"What the network takes them for{rest}"
            plots.grid(path, sheet, captions[: len(sheet)], title, columns=6)
            print(f"\nSheet: {path}")
    return 1 if failed else 0


def find_run(folder):
    """The newest finished run at `folder` or below: its folder, and what `results.json` holds.

    Raises:
        options.Mistake: There is none, or its files cannot be read.
    """
    found = [
        path for path in folder.rglob("results.json") if (path.parent / "model.keras").exists()
    ]
    if not found:
        raise options.Mistake(
            f"no finished run in {folder}. `python train_mnist.py` makes one, in a minute or two."
        )
    newest = max(found, key=lambda path: path.stat().st_mtime)
    try:
        results = json.loads(newest.read_text(encoding="utf-8"))
        assert results["lesson"] and results["data"]["classes"] and "options" in results
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise options.Mistake(f"{newest} cannot be read. Name another run with --run.") from None
    return newest.parent, results


def expand(name):
    """The picture files that an argument names: a file, those of a folder, or of a glob."""
    from common import photographs

    path = Path(name).expanduser()
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.suffix.lower() in photographs.EXTENSIONS)
        return sorted(p for p in inside if p.is_file() and not p.name.startswith("."))
    if path.exists():
        return [path]
    # A shell has done this already, but for those on Windows and for what is in quotes.
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if Path(p).is_file()]


def load_model(path):
    """The saved model; in 32 bits where float16, a GPU's, would be slow: on a CPU.

    Raises:
        options.Mistake: The file is damaged.
    """
    import keras
    import tensorflow as tf

    try:
        model = keras.saving.load_model(path, compile=False)
    except Exception as error:  # whatever Keras and its parts raise
        reason = type(error).__name__
        raise options.Mistake(f"{path} cannot be read ({reason}). Train again, or name another run "
                           "with --run.") from None  # fmt: skip
    halves = any(layer.compute_dtype == "float16" for layer in model.layers)
    if not halves or tf.config.list_physical_devices("GPU"):
        return model
    config = json.loads(json.dumps(model.get_config()).replace("mixed_float16", "float32"))
    copy = type(model).from_config(config)
    copy.set_weights(model.get_weights())
    return copy


def _new_file(text):
    path = Path(text).expanduser()
    if path.exists():
        raise argparse.ArgumentTypeError(f"{text!r} is there already; name a new file")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} should end in .png, .jpg, .pdf or .svg")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.absolute().parent)!r}")
    return path


def _short(name):
    return name if len(name) <= 20 else f"{name[:19]}…"


if __name__ == "__main__":
    sys.exit(main())
