"""The lessons, run as their readers run them: each once, and all that wants a finished run."""

import ast
import csv
import html
import json
import re
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import REPO
from lessons import LESSONS, sample_test_files, sample_test_set

import predict
from common import options, plots, report


@pytest.fixture(scope="module", params=LESSONS, ids=lambda case: case.name)
def case(request):
    return request.param


@pytest.fixture(scope="module")
def sample_run(case, finished):
    return finished(case)


@pytest.fixture(scope="module")
def results(sample_run):
    return json.loads((sample_run.folder / "results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def model(sample_run):
    return keras.saving.load_model(sample_run.folder / "model.keras")


@pytest.fixture(scope="module")
def test_set(case, sample_run):
    """Images and labels of the lesson's test set."""
    return sample_test_set(case)


def test_without_network_it_ends_well_and_says_what_it_used(case, sample_run):
    folder = sample_run.folder
    assert sample_run.stderr == ""
    assert {path.name for path in folder.iterdir()} == case.files
    lines = sample_run.stdout.splitlines()
    assert lines[0].startswith("Device: ")
    assert lines[-1] == f"Run folder: {folder}"
    assert case.notice in sample_run.stdout
    for name in case.trainings:
        left = {path.name for path in (folder / name).iterdir()}
        assert left - {"trained.keras"} == {"best.keras", "history.csv"}


def test_it_reaches_what_it_reached_with_other_seeds(case, results):
    assert results["test"]["accuracy"] >= case.floor


def test_results_have_the_figures_of_every_training(case, sample_run, results):
    assert list(results["models"]) == list(case.reported)
    assert tuple(results["data"][part] for part in ("train", "validation", "test")) == case.counts
    assert results["data"]["source"] == "sample"
    for name, figures in results["models"].items():
        with open(sample_run.folder / name / "history.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [int(row["epoch"]) for row in rows] == list(range(figures["epochs"]))
        losses = [float(row["val_loss"]) for row in rows]
        assert figures["best_epoch"] == np.argmin(losses) + 1
        assert figures["fit_seconds"] > 0
    for part in ("train", "validation", "test"):
        assert results[part] == figures[part]  # the last model's, once more at the top


def test_the_best_epoch_is_evaluated(case, sample_run, results):
    """Its weights, in 32 bits what was trained in 16."""
    history = sample_run.folder / case.trainings[-1] / "history.csv"
    with open(history, newline="") as file:
        best = min(csv.DictReader(file), key=lambda row: float(row["val_loss"]))
    accuracy = results["validation"]["accuracy"]
    near = 6.4 / results["data"]["validation"]  # what has learned little yet is often undecided
    assert accuracy == pytest.approx(float(best["val_accuracy"]), abs=near)


def test_the_saved_model_takes_bytes_and_predicts_what_was_reported(model, results, test_set):
    x_test, y_test = test_set
    probabilities = model.predict(x_test, batch_size=200, verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    accuracy = (probabilities.argmax(axis=1) == y_test).mean()
    assert accuracy == pytest.approx(results["test"]["accuracy"], abs=3.1 / len(y_test))
    if "calibration_error" in results["test"]:
        confidences, accuracies, counts = plots.calibration(y_test, probabilities)
        error = np.average(np.abs(accuracies - confidences), weights=counts)
        assert results["test"]["calibration_error"] == pytest.approx(error, abs=0.02)


def test_one_macro_f1(sample_run, results):
    f1 = [figures["f1"] for figures in results["per_class"].values()]
    assert results["test"]["macro_f1"] == pytest.approx(np.mean(f1), abs=1e-5)
    (line,) = re.findall(r"macro avg +\S+ +\S+ +(\S+)", sample_run.stdout)
    assert float(line) == pytest.approx(results["test"]["macro_f1"], abs=0.006)


def test_predict_says_of_files_what_the_model_says_of_arrays(
    case, sample_run, results, model, test_set, tmp_path, monkeypatch, capsys
):
    if case.name == "simpsons":
        files = [str(path) for path in sample_test_files().paths[:5]]
    else:
        files = [str(tmp_path / f"{i}.png") for i in range(5)]
        for file, image in zip(files, test_set[0], strict=False):
            keras.utils.save_img(file, image, scale=False)
    monkeypatch.setattr(options, "explain_errors", lambda: None)
    monkeypatch.setattr(
        sys, "argv", ["predict.py", "--json", "--run", str(sample_run.folder), *files]
    )
    capsys.readouterr()
    assert predict.main() == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for line, row in zip(lines, model.predict(test_set[0][:5], verbose=0), strict=True):
        asked = [line["probabilities"][name] for name in results["data"]["classes"]]
        np.testing.assert_allclose(asked, row, atol=1e-4)


def test_no_plot_is_blank(case, sample_run):
    import matplotlib.pyplot as plt

    for name in [name for name in case.files if name.endswith(".png")]:
        plot = plt.imread(sample_run.folder / name)[..., :3]
        assert plot.shape[1] == 1200, name
        assert (plot.min(axis=-1) < 0.9).mean() > 0.01, name


def test_the_page_of_the_run_asks_its_question_and_holds_its_plots(case, sample_run, results):
    page = (sample_run.folder / "report.html").read_text(encoding="utf-8")
    text = " ".join(html.unescape(page).split())
    docstring = ast.get_docstring(ast.parse((REPO / case.script).read_text(encoding="utf-8")))
    assert " ".join(docstring.split("\n\n")[1].split()) in text
    accuracy = report.accuracy(results["test"]["accuracy"], results["data"]["test"])
    assert f"<strong>{accuracy}</strong>" in text
    measured = any("calibration_error" in own["test"] for own in results["models"].values())
    assert ("expected calibration error" in text) == measured
    assert page.count("<img ") == len([name for name in case.files if name.endswith(".png")])
    assert f"<pre>python {case.script}" in text


def test_the_mistakes_are_listed_the_most_confident_first(case, sample_run, results, test_set):
    with open(sample_run.folder / "mistakes.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    x_test, y_test = test_set
    names = results["data"]["classes"]
    if case.name == "simpsons":
        files = [str(path) for path in sample_test_files().paths]
        for row in rows:
            row["index"] = files.index(row["file"])
    assert [row["true"] for row in rows] == [names[y_test[int(row["index"])]] for row in rows]
    assert all(row["true"] != row["predicted"] for row in rows)
    assert 1 - len(rows) / len(x_test) == pytest.approx(results["test"]["accuracy"], abs=1e-6)
    confidence = [float(row["probability"]) for row in rows]
    assert confidence == sorted(confidence, reverse=True)


def test_the_labels_to_doubt_are_those_of_the_lowest_probability(finished):
    folder = finished(LESSONS[-1]).folder
    with open(folder / "doubtful.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 85 + 84
    values = [float(row["probability"]) for row in rows]
    assert values == sorted(values)
    model = keras.saving.load_model(folder / "model.keras")
    names = json.loads((folder / "results.json").read_text(encoding="utf-8"))["data"]["classes"]
    for row in [*rows[:3], *rows[-3:]]:
        assert Path(row["file"]).parent.name == row["label"]
        image, _ = predict.prepare(Path(row["file"]), (64, 64, 3), "folder")
        probabilities = model.predict(image[np.newaxis], verbose=0)[0]
        of_label = probabilities[names.index(row["label"])]
        assert float(row["probability"]) == pytest.approx(of_label, abs=0.01)
        assert row["predicted"] == names[probabilities.argmax()]


def test_trainings_of_one_lesson_see_the_images_in_the_same_order(finished):
    """Early stopping does nothing in three epochs: it has to give the plain network's figures."""
    folder = finished(LESSONS[1]).folder
    plain, stopped = (folder / name / "history.csv" for name in ("plain", "early-stopping"))
    with open(plain) as one, open(stopped) as other:
        for row, same in zip(csv.DictReader(one), csv.DictReader(other), strict=True):
            assert float(row["loss"]) == pytest.approx(float(same["loss"]), rel=1e-4)


@pytest.mark.slow
def test_the_model_gives_the_same_probabilities_elsewhere(model, test_set, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    images = test_set[0][:50]
    expected = model.predict(images, verbose=0)
    model.export(tmp_path / "saved_model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "saved_model"))
    found = loaded.serve(images.astype("float32")).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-4)
    model.export(tmp_path / "model.onnx", format="onnx", verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: images.astype("float32")})
    np.testing.assert_allclose(found, expected, atol=1e-4)
