"""`report.html`: the page of a run, by itself and in a browser."""

import base64
import json
import re

import chromium
import numpy as np
import pytest
from conftest import REPO
from markupsafe import escape
from PIL import Image

from common import report

RUN = REPO / "outputs" / "reference" / "simpsons-cnn" / "five-seed-0"
PLOTS = ["curves", "confusion_matrix", "mistakes", "my_own"]  # as the page orders them


def model(train, validation, test, seconds=35.0, **further):
    """What a record holds of a model with these accuracies."""
    parts = {"train": train, "validation": validation, "test": test} | further
    scores = {part: {"accuracy": share, "macro_f1": share} for part, share in parts.items()}
    return {"parameters": 9999, "epochs": 9, "best_epoch": 4, "fit_seconds": seconds} | scores


@pytest.fixture
def record():
    """That of a run, with two models and with names that are not harmless."""
    record = json.loads((RUN / "results.json").read_text(encoding="utf-8"))
    record["per_class"]["<script>alert('Größe')</script>"] = record["per_class"]["bart_simpson"]
    final = model(0.99, 0.98, 0.971, **{"published test": 0.96})
    record["data"]["published test"] = 1000
    return record | final | {"models": {"plain": model(0.9, 0.75, 0.7), "mo<del": final}}


@pytest.fixture
def write(tmp_path):
    """Write the page of a record, and return its text."""

    def write(record):
        about = ("A title <of its own>", "What is asked & answered?")
        report.write(tmp_path, record, about=about, command="python a.py --x 'y z'", note="A n<te")
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return write


@pytest.fixture
def page(record, write, tmp_path):
    """The page of a run, with its plots."""
    for name in [*sorted(PLOTS), "predicted-20260101-120000"]:  # the last is of predict.py
        Image.fromarray(np.zeros((50, 1200, 3), np.uint8)).save(tmp_path / f"{name}.png")
    return write(record)


def table(page, heading):
    """The cells of the table below a heading, by the first of their row."""
    rows = page.split(f">{heading}<")[1].split("</table>")[0].split("<tr>")[1:]
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    return {first: rest for first, *rest in cells}


def test_the_page_has_the_question_the_figures_and_the_command_and_escapes_them(page):
    for text in ["A title <of its own>", "asked & answered?", "A n<te", "python a.py --x 'y z'"]:
        assert escape(text) in page
    assert "<script" not in page
    assert escape("<script>alert('Größe')</script>") in table(page, "Each class")
    assert "<strong>97.10%</strong>" in page
    figures = table(page, "Figures")
    assert figures[""] == ["plain", "mo&lt;del"]
    assert figures["test accuracy"] == ["70.00%", "97.10%"]
    assert figures["accuracy, published test"] == ["", "96.00%"]
    assert "near-duplicates among" in page  # what to think of the published test set
    assert "Each model" not in page


def test_few_images_come_with_their_interval(record, write):
    """Wilson's, as R's `prop.test(7, 8, correct = FALSE)` and others give it."""
    assert report.interval(7 / 8, 8) == pytest.approx((0.5291, 0.9776), abs=1e-4)
    assert report.accuracy(7 / 8, 8) == "87.5% (8 images; 95% interval: 53% to 98%)"
    assert report.accuracy(0.97561, 615) == "97.56%"
    assert "overlap" not in write(record)
    record["data"] |= {"test": 8, "published test": 50}
    record["models"]["plain"]["test"]["accuracy"] = 5 / 8
    record["test"]["accuracy"] = 7 / 8
    page = write(record)
    assert f"<strong>{report.accuracy(7 / 8, 8)}</strong>" in page
    assert "intervals of the two models below overlap" in page
    figures = table(page, "Figures")
    assert figures["test accuracy"] == [report.accuracy(share, 8) for share in (5 / 8, 7 / 8)]
    assert figures["accuracy, published test"] == ["", report.accuracy(0.96, 50)]


def test_the_page_has_its_plots_inside_and_asks_for_nothing(page, tmp_path):
    plots = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="[^"]+: (\w+).png">', page)
    assert [name for _, name in plots] == PLOTS
    for encoded, name in plots:
        assert base64.b64decode(encoded) == (tmp_path / f"{name}.png").read_bytes()
    assert re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", page) == []


def test_one_model_has_one_column_and_each_of_three_its_gap(record, write):
    model_of_a_resumed_run = model(0.9, 0.8, 0.7, seconds=None)
    page = write(record | {"models": {"model": model_of_a_resumed_run}})
    assert table(page, "Figures")[""] == ["model"]
    assert "resumed" in table(page, "Figures")["training time"][0]
    assert "published test" not in page
    names = "plain", "drop <out>", "final"
    page = write(record | {"models": dict.fromkeys(names, model(0.9, 0.8, 0.77))})
    assert table(page, "Figures")[""] == ["plain", "final"]
    assert table(page, "Each model")["drop &lt;out&gt;"] == ["90.00%", "80.00%", "77.00%", "13.0"]


SHOWN = "[...document.images].map(i => i.naturalWidth && i.getBoundingClientRect().width)"
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
TEXTS = "[...document.querySelectorAll('p, td, th, pre, figcaption')]"
SIZES = f"{TEXTS}.map(e => parseFloat(getComputedStyle(e).fontSize))"


@pytest.mark.skipif(not chromium.BROWSER, reason="there is no Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page(page, tmp_path, width):
    path = tmp_path / "report.html"
    with chromium.Page(path, tmp_path / "profile", width, touch=width < 500) as opened:
        widths, sideways, sizes = (opened.run(script) for script in (SHOWN, SIDEWAYS, SIZES))
    assert (len(widths), min(widths) >= 300, sideways) == (len(PLOTS), True, 0)
    assert min(sizes) >= 14
