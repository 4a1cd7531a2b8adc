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
import zipfile
from collections import Counter
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

from common import options

OUTPUTS = options.HOME / "outputs"
BATCH = 100  # images at a time
ON_SHEET = 100  # images at most


def parse():
    """The options; a wrong one ends the program."""
    parser = options.Parser((__doc__ or "").replace("    python", "  python"))
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="file, folder or glob")
    about = (
        "a run's folder, or one that holds runs, of which the newest is taken (default: outputs)"
    )
    kind = {"type": options.existing_folder, "metavar": "DIR"}
    parser.add_argument("--run", default=OUTPUTS, help=about, **kind)
    parser.add_argument("--output", type=_new_file, metavar="FILE", help="where the sheet goes")
    about = "print a line of JSON per image, for programs; no sheet without --output"
    parser.add_argument("--json", action="store_true", help=about)
    about = "below this probability of the likeliest class: none of the classes? (default: 0)"
    kind = {"type": _probability, "metavar": "P"}
    parser.add_argument("--min-confidence", default=0.0, help=about, **kind)
    return parser.parse_args()


def _new_file(text):
    path = Path(os.path.expanduser(text))
    if path.exists():
        raise argparse.ArgumentTypeError(f"{text!r} is there already; name a new file")
    if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".pdf", ".svg"):
        raise argparse.ArgumentTypeError(f"{text!r} should end in .png, .jpg, .pdf or .svg")
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {str(path.absolute().parent)!r}")
    return path


def _probability(text):
    with contextlib.suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1")


if __name__ == "__main__":
    options.explain_errors()
    parse()  # a mistake is answered before anything slow is imported

try:
    import numpy as np
    from PIL import Image, ImageOps

    from common import images
except ModuleNotFoundError as error:
    what = f"{error.name} is not installed: pip install -r requirements.txt"
    raise options.Mistake(what) from None

_SIDE = 1000  # pixels: a photograph is first made as small as this
_SMALL = 100  # pixels: below, a drawing may fill the image, and its border is no paper
_INK = 0.35  # of the way from paper to the strongest ink: what counts as drawn
_STRONGEST = 99.95  # percent of the pixels are weaker


def main():
    args = parse()
    run, results = find_run(args.run)
    others = set()  # files of folders that are no images
    found = {name: expand(name, others) for name in args.images}
    files = list(dict.fromkeys(file for own in found.values() for file in own))
    failed = [name for name, own in found.items() if not own]
    for name in failed:
        _tell(f"{name}: no image there")
    if others:
        endings = Counter(file.suffix.lower() for file in sorted(others))
        kinds = (f"{count:,} {ending or 'without one'}" for ending, count in endings.items())
        _tell(f"skipped: what is no image by its ending ({', '.join(kinds)})")
    if not files:
        return 1

    with contextlib.redirect_stdout(None):  # the model has its own precision
        from common import devices

        devices.start(SimpleNamespace(precision="auto", deterministic=False), convolutional=False)
    model = load_model(run / "model.keras", results)
    notices = sys.stderr if args.json else sys.stdout
    print(f"Model: {run / 'model.keras'}\n", file=notices)

    from common import plots

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
        read, refused = [], {}
        with devices.quiet():  # what decoders complain of, without a name
            for file in files[start : start + BATCH]:
                try:
                    read.append((file, *prepare(file, shape, preparation)))
                except images.ImageError as error:
                    refused[file] = error
        for file, error in refused.items():
            _tell(f"{file}: skipped: {error}")
        failed += refused
        if not read:
            continue
        inputs = [image for _, image, _ in read]
        rows = model.predict(np.stack(inputs), verbose=0)
        for (file, _, inverted), row in zip(read, rows, strict=True):
            order = np.argsort(-row, kind="stable")
            likeliest = [(class_names[i], float(row[i])) for i in order]
            unsure = likeliest[0][1] < args.min_confidence
            if args.json:
                first, probability = likeliest[0]
                line = {"image": str(file), "class": first, "probability": probability}
                line |= {"probabilities": dict(likeliest), "inverted": inverted}
                line |= {"below_min_confidence": unsure} if args.min_confidence else {}
                print(json.dumps(line))
            else:
                how = " (dark on light: inverted)" if inverted else ""
                names = ", ".join(f"{name} {p:.1%}" for name, p in likeliest[:3])
                print(f"{file}: {'none of the classes? ' if unsure else ''}{names}{how}")
            lines = ["none of the classes?"] if unsure else []
            lines += [f"{_short(name)} {plots.percent(p)}" for name, p in likeliest[:3]]
            captions.append("\n".join([_short(file.name), *lines]))
        sheet += inputs[: ON_SHEET - len(sheet)]
    if sheet and (args.output or not args.json):
        plots.set_up(show=False)
        path = args.output or unused(run / time.strftime("predicted-%Y%m%d-%H%M%S.png"))
        rest = f", the first {len(sheet)} of {len(captions):,}" if captions[len(sheet) :] else ""
        title = f"Predictions of the model{rest}"
        try:
            plots.grid(path, sheet, captions[: len(sheet)], title, columns=6)
        except OSError as error:
            what = f"the sheet cannot be written to {path} ({error.strerror or error})"
            raise options.Mistake(f"{what}; name another place with --output.") from None
        print(f"\nSheet{rest}: {path}", file=notices)
    return 1 if failed else 0


