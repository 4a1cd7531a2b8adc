"""`common/images.py`: files of every kind, sound and damaged, to the pixels a viewer shows."""

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import REPO
from PIL import Image, ImageOps, features

from common import devices, images


def scene():
    """Colors that differ in each corner: 36 pixels wide, 24 high."""
    y, x = np.mgrid[0:1:24j, 0:1:36j]
    return Image.fromarray((255 * np.stack([x, y, (1 - x) * y], axis=-1)).astype(np.uint8))


def encoded(image, kind, more=0, **options):
    """As a file of this kind, with so many more images; Pillow leaves settings in what it saves."""
    if more:
        options |= {
            "save_all": True,
            "append_images": [ImageOps.invert(scene()) for _ in range(more)],
        }
    file = io.BytesIO()
    image.copy().save(file, kind, **options)
    return file.getvalue()


def chunk(kind, data, checksum=0):
    """A part of a PNG file; its checksum is right unless a number is added to it."""
    checksum = (zlib.crc32(kind + data) + checksum) % 2**32
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


def png_with(*chunks):
    """A PNG file with these behind its header."""
    content = encoded(scene(), "PNG")
    return content[:33] + b"".join(chunks) + content[33:]


def png_of_16_bits():
    """Of three colors, which Pillow does not write."""
    rows = np.asarray(scene()).astype(">u2") * 257
    packed = b"".join(b"\0" + row.tobytes() for row in rows)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 36, 24, 16, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(packed)) + chunk(b"IEND", b"")
    )


def transparent(mode):
    """Black on nothing: the left half."""
    image = Image.new(mode, (36, 24))
    image.putalpha(Image.fromarray(np.repeat([[255] * 18 + [0] * 18], 24, axis=0).astype(np.uint8)))
    return image


def deep():
    """Gray of 16 bits."""
    return Image.fromarray(np.asarray(scene().convert("L")).astype(np.uint16) * 257)


def colors_of(name):
    """The pixels of `sound()[name]` as a viewer shows them; and how far off a pixel may be."""
    if "transparent" in name:
        shown = Image.composite(Image.new("RGB", (36, 24)), Image.new("RGB", (36, 24), "white"),
                                transparent("LA").getchannel("A"))  # fmt: skip
        return shown, 1
    if "gray" in name:
        return scene().convert("L").convert("RGB"), 1
    if "1 bit" in name:
        return scene().convert("1").convert("RGB"), 0
    if "palette" in name:
        return scene().quantize(64).convert("RGB"), 0
    return scene(), 8 if name.startswith(("JPEG", "WebP", "AVIF", "HEIC")) else 0


def sound():
    """A file of each kind that is read, by its name."""
    image, palette = scene(), scene().quantize(64)
    lossless = {"lossless": True}
    files = {
        "PNG": encoded(image, "PNG"),
        "PNG with 2 MB of text": png_with(chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000)),
        "PNG with packed text": png_with(chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**8)))),
        "PNG with 3 MB of profile": encoded(image, "PNG", icc_profile=os.urandom(3_000_000)),
        "PNG with damaged text": png_with(chunk(b"tEXt", b"Comment\0x", checksum=1)),
        "PNG with a damaged date": png_with(chunk(b"eXIf", b"MM\0\x2a" + bytes(6), checksum=0)),
        "PNG of 16 bits": png_of_16_bits(),
        "PNG, gray of 16 bits": encoded(deep(), "PNG"),
        "PNG of a palette": encoded(palette, "PNG"),
        "PNG of 1 bit": encoded(image.convert("1"), "PNG"),
        "PNG, transparent": encoded(transparent("RGB"), "PNG"),
        "PNG, gray, transparent": encoded(transparent("L"), "PNG"),
        "PNG, animated": encoded(image, "PNG", more=2),
        "BMP": encoded(image, "BMP"),
        "BMP of a palette": encoded(palette, "BMP"),
        "BMP of 1 bit": encoded(image.convert("1"), "BMP"),
        "GIF of a palette": encoded(palette, "GIF"),
        "GIF of a palette, animated": encoded(palette, "GIF", more=2),
        "GIF, transparent": encoded(transparent("RGB"), "GIF"),
        "JPEG": encoded(image, "JPEG", quality=95, subsampling=0),
        "JPEG, gray": encoded(image.convert("L"), "JPEG", quality=100),
        "JPEG of four colors": encoded(image.convert("CMYK"), "JPEG", quality=95, subsampling=0),
        "JPEG, progressive": encoded(image, "JPEG", quality=95, subsampling=0, progressive=True),
        "JPEG of a telephone": encoded(image, "MPO", quality=95, subsampling=0, more=2),
        "JPEG with a damaged date": encoded(
            image, "JPEG", quality=95, exif=b"Exif\0\0MM\0\x2a\xff"
        ),
        "TIFF": encoded(image, "TIFF"),
        "TIFF, packed": encoded(image, "TIFF", compression="tiff_lzw"),
        "TIFF, gray of 16 bits": encoded(deep(), "TIFF"),
        "TIFF, gray of 32 bits": encoded(image.convert("L").convert("F"), "TIFF"),
        "TIFF of several pages": encoded(image, "TIFF", more=2),
        "TIFF, transparent": encoded(transparent("RGB"), "TIFF"),
        "PPM": encoded(image, "PPM"),
        "WebP": encoded(image, "WEBP", **lossless),
        "WebP, animated": encoded(image, "WEBP", **lossless, more=2),
        "WebP, transparent": encoded(transparent("RGB"), "WEBP", **lossless),
    }
    if features.check("avif"):
        files["AVIF"] = encoded(image, "AVIF", quality=100, subsampling="4:4:4")
        files["AVIF, animated"] = encoded(image, "AVIF", quality=100, subsampling="4:4:4", more=2)
        files["AVIF, transparent"] = encoded(transparent("RGB"), "AVIF", quality=100)
    return files


