"""`predict.py`: pictures in, the likeliest classes out; and how pictures are prepared for it."""

import json
import os
import shutil
import sys
import tracemalloc

import keras
import numpy as np
import pytest
from PIL import Image

import predict
from common import datasets, options

NAMES = [f"digit {i}" for i in range(10)]


@pytest.fixture(scope="module")
def digits():
    """The sample's test pictures of MNIST: uint8, (1000, 28, 28, 1)."""
    _, (x, y), _ = datasets.load_mnist(datasets.SAMPLES.parent / "none", sample=True)
    return x, y


def photographed(digit, rng, side=240):
    """A digit in dark ink on paper lit from a side, somewhere in a photograph, as RGB."""
    height, width = 480, 640
    top, left = rng.integers(20, height - side - 20), rng.integers(20, width - side - 20)
    ink = np.zeros((height, width))
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    ink[top : top + side, left : left + side] = np.asarray(large) / 255
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    paper = 210 - 60 * x - 40 * y
    grey = paper * (1 - 0.8 * ink) + rng.normal(0, 4, paper.shape)
    return np.clip(np.stack([grey, 0.97 * grey, 0.9 * grey], -1), 0, 255).astype(np.uint8)


def likeness(a, b):
    """The correlation of two pictures."""
    return np.corrcoef(a.ravel().astype(float), b.ravel().astype(float))[0, 1]


# Preparing


