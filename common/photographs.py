"""A picture file -> what a trained network takes: prepared as its lesson prepared its own."""

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LARGEST = 1000  # pixels of a side: a photograph is first made as small as this
_INK = 0.3  # of the way from the background to the strongest value: what counts as drawn


class PictureError(Exception):
    """A file that is no picture; the message says why."""


def prepare(path, shape, lesson, image_size=None):
    """Read a picture and bring it to a network's shape.

    A picture that has this shape already stays as it is, but for its colors. Of others:

    - where the lesson read folders, the proportions are kept and the rest is black;
    - of a digit, or a piece of clothing, the background is taken away, and it is scaled and
      placed as in the data set: a digit fits 20x20 pixels and has its center of mass in the
      middle of 28x28 (LeCun, Cortes, Burges, 1998), clothing fits 28x28 (Xiao, Rasul, Vollgraf,
      2017). Both are light on dark there: what is dark on light is inverted;
    - of others, the largest square in the middle is scaled.

    Args:
        path: A file.
        shape: Height, width and channels, 1 or 3.
        lesson: Its name, as `results.json` gives it.
        image_size: Of a lesson that read folders: its option; of others, None.

    Returns:
        A uint8 array of `shape`; and whether it was inverted.

    Raises:
        PictureError: The file cannot be opened, or not decoded.
    """
    if image_size:
        return _as_in_folders(path, shape), False
    picture = _open(path, "L" if shape[2] == 1 else "RGB")
    inverted = False
    if lesson in ("mnist", "fashion") and shape == (28, 28, 1):
        pixels = np.asarray(picture, np.float32)
        inverted = bool(_background(pixels) > 127)
        pixels = 255 - pixels if inverted else pixels
        if pixels.shape != shape[:2]:
            pixels = _cut_out(pixels, 20 if lesson == "mnist" else 28)
            pixels = _centered(pixels, shape, by_mass=lesson == "mnist")
        return pixels.round().astype(np.uint8)[..., np.newaxis], inverted
    picture = ImageOps.fit(picture, (shape[1], shape[0]), Image.Resampling.BOX)
    return np.asarray(picture, np.uint8).reshape(shape), inverted


def _as_in_folders(path, shape):
    import tensorflow as tf

    from common import folders

    try:
        return folders.read(path, shape[0])
    except tf.errors.InvalidArgumentError:
        raise PictureError("TensorFlow cannot decode it (it reads JPEG, PNG, GIF, BMP)") from None
    except (tf.errors.OpError, ValueError) as error:
        raise PictureError(f"it cannot be opened ({type(error).__name__})") from None


def _open(path, mode):
    """As Pillow reads it: upright, one frame, on white where it is transparent."""
    try:
        with Image.open(path) as picture:
            picture.draft(mode, (_LARGEST, _LARGEST))  # of a JPEG: less is decoded
            picture = ImageOps.exif_transpose(picture)
            if picture.mode.startswith(("I", "F")):  # 16 bits and more
                values = np.nan_to_num(np.asarray(picture, np.float64))
                values *= 255 / 65535 if picture.mode.startswith("I") else 1
                picture = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
            picture.thumbnail((_LARGEST, _LARGEST), Image.Resampling.BOX)
            if picture.has_transparency_data:
                picture = picture.convert("RGBA")
                picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
            return picture.convert(mode)
    except UnidentifiedImageError:
        raise PictureError("it is not a picture, or of a kind that is not known") from None
    except OSError as error:
        raise PictureError(error.strerror or str(error)) from None
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise PictureError(str(error)) from None  # as Pillow's readers tell of damage


def _background(pixels):
    """The middle value at the four corners, each a tenth of the picture."""
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
    picture = Image.fromarray(pixels.astype(np.float32))
    return np.clip(np.asarray(picture.resize(size, Image.Resampling.BOX)), 0, 255)


def _lighting(pixels):
    """The plane through the values along the border: what paper looks like, lit from a side."""
    height, width = pixels.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    border = np.maximum(np.abs(y), np.abs(x)) > 0.9
    terms = np.stack([np.ones_like(x), x, y], axis=-1)
    plane, *_ = np.linalg.lstsq(terms[border], pixels[border], rcond=None)
    return terms @ plane


def _centered(pixels, shape, *, by_mass):
    """On a black picture of `shape`, with the center of mass, or of the sides, in the middle."""
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
