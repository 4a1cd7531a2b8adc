"""`predict.py`: images in, the likeliest classes out; and how images are prepared for it."""

import json
import os
import shutil
import sys

import keras
import numpy as np
import pytest
from PIL import Image, ImageDraw

import predict
from common import datasets, images, options

NAMES = [f"digit {i}" for i in range(10)]
PHOTOS = ["0.png", "1.png", "2.png", "below/Größe 3.PNG"]


@pytest.fixture(scope="module")
def digits():
    """The sample's test images of MNIST: uint8, (1000, 28, 28, 1)."""
    return datasets.load("mnist", "nowhere", sample=True)[1][0]


def photographed(digit, rng):
    """A digit in dark ink on paper lit from a side, somewhere in a photograph."""
    top, left, ink = rng.integers(20, 220), rng.integers(20, 380), np.zeros((480, 640))
    large = Image.fromarray(digit).resize((240, 240), Image.Resampling.BICUBIC)
    ink[top : top + 240, left : left + 240] = np.asarray(large) / 255
    y, x = np.mgrid[0:1:480j, 0:1:640j]
    pixels = (210 - 60 * x - 40 * y) * (1 - 0.8 * ink) + rng.normal(0, 4, ink.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).convert("RGB")


def likeness(a, b):
    """The correlation of two images."""
    return np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]


# Preparing


