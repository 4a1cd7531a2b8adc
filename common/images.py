"""One decoder: an image file -> upright RGB pixels, as a viewer shows them. Pillow, no TensorFlow.

All that reads image files reads them here: the check of a folder, training, plots, `predict.py`.
(libtiff, in C, writes to the console what it thinks of a damaged TIFF: see `devices.quiet`.)
"""

import io
import os
import stat
import struct
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

EXTENSIONS = (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png")
EXTENSIONS += (".tif", ".tiff", ".webp")
LARGEST = 100_000_000  # pixels: more are refused by the header alone
_BYTES = 2**30  # of a file
LONGEST = 32  # a longer side than this, in shorter ones, would be shrunk to nothing
# Not all that Pillow opens: some kinds are read by other programs, some are documents.
_KINDS = ["AVIF", "BMP", "GIF", "HEIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"]
_HEIC = (b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1")

with warnings.catch_warnings():
    try:
        import pillow_heif
    except ImportError:  # a package of its own, for the photographs of some telephones
        pillow_heif = None
    else:
        pillow_heif.register_heif_opener()
# Sizes are limited below; damaged extras, such as a photograph's date, do not matter.
warnings.filterwarnings("ignore", module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(Exception):
    """A file that cannot be used as an image; the message says why."""


def decode(path, side=None):
    """Read an image file as a viewer shows it: upright, in color, on white, its first frame.

    Args:
        path: A JPEG, PNG, GIF, BMP, WebP, TIFF or AVIF file, or HEIC if pillow-heif is installed.
        side: If only so many pixels of the shorter side are needed: of a large JPEG, a half, a
            quarter or an eighth is decoded, as long as that is more.

    Returns:
        A Pillow image of the mode RGB.

    Raises:
        ImageError: It is empty, cut off, damaged, no image or of another kind, too large, or too
            long and narrow.
    """
    content = _read(path)
    try:
        with Image.open(io.BytesIO(content), formats=_kinds()) as image:
            width, height = image.size
            if width * height > LARGEST:
                raise ImageError(f"{width}x{height} pixels are too large")
            if max(width, height) > LONGEST * min(width, height):
                raise ImageError(f"{width}x{height} pixels are too long and narrow")
            if side:
                scale = side / min(width, height)
                image.draft("RGB", (round(scale * width) + 1, round(scale * height) + 1))
            image.load()
            return _upright(_rgb(image), image)
    except UnidentifiedImageError:
        if content[4:8] == b"ftyp" and content[8:12] in _HEIC and not pillow_heif:
            raise ImageError("HEIC, which needs a package: pip install pillow-heif") from None
        raise ImageError("no image, damaged, or of a kind that is not read") from None
    except Image.DecompressionBombError:
        raise ImageError("too large") from None
    except MemoryError:
        raise ImageError("too large for this machine's memory") from None
    except ImageError:
        raise
    except Exception as error:  # damaged bytes raise whatever they happen to mean to Pillow
        cut = "truncated" in str(error).lower() or isinstance(error, EOFError)
        raise ImageError("cut off" if cut else "damaged") from None


def square(image, side):
    """A decoded image in a square, its proportions kept, the rest black.

    Args:
        image: A Pillow image of the mode RGB.
        side: Of the square, in pixels.

    Returns:
        A uint8 array of shape (side, side, 3).
    """
    return np.asarray(ImageOps.pad(image, (side, side), Image.Resampling.BILINEAR))


def _read(path):
    """The content of a regular file."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device, which may never end
            raise ImageError("not a regular file")
        if status.st_size > _BYTES:  # a video, say: do not read it into memory
            raise ImageError("a file of more than 1 GB")
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise ImageError(f"cannot be opened ({error.strerror or error})") from None
    if not content:
        raise ImageError("it is empty")
    return _without_extras(content) if content[:8] == b"\x89PNG\r\n\x1a\n" else content


def _without_extras(content):
    """A PNG file without the chunks that its pixels do not need, which may be damaged or huge."""
    kept, place = [content[:8]], 8
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        end = place + 12 + length
        small_exif = kind == b"eXIf" and length < 65_536  # it may say which side is up
        if kind[:1].isupper() or kind == b"tRNS" or small_exif or end > len(content):
            kept.append(content[place:end])
        place = end
    return b"".join(kept)


def _kinds():
    known = set(Image.registered_extensions().values())
    return [kind for kind in _KINDS if kind in known]


def _rgb(image):
    """The pixels in 8 bits and three colors; what is transparent is on white."""
    if image.mode.startswith(("I", "F")):  # gray of 16 bits and more
        values = np.nan_to_num(np.asarray(image, np.float64))
        values *= 255 / 65535 if image.mode.startswith("I") else 1
        return Image.fromarray(values.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def _upright(pixels, image):
    """The pixels turned as the file's EXIF data say, if they can be read."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged data of a sound image
        return pixels
    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    return pixels.transpose(turns[orientation]) if orientation in turns else pixels
