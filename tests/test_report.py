"""`report.html`: the page of a run, by itself and in a browser."""

import base64
import json
import re
import shutil

import chromium
import numpy as np
import pytest
from conftest import REPO
from PIL import Image

from common import report

RUN = REPO / "outputs" / "reference" / "simpsons-cnn" / "five-seed-0"
ABOUT = ("A title <of its own>", "What is asked & answered?")


@pytest.fixture
def record():
    """What a run that the repository keeps has left, with class names that are not harmless."""
    record = json.loads((RUN / "results.json").read_text(encoding="utf-8"))
    figures = record["per_class"].pop("bart_simpson")
    record["per_class"]["<script>alert('Größe')</script>"] = figures
    return record


@pytest.fixture
def write(tmp_path):
    """Write the page of a record, and return its path."""

    def write(record):
        report.write(tmp_path, record, about=ABOUT, command="python a.py --x 'y z'")
        return tmp_path / "report.html"

    return write


@pytest.fixture
def page(record, write, tmp_path):
    """The page of a run, with its plots."""
    for plot in RUN.glob("*.png"):
        shutil.copy(plot, tmp_path)
    wide = np.zeros((50, 1200, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "mistakes.png")
    Image.fromarray(wide).save(tmp_path / "predicted-20260101-120000.png")  # of predict.py: later
    return write(record)


def test_the_page_has_the_question_the_figures_and_the_command(page, record):
    text = page.read_text(encoding="utf-8")
    assert "A title &lt;of its own&gt;" in text
    assert "What is asked &amp; answered?" in text
    assert "python a.py --x &#39;y z&#39;" in text
    test = record["test"]
    assert f"<strong>{test['accuracy']:.2%}</strong>" in text
    assert f"<strong>{test['macro_f1']:.3f}</strong>" in text
    assert f"{record['baseline']['test']['accuracy']:.2%}" in text
    assert f"{record['further_tests']['published test']['accuracy']:.2%}" in text
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;Größe&#39;)" in text


def test_the_page_has_its_plots_inside_and_asks_for_nothing(page):
    text = page.read_text(encoding="utf-8")
    plots = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', text)
    names = [alt.split(": ")[1] for _, alt in plots]
    assert names == ["curves.png", "confusion_matrix.png", "mistakes.png"]
    for (encoded, _), name in zip(plots, names, strict=True):
        assert base64.b64decode(encoded) == (page.parent / name).read_bytes()
    outside = re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", text)
    assert outside == []


def test_of_remedies_the_page_has_a_table_with_each_gap(record, write):
    assert "remedy" not in write(record).read_text(encoding="utf-8")
    plain = {"train": 0.99, "validation": 0.91, "test": 0.898}
    dropout = {"train": 0.921, "validation": 0.92, "test": 0.919}
    record["remedies"] = {
        name: {part: {"accuracy": accuracy, "loss": 1} for part, accuracy in own.items()}
        for name, own in [("plain", plain), ("drop <out>", dropout)]
    }
    table = write(record).read_text(encoding="utf-8").split("One remedy at a time")[1]
    rows = re.findall(r"<tr>(.*?)</tr>", table.split("</table>")[0], re.DOTALL)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL) for row in rows]
    assert cells[0] == ["accuracy", "training", "validation", "test", "gap, in points"]
    assert cells[1] == ["plain", "99.00%", "91.00%", "89.80%", "9.2"]
    assert cells[2] == ["drop &lt;out&gt;", "92.10%", "92.00%", "91.90%", "0.2"]


def test_a_published_test_set_is_explained_where_there_is_one(record, write):
    published = record["further_tests"].pop("published test")
    record["further_tests"]["without near-duplicates"] = published
    text = write(record).read_text(encoding="utf-8")
    assert "accuracy, without near-duplicates" in text
    assert "published test" not in text
    record["further_tests"]["published test"] = published
    text = write(record).read_text(encoding="utf-8")
    assert "The published test set is that of the data's authors" in text


def test_a_run_without_a_baseline_has_one_column(record, write):
    del record["baseline"], record["further_tests"]
    text = write(record).read_text(encoding="utf-8")
    assert '<thead><tr><th></th><th class="number">model</th></tr></thead>' in text
    assert "plain model" not in text


CHECK = """(() => {
const plots = [...document.images];
return {
  whole: plots.filter(p => p.complete && p.naturalWidth > 0).length,
  shown: plots.filter(p => p.getBoundingClientRect().width >= 300).length,
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  smallest: Math.min(...[...document.querySelectorAll("p, td, th, pre, figcaption")].map(
    e => parseFloat(getComputedStyle(e).fontSize))),
};
})()"""


@pytest.mark.skipif(not chromium.BROWSER, reason="there is no Chromium (apt-get install chromium)")
@pytest.mark.parametrize("width", [390, 1200])
def test_a_browser_shows_the_page(page, tmp_path, width):
    with chromium.Page(page, tmp_path / "profile", width, touch=width < 500) as opened:
        found = opened.run(CHECK)
    assert (found["whole"], found["shown"]) == (3, 3)
    assert found["sideways"] == 0
    assert found["smallest"] >= 14