def test_a_photographed_digit_is_inverted_and_placed_as_mnist_has_it(digits, tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for digit in digits[0:500:25]:
        photographed(digit[..., 0], rng).save(tmp_path / "photo.jpg")
        image, inverted = predict.prepare(tmp_path / "photo.jpg", (28, 28, 1), "digit")
        assert (inverted, image.dtype, image.shape) == (True, np.uint8, (28, 28, 1))
        assert image.max() > 200
        assert image[0].max() == 0  # no paper is left
        shifts = [np.roll(image, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        found.append(max(likeness(shifted, digit) for shifted in shifts))
    assert np.mean(found) > 0.9


def test_an_image_of_the_models_own_size_stays_as_it_is(digits, tmp_path):
    clothes = datasets.load("fashion-mnist", tmp_path, sample=True)[1][0]
    for original in [*digits[:50], *clothes[:50]]:
        for pixels, expected in [(original, False), (255 - original, True)]:
            Image.fromarray(pixels[..., 0]).save(tmp_path / "a.png")
            image, inverted = predict.prepare(tmp_path / "a.png", (28, 28, 1), "digit")
            np.testing.assert_array_equal(image, original)
            assert inverted == expected


def test_clothing_on_white_fills_the_image_and_keeps_its_proportions(tmp_path):
    photo = np.full((300, 200), 250, np.uint8)
    photo[50:250, 80:120] = 60  # trousers, say, five times as high as wide
    Image.fromarray(photo).save(tmp_path / "photo.png")
    image, inverted = predict.prepare(tmp_path / "photo.png", (28, 28, 1), "clothing")
    assert inverted
    rows, columns = (np.flatnonzero((image[..., 0] > 100).any(axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) in {(28, 5), (28, 6)}
    assert abs(columns.mean() - 13.5) <= 1


def test_odd_images_are_seen_as_a_viewer_shows_them(digits, tmp_path):
    digit = digits[0, ..., 0]
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = digit  # black ink on nothing
    Image.fromarray(ink).save(tmp_path / "clear.png")
    Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    on_its_side = Image.fromarray(np.rot90(digit))
    exif = on_its_side.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    on_its_side.save(tmp_path / "turned.png", exif=exif)
    for name in ["clear.png", "deep.png", "turned.png"]:
        image, _ = predict.prepare(tmp_path / name, (28, 28, 1), "digit")
        assert likeness(image, digit) > 0.99, name


def test_an_empty_page_is_no_digit(tmp_path):
    rng = np.random.default_rng(0)
    noisy = rng.normal(180, 3, (300, 200)) * np.linspace(0.7, 1, 200)  # lit from a side
    for pixels in [np.full((300, 200), 255), np.zeros((28, 28)), noisy]:
        Image.fromarray(np.uint8(pixels)).save(tmp_path / "page.png")
        with pytest.raises(images.ImageError, match="nothing drawn"):
            predict.prepare(tmp_path / "page.png", (28, 28, 1), "digit")


# A seven, a zero and a four, as strokes in a square.
STROKES = {
    7: [[(0.2, 0.1), (0.8, 0.1), (0.45, 0.9)]],
    0: [[(0.5, 0.1), (0.8, 0.3), (0.8, 0.7), (0.5, 0.9), (0.2, 0.7), (0.2, 0.3), (0.5, 0.1)]],
    4: [[(0.25, 0.1), (0.2, 0.55), (0.8, 0.55)], [(0.7, 0.1), (0.7, 0.9)]],
}


@pytest.mark.parametrize("paper", [250, 180, 100, 40])  # the last: light chalk on a slate
@pytest.mark.parametrize("width", [2, 6, 20])
def test_strokes_of_any_pen_on_any_paper_are_the_same_digit(paper, width, tmp_path):
    rng = np.random.default_rng(width)
    for strokes in STROKES.values():
        drawing = Image.new("L", (800, 600))
        for stroke in strokes:
            points = [(250 + 400 * x, 120 + 400 * y) for x, y in stroke]
            ImageDraw.Draw(drawing).line(points, 255, width, "curve")
        ink = np.asarray(drawing) / 255
        lit = paper * np.linspace(0.8, 1, 800)
        strongest = 0.35 * lit if paper > 50 else 200
        pixels = lit * (1 - ink) + strongest * ink + rng.normal(0, 3, ink.shape)
        Image.fromarray(np.uint8(pixels.clip(0, 255))).save(tmp_path / "photo.jpg")
        drawing.save(tmp_path / "clean.png")
        found, inverted = predict.prepare(tmp_path / "photo.jpg", (28, 28, 1), "digit")
        expected, _ = predict.prepare(tmp_path / "clean.png", (28, 28, 1), "digit")
        assert inverted == (paper > 50)
        shifts = [np.roll(found, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        assert max(likeness(shifted, expected) for shifted in shifts) > 0.95  # of a rounded center
        assert (found > 80).sum() > 30  # no stroke has faded


def test_of_a_color_photograph_the_middle_is_taken(tmp_path):
    photo = np.zeros((60, 100, 3), np.uint8)
    photo[:, 20:80, 0] = 200
    Image.fromarray(photo).save(tmp_path / "photo.png")
    image, inverted = predict.prepare(tmp_path / "photo.png", (32, 32, 3), "square")
    assert not inverted
    np.testing.assert_array_equal(image[1:-1, 1:-1], np.broadcast_to([200, 0, 0], (30, 30, 3)))


# Asking


@pytest.fixture
def run(tmp_path):
    """The folder of a finished run: its model knows nothing, but is a whole one."""
    folder = tmp_path / "outputs" / "mnist-cnn" / "20260101-120000"
    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    layers = [keras.Input((28, 28, 1)), *layers, keras.layers.Dense(10, activation="softmax")]
    keras.Sequential(layers).save(folder / "model.keras")
    results = {"lesson": "mnist", "preparation": "digit", "data": {"classes": NAMES}}
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def ask(monkeypatch, capsys, run):
    """Run `predict.py` with these arguments: its exit status, what it printed and told."""
    monkeypatch.setattr(options, "explain_errors", lambda: None)

    def ask(*arguments):
        command = ["predict.py", "--run", run.parent.parent, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        capsys.readouterr()
        status = predict.main()
        return status, *capsys.readouterr()

    return ask


@pytest.fixture
def photos(tmp_path, digits):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for i, name in enumerate(PHOTOS):
        Image.fromarray(digits[i, ..., 0]).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def test_three_classes_are_printed_or_json_and_a_sheet_is_written(ask, run, photos, digits):
    before = sorted(photos.rglob("*"))
    status, printed, told = ask(photos)
    assert (status, told.count("\n")) == (0, 1)
    assert "(1 .txt)" in told
    rows = keras.saving.load_model(run / "model.keras").predict(digits[:4], verbose=0)
    for name, row in zip(PHOTOS, rows, strict=True):
        best = ", ".join(f"{NAMES[i]} {row[i]:.1%}" for i in np.argsort(-row)[:3])
        assert f"{photos / name}: {best}\n" in printed
    (sheet,) = run.glob("predicted-*.png")
    assert str(sheet) in printed
    with Image.open(sheet) as image:
        assert image.size[0] == 1200
    assert sorted(photos.rglob("*")) == before
    assert predict.unused(sheet) == sheet.with_stem(f"{sheet.stem}-2")  # of the same second

    status, printed, _ = ask("--json", photos / "[01].png", photos / "1.png")
    assert status == 0
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["image"] for line in lines] == [str(photos / f"{i}.png") for i in range(2)]
    for line, row in zip(lines, rows[:2], strict=True):
        assert line["class"] == NAMES[row.argmax()] == next(iter(line["probabilities"]))
        assert [line["probabilities"][name] for name in NAMES] == pytest.approx(row.tolist())
        assert line["probability"] == max(line["probabilities"].values())
    assert list(run.glob("*.png")) == [sheet]


def test_below_a_confidence_it_asks_whether_it_is_none_of_the_classes(ask, run, photos, digits):
    rows = keras.saving.load_model(run / "model.keras").predict(digits[:4], verbose=0)
    limit = np.sort(rows.max(axis=1))[2].item()  # two of the four are below it
    _, printed, _ = ask("--min-confidence", limit, photos)
    assert printed.count("none of the classes?") == 2
    for name, row in zip(PHOTOS, rows, strict=True):
        best = f"{NAMES[row.argmax()]} {row.max():.1%}"
        unsure = "none of the classes? " if row.max() < limit else ""
        assert f"{photos / name}: {unsure}{best}" in printed
    _, printed, _ = ask("--json", "--min-confidence", limit, photos)
    below = [json.loads(line)["below_min_confidence"] for line in printed.splitlines()]
    assert below == (rows.max(axis=1) < limit).tolist()
    with pytest.raises(SystemExit):
        ask("--min-confidence", 1.5, photos)


def test_what_cannot_be_read_is_named_and_skipped(ask, run, photos):
    (photos / "page.jpg").write_text("<html>")
    (photos / "empty.png").touch()
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:150])
    (photos / "none").mkdir()
    status, printed, told = ask(photos / "page.jpg")
    assert (status, "Sheet" in printed, list(run.glob("*.png"))) == (1, False, [])
    status, printed, told = ask(photos, photos / "gone.png", photos / "none")
    assert status == 1
    named = [line.split(": ")[1] for line in told.splitlines()]
    expected = [str(photos / name) for name in ["gone.png", "none", "cut.png", "empty.png"]]
    assert named == [*expected[:2], "skipped", *expected[2:], str(photos / "page.jpg")]
    assert printed.count("digit") == 4 * 3


def test_names_of_every_kind_are_found_and_printed(ask, photos, tmp_path):
    names = ["~copy.png", "two\nlines.png", "[1].png", "wide 你好 😀.png", "$\\frac$.png"]
    if sys.platform == "linux":
        names.append(os.fsdecode(b"\xff.png"))  # no text
    for name in names:
        shutil.copy(photos / "0.png", photos / name)
    (photos / ".thumbnails").mkdir()
    shutil.copy(photos / "0.png", photos / ".thumbnails")
    status, printed, _ = ask("--json", "--output", tmp_path / "sheet.png", tmp_path / "photo*")
    assert status == 0
    found = [json.loads(line)["image"] for line in printed.splitlines()]
    assert sorted(found) == sorted(str(photos / name) for name in [*names, *PHOTOS])
    assert (tmp_path / "sheet.png").exists()


def test_the_sheet_never_goes_onto_a_file(ask, photos, tmp_path, capsys, monkeypatch):
    before = (photos / "0.png").read_bytes()
    for name, answer in [
        (photos / "0.png", "is there already"),
        (tmp_path / "sheet.doc", "should end in .png"),
        (tmp_path / "gone" / "sheet.png", "there is no folder"),
    ]:
        with pytest.raises(SystemExit, match="2"):
            ask(photos, "--output", name)
        assert answer in capsys.readouterr().err
    assert (photos / "0.png").read_bytes() == before

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("common.plots.grid", refuse)
    with pytest.raises(options.Mistake, match=r"cannot be written .*--output"):
        ask(photos)


def test_the_newest_finished_run_is_taken(ask, run, photos):
    newer = run.with_name("20260101-110000")  # begun before, ended after the other
    newer.mkdir()
    unfinished = run.with_name("20260101-130000")
    unfinished.mkdir()
    for name in ["model.keras", "results.json"]:
        shutil.copyfile(run / name, newer / name)
    shutil.copy(run / "model.keras", unfinished)
    assert f"Model: {newer / 'model.keras'}" in ask(photos)[1]
    assert f"Model: {run / 'model.keras'}" in ask("--run", run, photos)[1]


def test_a_run_that_is_damaged_is_one_line(ask, run, photos):
    for name, old, new, answer in [
        ("results.json", b'"digit 9"', b'"digit 9", "ten"', "are not of one run"),
        ("results.json", b'"preparation": "digit"', b'"preparation": "poster"', "how to prepare"),
        ("results.json", b"}", b"", r"results\.json cannot be read"),
        ("model.keras", b"PK", b"", r"model\.keras cannot be read"),
    ]:
        whole = (run / name).read_bytes()
        (run / name).write_bytes(whole.replace(old, new))
        with pytest.raises(options.Mistake, match=answer):
            ask(photos)
        (run / name).write_bytes(whole)


def test_a_model_of_another_keras_names_both_versions(ask, run, photos, monkeypatch):
    results = json.loads((run / "results.json").read_text())
    (run / "results.json").write_text(json.dumps(results | {"versions": {"keras": "3.99.1"}}))

    def refuse(*_, **__):
        raise TypeError("Could not deserialize")

    monkeypatch.setattr(keras.saving, "load_model", refuse)
    with pytest.raises(options.Mistake, match=rf"3\.99\.1.*{keras.__version__}"):
        ask(photos)


def test_damaged_results_are_one_line_and_dates_need_no_zone(ask, run, photos):
    results = json.loads((run / "results.json").read_text())
    other = run.with_name("other")
    shutil.copytree(run, other)
    zones = [{"finished": "2026-01-01T12:00:00"}, {"finished": "2026-01-01T11:00:00+00:00"}]
    for folder, zone in zip((run, other), zones, strict=True):
        (folder / "results.json").write_text(json.dumps(results | zone))
    assert ask(photos)[0] == 0
    for classes in ("text", [1, 2], None):
        damaged = json.dumps(results | {"data": {"classes": classes}})
        (run / "results.json").write_text(damaged)
        with pytest.raises(options.Mistake, match="cannot be read"):
            ask("--run", run, photos)


def test_a_mistake_is_answered_in_one_line_before_anything_slow(lesson, tmp_path):
    for arguments, status, answer in [
        ([], 2, "required: IMAGE"),
        (["a.png", "--jsn"], 2, "did you mean --json?"),
        (["a.png", "--run", "gone"], 2, "there is no folder 'gone'"),
        (["a.png", "--run", tmp_path], 1, "train_mnist.py` makes one"),
    ]:
        done = lesson("-X", "importtime", "predict.py", *arguments)
        told = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
        assert (done.returncode, done.stdout, len(told)) == (status, "", 1)
        assert told[0].startswith("predict.py: error: ")
        assert answer in told[0]
        assert "| tensorflow" not in done.stderr
    assert lesson("-OO", "predict.py", "--help").returncode == 0  # without docstrings