def _tell(what):
    print(f"{Path(sys.argv[0]).name}: {what}", file=sys.stderr)


def find_run(folder):
    """The newest finished run at `folder` or below: its folder, and what `results.json` holds.

    Raises:
        options.Mistake: There is none, or its files cannot be read.
    """
    found = [p for p in folder.rglob("results.json") if (p.parent / "model.keras").exists()]
    if not found:
        raise options.Mistake(
            f"no finished run in {folder}. `python train_mnist.py` makes one, in a minute or two."
        )
    newest = max(found, key=_finished)
    try:
        results = json.loads(newest.read_text(encoding="utf-8"))
        names = results["data"]["classes"]
        if type(names) is not list or {*map(type, [*names, results["preparation"]])} != {str}:
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise options.Mistake(f"{newest} cannot be read. Name another run with --run.") from None
    return newest.parent, results


def expand(name, others):
    """The image files that an argument names: a file, those of a folder, or of a glob.

    Files of a folder that have another ending are added to `others`, a set.
    """
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        found = []
        for folder, inner, names in os.walk(path):
            inner[:] = [name for name in inner if not name.startswith(".")]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        known = [p for p in found if p.suffix.lower() in images.EXTENSIONS]
        others.update({*found} - {*known})
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
    return [file for match in shown if str(match) != path for file in expand(str(match), others)]


def _finished(path):
    """When a run ended: as it noted, because a copied file has another time."""
    try:
        text = json.loads(path.read_text(encoding="utf-8"))["finished"]
        return datetime.fromisoformat(text).astimezone()  # without a zone, it is this one's
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return datetime.fromtimestamp(path.stat().st_mtime).astimezone()


def load_model(path, results):
    """The saved model; in 32 bits, also where a lesson saved it in 16.

    Raises:
        options.Mistake: The file is damaged, or of another version of Keras.
    """
    import keras

    from common import devices

    try:
        return devices.to_float32(keras.saving.load_model(path, compile=False))
    except Exception as error:  # whatever Keras and its parts raise
        versions = results.get("versions")
        version = versions.get("keras") if isinstance(versions, dict) else None
        if version not in (None, keras.__version__) and zipfile.is_zipfile(path):
            raise options.Mistake(
                f"{path} was saved by Keras {version}, and this is Keras {keras.__version__}. "
                f"Install that version: pip install keras=={version}"
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise options.Mistake(
            f"{path} cannot be read ({reason}). Train again, or name another run with --run."
        ) from None


def unused(path):
    """This path, or with -2, -3, … in its name if it is taken."""
    number, found = 1, path
    while found.exists():
        number += 1
        found = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return found


def _short(name):
    """At most 20 characters of a name, all of them printable."""
    name = name.encode("utf-8", "backslashreplace").decode()
    name = "".join(letter if letter.isprintable() else " " for letter in name)
    return name if len(name) <= 20 else f"{name[:11]}…{name[-8:]}"


# An image file -> what a model takes


def prepare(path, shape, preparation):
    """Read an image and bring it to a model's shape.

    An image that has this shape already keeps its pixels. Others are prepared
    as the lesson says in `results.json`:

    - "folder": the proportions are kept, and the rest is black, as where a lesson reads folders;
    - "digit" and "clothing": what is drawn is cut out, and scaled and placed as in the data set: a
      digit fits 20x20 pixels and has its center of mass in the middle of 28x28 (LeCun, Cortes,
      Burges, 1998), clothing fits 28x28 (Xiao, Rasul, Vollgraf, 2017). Both are light on dark
      there: what is dark on light is inverted;
    - "square": the largest square in the middle is scaled.

    To cut out: paper is what the border mostly is (around clothing, the corners), and ink is what
    differs most from it, on the dark side or on the light one. The light on the paper, a plane
    through the border's values, is taken away. What lies around all ink is cut off. Scaled down,
    thin strokes fade; so at the end, all is stretched to full contrast.

    Args:
        path: A file.
        shape: Height, width and channels, 1 or 3.
        preparation: One of the four.

    Returns:
        A uint8 array of `shape`; and whether it was inverted.

    Raises:
        images.ImageError: It cannot be decoded, or nothing is drawn on it.
    """
    if preparation == "folder":
        return images.square(images.decode(path, shape[0]), shape[0]), False
    image = images.decode(path, _SIDE)
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    if preparation == "square":
        image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BOX)
        image = image.convert("L" if shape[2] == 1 else "RGB")
        return np.asarray(image).reshape(shape), False
    pixels = np.asarray(image.convert("L"), np.float32)
    paper = _paper(pixels, preparation == "digit")
    darkest, lightest = np.percentile(pixels, (100 - _STRONGEST, _STRONGEST))
    inverted = bool(paper - darkest > lightest - paper)
    if inverted:
        pixels, paper = 255 - pixels, 255 - paper
    if pixels.shape != shape[:2]:
        share = 20 / 28 if preparation == "digit" else 1
        pixels = _cut_out(pixels, paper, max(1, round(share * min(shape[:2]))))
        pixels = _centered(pixels, shape, by_mass=preparation == "digit")
    elif np.ptp(pixels) < 16:
        raise images.ImageError("nothing drawn")
    pixels = pixels.round().astype(np.uint8)[..., np.newaxis]
    return np.broadcast_to(pixels, shape), inverted


