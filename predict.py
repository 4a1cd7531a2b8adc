"""Ask a trained model about images of your own.

    python predict.py photo.jpg photos/ 'more/*.png'     # the newest run
    python predict.py --run outputs/mnist-cnn digit.png  # the newest run of MNIST

Each image is prepared as the lesson prepared its own, and the three likeliest classes are
printed with their probabilities. A sheet of the images, as the model gets them, is written
into the run's folder.
"""

import argparse
import contextlib
import glob
import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from common import options

OUTPUTS = options.HOME / "outputs"
BATCH = 100  # images at a time
ON_SHEET = 100  # images at most


def main():
    parser = options.Parser(
        description=__doc__.replace("    python", "  python"),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or glob")
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
        help="print a line of JSON per image, for programs; no sheet without --output",
    )
    options.answer_mistakes(parser.prog)
    args = parser.parse_args()

    run, results = find_run(args.run)
    found = {name: expand(name) for name in args.images}
    files = list(dict.fromkeys(file for own in found.values() for file in own))
    failed = [name for name, own in found.items() if not own]
    for name in failed:
        print(f"{parser.prog}: {name}: no image there", file=sys.stderr)
    if not files:
        return 1

    with contextlib.redirect_stdout(None):  # the model has its own precision
        from common import devices

        devices.start(SimpleNamespace(precision="auto", deterministic=False), convolutional=False)
    model = load_model(run / "model.keras")
    notices = sys.stderr if args.json else sys.stdout
    print(f"Model: {run / 'model.keras'}\n", file=notices)

    import numpy as np

    from common import photographs, plots, runs

    class_names = results["data"]["classes"]
    shape, preparation = tuple(model.input_shape[1:]), results["preparation"]
    if model.output_shape[-1] != len(class_names):
        raise options.Mistake(f"{run}: model.keras and results.json are not of one run.")
    known = preparation in ("digit", "clothing", "square", "folder")
    if not known or len(shape) != 3 or None in shape or shape[2] not in (1, 3):
        what = f"its input {shape}, prepared as {preparation!r}"
        raise options.Mistake(f"{run}: how to prepare images for {what} is not known.")
    sheet, captions = [], []
    for start in range(0, len(files), BATCH):
        readable, images, inverted = [], [], []
        for file in files[start : start + BATCH]:
            try:
                image, was_inverted = photographs.prepare(file, shape, preparation)
            except photographs.ImageError as error:
                failed.append(file)
                print(f"{parser.prog}: {file}: skipped: {error}", file=sys.stderr)
                continue
            readable.append(file)
            images.append(image)
            inverted.append(was_inverted)
        if not images:
            continue
        rows = model.predict(np.stack(images), verbose=0)
        for file, row, was_inverted in zip(readable, rows, inverted, strict=True):
            order = np.argsort(-row, kind="stable")
            likeliest = [(class_names[i], float(row[i])) for i in order]
            if args.json:
                first, probability = likeliest[0]
                line = {"image": str(file), "class": first, "probability": probability}
                line |= {"probabilities": dict(likeliest), "inverted": was_inverted}
                print(json.dumps(line))
            else:
                how = " (dark on light: inverted)" if was_inverted else ""
                print(f"{file}: {', '.join(f'{name} {p:.1%}' for name, p in likeliest[:3])}{how}")
            lines = [f"{_short(name)} {plots.percent(p)}" for name, p in likeliest[:3]]
            captions.append("\n".join([_short(file.name), *lines]))
        sheet += images[: ON_SHEET - len(sheet)]
    if sheet and (args.output or not args.json):
        plots.set_up(show=False)
        path = args.output or runs.unused(run / time.strftime("predicted-%Y%m%d-%H%M%S.png"))
        rest = f", the first {len(sheet)} of {len(captions):,}" if captions[len(sheet) :] else ""
        title = f"Predictions of the model{rest}"
        try:
            plots.grid(path, sheet, captions[: len(sheet)], title, columns=6)
        except OSError as error:
            raise options.Mistake(
                f"the sheet cannot be written to {path} ({error.strerror or error}); name another "
                "place with --output."
            ) from None
        print(f"\nSheet{rest}: {path}", file=notices)
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
    newest = max(found, key=_finished)
    try:
        results = json.loads(newest.read_text(encoding="utf-8"))
        _ = results["data"]["classes"], results["preparation"]
    except (OSError, ValueError, KeyError, TypeError):
        raise options.Mistake(f"{newest} cannot be read. Name another run with --run.") from None
    return newest.parent, results


def expand(name):
    """The image files that an argument names: a file, those of a folder, or of a glob."""
    from common import photographs

    path = os.path.expanduser(name)
    if os.path.isdir(path):
        found = []
        for folder, inner, names in os.walk(path):
            inner[:] = [name for name in inner if not name.startswith(".")]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        known = (p for p in found if p.suffix.lower() in photographs.EXTENSIONS)
        return sorted(p for p in known if p.is_file())  # no pipe or device, which may never end
    if os.path.isfile(path):
        return [Path(path)]
    if not glob.has_magic(path):
        return []
    # A shell has done this already, but for those on Windows and for what is in quotes. Unlike
    # `glob.glob`, `**` of a `Path` follows no links to folders: those to themselves never end.
    pattern = Path(path)
    parts = [p if p == "**" else p.replace("**", "*") for p in pattern.parts if p != pattern.anchor]
    matches = sorted(Path(pattern.anchor).glob("/".join(parts)))
    hidden = {m for m in matches for p in m.parts if p.startswith(".") and p not in pattern.parts}
    shown = (match for match in matches if match not in hidden)
    return [file for match in shown if str(match) != path for file in expand(str(match))]


def _finished(path):
    """When a run ended: as it noted, because a copied file has another time."""
    try:
        return datetime.fromisoformat(json.loads(path.read_text(encoding="utf-8"))["finished"])
    except (OSError, ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(path.stat().st_mtime).astimezone()


def load_model(path):
    """The saved model; in 32 bits, also where a lesson saved it in 16.

    Raises:
        options.Mistake: The file is damaged.
    """
    import keras

    from common import devices

    try:
        return devices.to_float32(keras.saving.load_model(path, compile=False))
    except Exception as error:  # whatever Keras and its parts raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise options.Mistake(
            f"{path} cannot be read ({reason}). Train again, or name another run with --run."
        ) from None


def _new_file(text):
    path = Path(os.path.expanduser(text))
    if path.exists():
        raise argparse.ArgumentTypeError(f"{text!r} is there already; name a new file")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} should end in .png, .jpg, .pdf or .svg")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.absolute().parent)!r}")
    return path


def _short(name):
    """At most 20 characters of a name, all of them printable."""
    name = name.encode("utf-8", "backslashreplace").decode()
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}"


if __name__ == "__main__":
    sys.exit(main())
