"""An image file -> what a trained model takes: prepared as its lesson prepared its own."""

import os

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_LARGEST = 1000  # pixels of a side: a photograph is first made as small as this
_INK = 0.3  # of the way from the background to the strongest value: what counts as drawn


class ImageError(Exception):
    """A file that is no image; the message says why."""


def prepare(path, shape, preparation):
    """Read an image and bring it to a model's shape.

    An image that has this shape already is left as it is, but for its colors. Others are prepared
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