def _paper(pixels, digit):
    """The middle value where paper is free: around a digit the border, around clothing the corners.

    Both are a tenth of the image; the border has at least three pixels, more than a thin frame.
    """
    height, width = pixels.shape
    if digit:
        free = np.ones(pixels.shape, bool)
        rows, columns = max(3, -(-height // 10)), max(3, -(-width // 10))
        free[rows:-rows, columns:-columns] = False
        return np.median(pixels[free])
    rows, columns = max(1, height // 10), max(1, width // 10)
    ends = pixels[:rows], pixels[-rows:]
    return np.median(
        [np.median(part) for end in ends for part in (end[:, :columns], end[:, -columns:])]
    )


def _cut_out(pixels, paper, side):
    """What is lighter than dark paper, in full contrast, its longer side `side` pixels long."""
    ink = pixels - (_lighting(pixels) if max(pixels.shape) >= _SMALL else paper)
    noise, strongest = -np.percentile(ink, 10), np.percentile(ink, _STRONGEST)
    if strongest < 5 * max(noise, 1):  # of noise alone, the strongest is about 2.6 times this
        raise images.ImageError("nothing drawn")
    ink = np.clip(ink / strongest, 0, 1)
    rows, columns = (np.flatnonzero((ink > _INK).any(axis)) for axis in (1, 0))
    ink = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    ink = np.where(ink < _INK / 2, 0, ink)
    scale = side / max(ink.shape)
    size = [max(1, round(scale * length)) for length in reversed(ink.shape)]
    ink = np.asarray(Image.fromarray(ink).resize(size, Image.Resampling.BOX))
    return 255 * np.clip(ink / ink.max(), 0, 1)


def _lighting(pixels):
    """The plane through the values along the border: what paper looks like, lit from a side."""
    y, x = np.mgrid[-1 : 1 : pixels.shape[0] * 1j, -1 : 1 : pixels.shape[1] * 1j]
    terms = np.stack([np.ones_like(x), x, y], axis=-1)
    border = np.maximum(np.abs(y), np.abs(x)) > 0.8
    kept = border
    for _ in range(3):  # without what is far from the plane: ink that reaches the border
        plane, *_ = np.linalg.lstsq(terms[kept], pixels[kept], rcond=None)
        away = np.abs(pixels - terms @ plane)
        kept = border & (away <= 3 * max(np.median(away[border]), 1))
    return (terms @ plane).astype(np.float32)


def _centered(pixels, shape, *, by_mass):
    """On a black image of `shape`, with the center of mass, or of the sides, in the middle."""
    sides = np.array(pixels.shape)
    center = (sides - 1) / 2
    if by_mass and pixels.sum() > 0:
        center = np.array([np.average(np.arange(n), weights=pixels.sum(1 - i))
                           for i, n in enumerate(sides)])  # fmt: skip
    free = np.array(shape[:2]) - sides
    top, left = np.clip(np.round((np.array(shape[:2]) - 1) / 2 - center), 0, free).astype(int)
    canvas = np.zeros(shape[:2], np.float32)
    canvas[top : top + sides[0], left : left + sides[1]] = pixels
    return canvas


if __name__ == "__main__":
    sys.exit(main())