@pytest.fixture(scope="module")
def files():
    return sound()


@pytest.fixture
def decode(tmp_path):
    """`decode(content)`: what `images.decode` makes of a file that holds this."""

    def decode(content, side=None):
        path = tmp_path / "a.jpg"  # no ending decides what a file is
        path.write_bytes(content)
        return images.decode(path, side)

    return decode


def refusal(decode, content):
    with pytest.raises(images.ImageError) as caught:
        decode(content)
    return str(caught.value)


def test_each_kind_is_read_as_a_viewer_shows_it(files, decode):
    for name, content in files.items():
        image, (expected, tolerance) = decode(content), colors_of(name)
        assert (image.mode, image.size) == ("RGB", (36, 24)), name
        difference = np.abs(np.asarray(image, float) - np.asarray(expected, float))
        assert difference.mean() <= tolerance, name


def test_every_orientation_is_turned_upright_and_enough_pixels_are_decoded(decode):
    large, turn = scene().resize((360, 240)), Image.Transpose
    stored = [None, turn.FLIP_LEFT_RIGHT, turn.ROTATE_180, turn.FLIP_TOP_BOTTOM, turn.TRANSPOSE]
    stored += [turn.ROTATE_90, turn.TRANSVERSE, turn.ROTATE_270]
    for kind in ["JPEG", "PNG", "TIFF", "WEBP", *["AVIF"] * features.check("avif")]:
        for orientation, how in enumerate(stored, start=1):
            exif = Image.Exif()
            exif[0x0112] = orientation
            content = encoded(large if how is None else large.transpose(how), kind, exif=exif)
            assert decode(content).size == large.size
            for side in [None, 30, 31, 119, 239, 500]:
                image = decode(content, side)
                assert min(image.size) >= min(side or 240, 240)
                difference = (
                    np.asarray(image.resize((36, 24), Image.Resampling.BOX), float) - scene()
                )
                assert np.abs(difference).mean() < 6, (kind, orientation, side)
    assert decode(encoded(large, "JPEG"), 29).size == (45, 30)


def test_what_is_no_sound_image_is_one_sentence(files, decode, tmp_path):
    assert refusal(decode, b"") == "it is empty"
    no_image = "no image, damaged, or of a kind that is not read"
    for content in [
        b"<html>",
        b"\0",
        b"\xff\xd8\xff",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"BM",
        b"II*\0",
    ]:
        assert refusal(decode, content) == no_image
    for name in [
        "PNG",
        "BMP",
        "GIF of a palette",
        "JPEG",
        "TIFF",
        "TIFF, packed",
        "PPM",
        "WebP",
        "AVIF",
    ]:
        for share in (0.5, 0.9):
            content = files.get(name, b"RIFF")
            answer = refusal(decode, content[: int(share * len(content))])
            assert answer in {"cut off", "damaged", no_image}, name
    assert (
        refusal(decode, files["PNG"][:-200]) == refusal(decode, files["JPEG"][:-200]) == "cut off"
    )
    assert refusal(decode, encoded(Image.new("L", (1, 200)), "PNG")).endswith("too long and narrow")
    assert decode(encoded(Image.new("L", (10, 320)), "PNG")).size == (10, 320)
    for path, answer in [
        (tmp_path, "not a regular file"),
        (tmp_path / "gone.png", "cannot be opened (No such file or directory)"),
    ]:
        with pytest.raises(images.ImageError) as caught:
            images.decode(path)
        assert str(caught.value) == answer


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
def test_a_pipe_is_refused_and_never_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(images.ImageError, match="not a regular file"):
        images.decode(tmp_path / "a.png")


def test_a_photograph_of_a_telephone_needs_a_package_or_is_read(decode, monkeypatch):
    heic = struct.pack(">I4s4sI4s4s", 24, b"ftyp", b"heic", 0, b"mif1", b"heic") + bytes(100)
    monkeypatch.setattr(images, "pillow_heif", None)
    assert refusal(decode, heic) == "HEIC, which needs a package: pip install pillow-heif"
    monkeypatch.undo()
    if images.pillow_heif:
        image = decode(encoded(scene(), "HEIF", quality=100))
        assert np.abs(np.asarray(image, float) - np.asarray(scene(), float)).mean() < 8


