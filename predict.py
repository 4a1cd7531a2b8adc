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

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from common import options

OUTPUTS = options.HOME / "outputs"
BATCH = 100  # images at a time
ON_SHEET = 100  # images at most
EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LARGEST = 1000  # pixels of a side: a photograph is first made as small as this
_INK = 0.3  # of the way from the background to the strongest value: what counts as drawn


def main():
    parser = options.Parser((__doc__ or "").replace("    python", "  python"))
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
    args = parser.parse_args()
    options.explain_errors()

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
        readable, images, inverted = [], [], []
        for file in files[start : start + BATCH]:
            try:
                image, was_inverted = prepare(file, shape, preparation)
            except ImageError as error:
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
        path = args.output or unused(run / time.strftime("predicted-%Y%m%d-%H%M%S.png"))
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
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        found = []
        for folder, inner, names in os.walk(path):
            inner[:] = [name for name in inner if not name.startswith(".")]
            found += [Path(folder, name) for name in names if not name.startswith(".")]
        known = (p for p in found if p.suffix.lower() in EXTENSIONS)
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


class ImageError(Exception):
    """A file that is no image; the message says why."""


def prepare(path, shape, preparation):
    """Read an image and bring it to a model's shape.

    An image that has this shape already keeps its pixels. Others are prepared
    as the lesson says in `results.json`:

    - "folder": the proportions are kept, and the rest is black, as where a lesson reads folders;
    - "digit" and "clothing": the background is taken away, and the rest is scaled and placed as
      in the data set: a digit fits 20x20 pixels and has its center of mass in the middle of 28x28
      (LeCun, Cortes, Burges, 1998), clothing fits 28x28 (Xiao, Rasul, Vollgraf, 2017). Both are
      light on dark there: what is dark on light is inverted;
    - "square": the largest square in the middle is scaled.

    Args:
        path: A file.
        shape: Height, width and channels, 1 or 3.
        preparation: One of the four.

    Returns:
        A uint8 array of `shape`; and whether it was inverted.

    Raises:
        ImageError: The file cannot be opened, or not decoded.
    """
    if preparation == "folder":
        return _as_in_folders(path, shape[0]), False
    drawn = preparation in ("digit", "clothing")
    image = _open(path, "L" if shape[2] == 1 or drawn else "RGB")
    inverted = False
    if drawn:
        pixels = np.asarray(image, np.float32)
        inverted = bool(_background(pixels) > 127)
        pixels = 255 - pixels if inverted else pixels
        if pixels.shape != shape[:2]:
            share = 20 / 28 if preparation == "digit" else 1
            pixels = _cut_out(pixels, max(1, round(share * min(shape[:2]))))
            pixels = _centered(pixels, shape, by_mass=preparation == "digit")
        pixels = pixels.round().astype(np.uint8)[..., np.newaxis]
        return np.broadcast_to(pixels, shape), inverted
    image = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(image, np.uint8).reshape(shape), inverted


def _as_in_folders(path, side):
    """As `keras.utils.image_dataset_from_directory` does, with `pad_to_aspect_ratio=True`."""
    import tensorflow as tf

    try:
        with tf.device("CPU"):
            content = tf.io.read_file(os.fsencode(path))
            image = tf.image.decode_image(content, channels=3, expand_animations=False)
            image = tf.image.resize_with_pad(image, side, side)
            return tf.cast(tf.round(image), tf.uint8).numpy()
    except tf.errors.InvalidArgumentError:
        what = "TensorFlow cannot decode it (it reads JPEG, PNG, GIF, BMP and WebP)"
        raise ImageError(what) from None
    except (tf.errors.OpError, ValueError) as error:
        raise ImageError(f"it cannot be opened ({type(error).__name__})") from None


def _open(path, mode):
    """As Pillow reads it: upright, one frame, on white where it is transparent."""
    try:
        with Image.open(path) as image:
            image.draft(mode, (_LARGEST, _LARGEST))  # of a JPEG: less is decoded
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith(("I", "F")):  # 16 bits and more
                values = np.nan_to_num(np.asarray(image, np.float64))
                values *= 255 / 65535 if image.mode.startswith("I") else 1
                image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
            image.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
            if image.has_transparency_data:
                image = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
            return image.convert(mode)
    except UnidentifiedImageError:
        raise ImageError("it is not an image, or of a kind that is not known") from None
    except OSError as error:
        raise ImageError(error.strerror or str(error)) from None
    except Exception as error:  # damaged bytes raise whatever they happen to mean to Pillow
        raise ImageError(str(error) or type(error).__name__) from None


def _background(pixels):
    """The middle value at the four corners, each a tenth of the image."""
    height, width = (max(1, side // 10) for side in pixels.shape)
    ends = pixels[:height], pixels[-height:]
    return np.median(
        [np.median(part) for end in ends for part in (end[:, :width], end[:, -width:])]
    )


def _cut_out(pixels, side):
    """What is lighter than its background, scaled so that its longer side has `side` pixels."""
    pixels = pixels - _lighting(pixels)
    noise = max(np.median(np.abs(pixels)), 1)
    pixels = np.clip(pixels / max(np.percentile(pixels, 99.9), 8 * noise), 0, 1)
    drawn = pixels > _INK
    if drawn.any():
        rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
        pixels = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    pixels = 255 * np.where(pixels < _INK / 2, 0, pixels)
    scale = side / max(pixels.shape)
    size = [max(1, round(scale * length)) for length in reversed(pixels.shape)]
    image = Image.fromarray(pixels.astype(np.float32))
    return np.clip(np.asarray(image.resize(size, Image.Resampling.BOX)), 0, 255)


def _lighting(pixels):
    """The plane through the values along the border: what paper looks like, lit from a side."""
    height, width = pixels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    border = np.maximum(np.abs(y), np.abs(x)) > 0.9
    terms = np.stack([np.ones_like(x), x, y], axis=-1)
    plane, *_ = np.linalg.lstsq(terms[border], pixels[border], rcond=None)
    return terms @ plane


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