def test_a_photographed_digit_is_inverted_and_placed_as_mnist_has_it(digits, tmp_path):
    rng = np.random.default_rng(0)
    found = []
    for i in range(0, 500, 25):
        Image.fromarray(photographed(digits[0][i, ..., 0], rng)).save(tmp_path / "photo.jpg")
        picture, turned = predict.prepare(tmp_path / "photo.jpg", (28, 28, 1), "digit")
        assert turned
        assert (picture.dtype, picture.shape) == (np.uint8, (28, 28, 1))
        assert picture.max() > 200
        assert picture[0].max() == 0  # no paper is left
        shifts = [np.roll(picture, (y, x), (0, 1)) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        found.append(max(likeness(shifted, digits[0][i]) for shifted in shifts))
    assert np.mean(found) > 0.9


def test_a_picture_of_the_networks_own_size_stays_as_it_is(digits, tmp_path):
    digit = digits[0][3]
    Image.fromarray(digit[..., 0]).save(tmp_path / "a.png")
    Image.fromarray(255 - digit[..., 0]).save(tmp_path / "b.png")
    for name, expected in [("a.png", False), ("b.png", True)]:
        picture, turned = predict.prepare(tmp_path / name, (28, 28, 1), "digit")
        np.testing.assert_array_equal(picture, digit)
        assert turned == expected


def test_no_picture_of_the_data_sets_is_taken_for_dark_on_light(digits, tmp_path):
    _, (clothes, _), _ = datasets.load_fashion_mnist(tmp_path, sample=True)
    for pictures in (digits[0], clothes):
        assert max(predict._background(p[..., 0].astype(np.float32)) for p in pictures) < 127


def test_clothing_on_white_fills_the_picture_and_keeps_its_proportions(tmp_path):
    photo = np.full((300, 200), 250, np.uint8)
    photo[50:250, 80:120] = 60  # trousers, say, five times as high as wide
    Image.fromarray(photo).save(tmp_path / "photo.png")
    picture, turned = predict.prepare(tmp_path / "photo.png", (28, 28, 1), "clothing")
    assert turned
    rows, columns = (np.flatnonzero((picture[..., 0] > 100).any(axis)) for axis in (1, 0))
    assert (len(rows), len(columns)) in {(28, 5), (28, 6)}
    assert abs(columns.mean() - 13.5) <= 1


def test_a_blank_page_is_a_picture_too(tmp_path):
    Image.new("L", (300, 200), 255).save(tmp_path / "blank.png")
    picture, _ = predict.prepare(tmp_path / "blank.png", (28, 28, 1), "digit")
    assert picture.max() == 0


def test_a_large_photograph_takes_little_memory(tmp_path):
    Image.new("L", (6000, 4000), 255).save(tmp_path / "large.jpg")
    tracemalloc.start()
    predict.prepare(tmp_path / "large.jpg", (28, 28, 1), "digit")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 150e6  # of NumPy's arrays; 58 bytes a pixel would be 1.4 GB


def test_transparent_deep_and_turned_pictures_are_seen_as_a_viewer_shows_them(digits, tmp_path):
    digit = digits[0][0, ..., 0]
    ink = np.zeros((28, 28, 4), np.uint8)
    ink[..., 3] = digit  # black ink on nothing
    Image.fromarray(ink).save(tmp_path / "clear.png")
    Image.fromarray(digit.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    on_its_side = Image.fromarray(np.rot90(digit))
    exif = on_its_side.getexif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    on_its_side.save(tmp_path / "turned.png", exif=exif)
    for name in ["clear.png", "deep.png", "turned.png"]:
        picture, _ = predict.prepare(tmp_path / name, (28, 28, 1), "digit")
        assert likeness(picture, digit) > 0.99, name


def test_of_a_color_photograph_the_middle_is_taken(tmp_path):
    photo = np.zeros((60, 100, 3), np.uint8)
    photo[:, 20:80, 0] = 200
    Image.fromarray(photo).save(tmp_path / "photo.png")
    picture, turned = predict.prepare(tmp_path / "photo.png", (32, 32, 3), "square")
    assert not turned
    np.testing.assert_array_equal(picture[1:-1, 1:-1], np.broadcast_to([200, 0, 0], (30, 30, 3)))


# Asking


@pytest.fixture
def runs(tmp_path, digits):
    """A folder with a finished run: a network that knows nothing, but is a whole one."""
    folder = tmp_path / "outputs" / "mnist-cnn" / "20260101-120000"
    folder.mkdir(parents=True)
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Rescaling(1 / 255), keras.layers.Flatten()]
    layers = [keras.Input((28, 28, 1)), *layers, keras.layers.Dense(10, activation="softmax")]
    keras.Sequential(layers).save(folder / "model.keras")
    results = {"lesson": "mnist", "preparation": "digit", "data": {"classes": NAMES}}
    (folder / "results.json").write_text(json.dumps(results))
    return tmp_path / "outputs"


@pytest.fixture
def ask(monkeypatch, capsys, runs):
    """Run `predict.py` with these arguments: its exit status, what it printed and told."""
    monkeypatch.setattr(options, "answer_mistakes", lambda name: None)

    def ask(*arguments):
        command = ["predict.py", "--run", runs, *arguments]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        capsys.readouterr()
        status = predict.main()
        return status, *capsys.readouterr()

    return ask


@pytest.fixture
def photos(tmp_path, digits):
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(digits[0][i, ..., 0]).save(folder / f"{i}.png")
    Image.fromarray(digits[0][3, ..., 0]).save(folder / "below" / "Größe 3.PNG")
    (folder / "notes.txt").write_text("no picture")
    return folder


def predicted(runs, pictures):
    path = next(runs.rglob("model.keras"))
    return keras.saving.load_model(path).predict(pictures, verbose=0)


def test_three_classes_are_printed_for_each_picture_and_a_sheet_is_written(
    ask, runs, photos, digits
):
    before = sorted(photos.rglob("*"))
    status, printed, told = ask(photos)
    assert (status, told) == (0, "")
    rows = predicted(runs, digits[0][[0, 1, 2, 3]])
    for name, row in zip(["0.png", "1.png", "2.png", "below/Größe 3.PNG"], rows, strict=True):
        best = ", ".join(f"{NAMES[i]} {row[i]:.1%}" for i in np.argsort(-row)[:3])
        assert f"{photos / name}: {best}\n" in printed
    (sheet,) = runs.rglob("predicted-*.png")
    assert f"Sheet: {sheet}" in printed
    with Image.open(sheet) as picture:
        assert picture.size[0] == 1200
    assert sorted(photos.rglob("*")) == before


def test_json_is_a_line_a_picture_and_nothing_else(ask, runs, photos, digits):
    status, printed, _ = ask("--json", photos / "[01].png", photos / "1.png")
    assert status == 0
    lines = [json.loads(line) for line in printed.splitlines()]
    assert [line["image"] for line in lines] == [str(photos / f"{i}.png") for i in range(2)]
    for line, row in zip(lines, predicted(runs, digits[0][:2]), strict=True):
        assert line["class"] == NAMES[row.argmax()] == next(iter(line["probabilities"]))
        assert line["probability"] == pytest.approx(float(row.max()))
        assert sum(line["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert not list(runs.rglob("*.png"))


def test_what_cannot_be_read_is_named_and_skipped(ask, photos, digits):
    (photos / "page.jpg").write_text("<html>")
    (photos / "empty.png").touch()
    (photos / "cut.png").write_bytes((photos / "0.png").read_bytes()[:150])
    (photos / "none").mkdir()
    status, printed, told = ask(photos, photos / "gone.png", photos / "none")
    assert status == 1
    named = [line.split(": ")[1] for line in told.splitlines()]
    expected = ["gone.png", "none", "cut.png", "empty.png", "page.jpg"]
    assert named == [str(photos / name) for name in expected]
    assert printed.count("digit") == 4 * 3


def test_names_of_every_kind_are_found_and_printed(ask, photos, tmp_path):
    for name in ["~copy.png", "two\nlines.png", "[1].png", "wide 你好 😀.png"]:
        shutil.copy(photos / "0.png", photos / name)
    hidden = photos / ".thumbnails"
    hidden.mkdir()
    shutil.copy(photos / "0.png", hidden)
    status, printed, _ = ask("--json", "--output", tmp_path / "sheet.png", tmp_path / "photo*")
    assert status == 0
    names = {json.loads(line)["image"].rsplit("/", 1)[1] for line in printed.splitlines()}
    assert len(names) == 8
    assert {"two\nlines.png", "wide 你好 😀.png", "Größe 3.PNG"} <= names
    assert (tmp_path / "sheet.png").exists()


@pytest.mark.skipif(os.name == "nt", reason="names are text on Windows")
def test_a_name_that_is_no_text_is_shown_spelled(ask, photos, tmp_path):
    odd = os.fsencode(photos) + b"/\xff.png"
    try:
        with open(odd, "wb") as file:
            file.write((photos / "0.png").read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    status, printed, _ = ask(os.fsdecode(odd), "--json", "--output", tmp_path / "sheet.png")
    assert status == 0
    assert os.fsencode(json.loads(printed)["image"]) == odd


def test_a_sheet_that_cannot_be_written_is_one_line(ask, photos, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("common.plots.grid", refuse)
    with pytest.raises(options.Mistake, match=r"cannot be written to .*; name another place"):
        ask(photos)


def test_nothing_to_read_is_no_sheet(ask, runs, photos):
    (photos / "page.jpg").write_text("<html>")
    status, printed, _ = ask(photos / "page.jpg")
    assert status == 1
    assert "Sheet" not in printed
    assert not list(runs.rglob("*.png"))


def test_the_sheet_goes_where_it_is_asked_for_and_never_onto_a_file(ask, photos, tmp_path, capsys):
    assert ask(photos, "--output", tmp_path / "sheet.png")[0] == 0
    assert (tmp_path / "sheet.png").stat().st_size > 1000
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


def test_the_newest_finished_run_is_taken(ask, runs, photos):
    (older,) = (path.parent for path in runs.rglob("model.keras"))
    newer = older.with_name("20260101-110000")  # begun before, ended after the other
    newer.mkdir()
    for name in ["model.keras", "results.json"]:
        (newer / name).write_bytes((older / name).read_bytes())
    unfinished = older.with_name("20260101-130000")
    unfinished.mkdir()
    (unfinished / "model.keras").touch()
    assert f"Model: {newer / 'model.keras'}" in ask(photos)[1]
    assert f"Model: {older / 'model.keras'}" in ask("--run", older, photos)[1]


def test_a_run_that_is_not_there_or_damaged_is_one_line(ask, runs, photos, tmp_path):
    with pytest.raises(options.Mistake, match=r"no finished run in .*train_mnist.py` makes one"):
        ask("--run", photos, photos)
    (run,) = (path.parent for path in runs.rglob("model.keras"))
    whole = (run / "model.keras").read_bytes()
    (run / "model.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(options.Mistake, match=r"model\.keras cannot be read"):
        ask(photos)
    (run / "model.keras").write_bytes(whole)
    results = (run / "results.json").read_text()
    (run / "results.json").write_text(results.replace('"digit 9"', '"digit 9", "ten"'))
    with pytest.raises(options.Mistake, match="are not of one run"):
        ask(photos)
    (run / "results.json").write_text(
        results.replace('"preparation": "digit"', '"preparation": "poster"')
    )
    with pytest.raises(options.Mistake, match="how to prepare images for its input"):
        ask(photos)
    (run / "results.json").write_text(results[:20])
    with pytest.raises(options.Mistake, match=r"results\.json cannot be read"):
        ask(photos)


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ([], "the following arguments are required: IMAGE"),
        (["a.png", "--jsn"], "unknown option --jsn; did you mean --json?"),
        (["a.png", "--run", "gone"], "argument --run: there is no folder 'gone'"),
    ],
)
def test_a_mistake_is_answered_in_one_line(lesson, arguments, answer):
    done = lesson("predict.py", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"predict.py: error: {answer}\n"


def test_without_a_run_one_line_says_what_makes_one(lesson, tmp_path):
    done = lesson("-X", "importtime", "predict.py", "a.png", "--run", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("predict.py: error: no finished run in ")
    assert "| tensorflow" not in done.stderr


def test_what_a_gpu_saved_in_16_bits_is_loaded_in_32_on_a_cpu(tmp_path):
    layers = [keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]
    layers.append(keras.layers.Dense(3, activation="softmax", dtype="float32"))
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        layers[1] = keras.layers.Conv2D(2, 3)
        model = keras.Sequential(layers)
    finally:
        keras.config.set_dtype_policy(before)
    assert model.layers[0].compute_dtype == "float16"
    model.save(tmp_path / "model.keras")
    loaded = predict.load_model(tmp_path / "model.keras")
    assert {layer.compute_dtype for layer in loaded.layers} == {"float32"}
    x = np.random.default_rng(0).random((5, 8, 8, 1), np.float32)
    np.testing.assert_allclose(loaded(x), model(x), atol=5e-3)


def test_a_name_that_is_taken_gets_a_number(tmp_path):
    path = tmp_path / "predicted.png"
    for name in ["predicted.png", "predicted-2.png", "predicted-3.png"]:
        found = predict.unused(path)
        assert found.name == name
        found.touch()
