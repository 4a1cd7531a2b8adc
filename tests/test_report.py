"""`report.html`: the page of a run, by itself and in a browser."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from conftest import REPO
from PIL import Image

from common import report

RUN = REPO / "outputs" / "reference" / "simpsons-cnn" / "five-seed-0"
ABOUT = ("A title <of its own>", "What is asked & answered?")


@pytest.fixture
def page(tmp_path):
    """The page of a run that the repository keeps, whose class names are not harmless."""
    record = json.loads((RUN / "results.json").read_text(encoding="utf-8"))
    figures = record["per_class"].pop("bart_simpson")
    record["per_class"]["<script>alert('Größe')</script>"] = figures
    for picture in RUN.glob("*.png"):
        shutil.copy(picture, tmp_path)
    wide = np.zeros((50, 1200, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "mistakes.png")
    Image.fromarray(wide).save(tmp_path / "predicted-20260101-120000.png")  # of predict.py: later
    report.write(tmp_path / "report.html", record, about=ABOUT, command="python a.py --x 'y z'")
    return tmp_path / "report.html", record


def test_the_page_has_the_question_the_figures_and_the_command(page):
    text = page[0].read_text(encoding="utf-8")
    assert "A title &lt;of its own&gt;" in text
    assert "What is asked &amp; answered?" in text
    assert "python a.py --x &#39;y z&#39;" in text
    test = page[1]["test"]
    assert f"<strong>{test['accuracy']:.2%}</strong>" in text
    assert f"<strong>{test['macro_f1']:.3f}</strong>" in text
    assert f"{page[1]['baseline']['test']['accuracy']:.2%}" in text
    assert f"{page[1]['further_tests']['published test']['accuracy']:.2%}" in text
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#39;Größe&#39;)" in text


def test_the_page_has_its_pictures_inside_and_asks_for_nothing(page):
    text = page[0].read_text(encoding="utf-8")
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]+)" alt="([^"]+)">', text)
    names = [alt.split(": ")[1] for _, alt in pictures]
    assert names == ["curves.png", "confusion_matrix.png", "mistakes.png"]
    for (encoded, _), name in zip(pictures, names, strict=True):
        assert base64.b64decode(encoded) == (page[0].parent / name).read_bytes()
    outside = re.findall(r"""(?:src|href)=["'](?!data:)|url\(|@import|https?://""", text)
    assert outside == []


CHECK = """<script>
const pictures = [...document.images];
document.body.dataset.found = JSON.stringify({
  whole: pictures.filter(p => p.complete && p.naturalWidth > 0).length,
  shown: pictures.filter(p => p.getBoundingClientRect().width >= 300).length,
  sideways: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  smallest: Math.min(...[...document.querySelectorAll("p, td, th, pre, figcaption")].map(
    e => parseFloat(getComputedStyle(e).fontSize))),
});
</script></body>"""


@pytest.mark.parametrize("width", [500, 1200])  # a headless chromium is not narrower than 500
def test_a_browser_shows_the_page(page, width):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("there is no chromium here (apt-get install chromium)")
    checked = page[0].with_name("checked.html")
    checked.write_text(page[0].read_text(encoding="utf-8").replace("</body>", CHECK))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900"]
    command += [f"--user-data-dir={page[0].parent / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [*command, "--dump-dom", checked.as_uri()], capture_output=True, text=True, timeout=120
    )
    found = re.search(r'data-found="([^"]+)"', done.stdout)
    assert found, done.stderr
    found = json.loads(found[1].replace("&quot;", '"'))
    assert (found["whole"], found["shown"]) == (3, 3)
    assert found["sideways"] == 0
    assert found["smallest"] >= 14