def headers():
    """Of images of 65,535 x 65,535 pixels, nearly without content."""
    n = 65_535
    png = chunk(b"IHDR", struct.pack(">IIBBBBB", n, n, 8, 2, 0, 0, 0)) + chunk(b"IDAT", b"x")
    gif = struct.pack("<6sHHBBB", b"GIF89a", n, n, 0, 0, 0)
    gif += struct.pack("<cHHHHBB", b",", 0, 0, n, n, 0, 8) + b"\x02\x4c\x01\0;"
    bmp = struct.pack("<2sIIIIiiHHIIiiII", b"BM", 54, 0, 54, 40, n, n, 1, 24, 0, 0, 0, 0, 0, 0)
    jpeg = b"\xff\xd8\xff\xc0" + struct.pack(">HBHHB", 17, 8, n, n, 3) + b"\1\x11\0\2\x11\0\3\x11\0"
    jpeg += b"\xff\xda\0\x0c\3\1\0\2\0\3\0\0\x3f\0" + bytes(99)
    ppm = b"P6 65535 65535 255\n"
    return {"PNG": b"\x89PNG\r\n\x1a\n" + png, "GIF": gif, "BMP": bmp, "JPEG": jpeg, "PPM": ppm}


def alone(function, place):
    """What a function of this module prints in a process of its own, and nothing else."""
    code = f"import test_images; test_images.{function.__name__}({str(place)!r})"
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", code],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(REPO), str(REPO / "tests")])},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refuse_large_ones(place):
    """Run in a process of its own, whose memory is measured."""
    import resource

    path = Path(place, "a")
    contents = headers() | {"4 GB": None}
    for name, content in contents.items():
        path.write_bytes(content or b"BM")
        if not content:
            os.truncate(path, 2**32)  # of zeros that take no place
        before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        try:
            images.decode(path)
        except images.ImageError as error:
            print(f"{name}: {error}")
        unit = 1 if sys.platform == "darwin" else 1024
        used = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
        assert used < 100e6, (name, used)
        assert time.perf_counter() - begin < 1, name


def test_a_header_of_billions_of_pixels_costs_no_memory_and_no_time(tmp_path):
    pytest.importorskip("resource")  # not on Windows
    lines = [f"{name}: too large" for name in headers()]
    assert alone(refuse_large_ones, tmp_path).splitlines() == [
        *lines,
        "4 GB: a file of more than 1 GB",
    ]


def mutated():
    """Files of each kind, 2,000 in all, with bytes turned, cut off, doubled, or left out."""
    small = scene()
    sources = [
        encoded(small, kind) for kind in ("PNG", "BMP", "GIF", "JPEG", "TIFF", "WEBP", "PPM")
    ]
    sources.append(encoded(small, "TIFF", compression="tiff_lzw"))
    sources.append(encoded(small, "TIFF", compression="tiff_adobe_deflate"))
    sources.append(encoded(small, "TIFF", compression="jpeg"))
    sources.append(encoded(deep(), "PNG"))
    sources.append(encoded(small.quantize(16), "BMP"))
    sources.append(encoded(small.quantize(16), "GIF", more=1))
    sources.append(encoded(small, "JPEG", progressive=True, exif=b"Exif\0\0MM\0\x2a\0\0\0\x08\0\1"))
    sources.append(encoded(small, "WEBP", more=1))
    sources.append(encoded(small, "MPO", more=1))
    for seed in range(2000):
        rng = np.random.default_rng(seed)
        content = bytearray(sources[seed % len(sources)])
        for _ in range(rng.integers(1, 4)):
            # Half of the changes are where sizes, kinds and places are told.
            reach = len(content) if rng.random() < 0.5 else min(len(content), 64)
            start, length = int(rng.integers(reach)), int(rng.integers(1, 40))
            how = rng.integers(5)
            if how == 0:
                for place in rng.integers(start, min(start + length, len(content)), 3):
                    content[place] ^= 1 << int(rng.integers(8))
            elif how == 1:
                new = rng.integers(256, size=min(length, 4)).astype(np.uint8).tobytes()
                content[start : start + len(new)] = new
            elif how == 2:
                content[start:start] = content[start : start + length]
            elif how == 3:
                del content[start : start + length]
            else:
                del content[max(start, 1) :]
        yield seed, bytes(content)


def decode_mutated(place):
    """Run in a process of its own, whose every word and warning is seen."""
    path = Path(place, "a")
    read = 0
    with devices.quiet():  # libtiff's own words
        for seed, content in mutated():
            path.write_bytes(content)
            try:
                image = images.decode(path, (None, 8)[seed % 2])
            except images.ImageError as error:
                assert str(error), seed
            else:
                assert image.mode == "RGB"
                read += 1
    print(read)


def test_2000_damaged_files_are_read_or_refused_without_another_word(tmp_path):
    assert int(alone(decode_mutated, tmp_path)) > 200
