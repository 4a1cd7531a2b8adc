"""Lessons copied elsewhere, as notebooks, and on the whole data."""

import json
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import REPO, read_until, run_folder
from PIL import Image, ImageDraw
from test_lessons import ALWAYS, LESSONS, sample_test_set

# A copy, with the shelf and nothing else


@pytest.fixture
def empty_folder(offline, tmp_path):
    """Copy a lesson with the shelf into an empty folder, and return how to run things there."""

    def copy(script, name):
        shutil.copytree(REPO / "common", tmp_path / "common")
        shutil.copy(REPO / script, tmp_path / name)
        shutil.copy(REPO / "predict.py", tmp_path)

        def run(*command):
            command = [sys.executable, *map(str, command)]
            kept = {"capture_output": True, "text": True}
            return subprocess.run(command, cwd=tmp_path, env=offline, **kept)

        return run

    return copy


def test_a_copy_under_a_new_name_needs_the_shelf_alone(empty_folder, tmp_path):
    run = empty_folder("train_mnist.py", "train_letters.py")
    (tmp_path / "images").mkdir()
    shutil.copy(REPO / "data" / "sample" / "mnist.npz", tmp_path / "images")
    (image,) = sample_test_set("mnist", tmp_path)[0][:1]
    keras.utils.save_img(tmp_path / "new.png", image, scale=False)
    done = run("train_letters.py")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Name a folder that has them with --data-dir" in done.stderr
    done = run("train_letters.py", "--data-dir", "images", "--epochs", "2")
    assert (done.returncode, done.stderr) == (0, "")
    (results,) = (tmp_path / "outputs" / "letters-cnn").glob("*/results.json")
    assert json.loads(results.read_text(encoding="utf-8"))["lesson"] == "letters"
    done = run("predict.py", "--json", "new.png")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert json.loads(done.stdout)["image"] == "new.png"


def write_images(folder, count, seed):
    """Drawings of one class: ellipses or rectangles, each of its own colors and place."""
    generator = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    for i in range(count):
        image = Image.fromarray(generator.integers(0, 256, (3, 4, 3), dtype=np.uint8))
        image = image.resize((96, 80), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        left, top = generator.integers(0, 40, 2).tolist()
        shape = draw.ellipse if seed % 2 else draw.rectangle
        shape((left, top, left + 40, top + 40), fill=tuple(generator.integers(0, 256, 3).tolist()))
        image.save(folder / f"{i}.jpg")


@pytest.mark.skipif(os.name == "nt", reason="no links, pipes and devices on Windows")
def test_a_copy_serves_images_of_ones_own_also_odd_ones(empty_folder, start, tmp_path):
    """60 images in two classes, of which some cannot be read, and which are gone before the end."""
    run = empty_folder("train_simpsons.py", "train_cups.py")
    photos = tmp_path / "photos"
    names = ["cup", "glasses and other things to drink from, " + 16 * "very long "]
    for seed, name in enumerate(names):
        write_images(photos / name.strip(), 30, seed)
    os.mkfifo(photos / "cup" / "pipe.jpg")
    (photos / "cup" / "zero.jpg").symlink_to("/dev/zero")
    (photos / "cup" / "page.jpg").write_text("<html>")
    shutil.copy(photos / "cup" / "0.jpg", tmp_path / "new.jpg")

    done = run("train_cups.py")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "cups: no images there. Make a folder for each class" in done.stderr
    small = ["--epochs", "2", "--image-size", "64"]
    process = start("train_cups.py", "--images", "photos", *small, cwd=tmp_path)
    output = read_until(process, "Epoch 1/")
    photos.rename(tmp_path / "away")  # an unmounted disk
    more, errors = process.communicate(timeout=240)
    output += more
    assert (process.returncode, errors) == (0, "")
    assert "Skipped, because they cannot be read (3):" in output
    assert "simpson" not in output.lower()
    (folder,) = (tmp_path / "outputs" / "cups-cnn").iterdir()
    files = ALWAYS | {"classes.png", "history-plain.csv", "doubtful.csv", "activation_maps.png"}
    files |= {"doubtful.png", "groups.png"}
    assert {path.name for path in folder.iterdir()} == files
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert results["data"]["classes"] == [name.strip() for name in names]
    assert sum(results["data"][part] for part in ("train", "validation", "test")) == 60
    done = run("predict.py", "--json", "new.jpg")
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert json.loads(done.stdout)["image"] == "new.jpg"


# The same file as a notebook, and on the whole data


@pytest.mark.parametrize("script", sorted({lesson.script for lesson in LESSONS}))
def test_as_a_notebook_it_runs_from_top_to_bottom(offline, tmp_path, script):
    import nbclient
    import nbformat

    for name in ["common", "data/sample"]:
        shutil.copytree(REPO / name, tmp_path / name)
    shutil.copy(REPO / script, tmp_path)
    command = [sys.executable, "-m", "jupytext", "--to", "notebook", script]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    path = (tmp_path / script).with_suffix(".ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    before, after = first.source.split("\nfrom common import devices")
    small = "\nargs.image_size = 64" if script == "train_simpsons.py" else ""
    first.source = f"{before}\nargs.epochs = 1{small}\nfrom common import devices{after}"
    client = nbclient.NotebookClient(
        notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute(env=offline)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    errors = [o.text for o in outputs if o.output_type == "stream" and o.name == "stderr"]
    assert errors == []
    shown = [o for o in outputs if o.output_type == "display_data" and "image/png" in o.data]
    files = {path.name for path in run_folder(tmp_path / "outputs").iterdir()}
    assert files == next(case.files for case in LESSONS if case.script == script)
    assert len(shown) == len([name for name in files if name.endswith(".png")])


WHOLE = {  # what one epoch of the whole data gives, by the first option of the command
    "mnist.npz": (["train_mnist.py"], [54_000, 6_000, 10_000], 0.975),  # 3 seeds: 98.4 to 98.6%
    "cifar-10-batches-py": (["train_cifar10.py"], [45_000, 5_000, 10_000], 0.35),
    "simpsons5": (
        ["train_simpsons.py", "--images=data/simpsons5", "--skip-baseline", "--image-size=64"],
        [3_072, 614, 614],
        0.1,  # one epoch of it is little more than guessing
    ),
}


@pytest.mark.parametrize("place", WHOLE)
def test_one_epoch_of_the_whole_data(lesson, tmp_path, place):
    command, expected, floor = WHOLE[place]
    if not (REPO / "data" / place).exists():
        pytest.skip(f"{place} is not in data/")
    done = lesson(*command, "--epochs", 1, "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads((run_folder(tmp_path) / "results.json").read_text(encoding="utf-8"))
    counts = [results["data"][part] for part in ("train", "validation", "test")]
    assert counts == expected
    assert results["test"]["accuracy"] > floor
