"""The rendered lessons: that one can be made, and that those that are kept are up to date."""

import json
import shutil
import sys

import chromium
import pytest
from conftest import REPO
from markdown_it import MarkdownIt

sys.path.insert(0, str(REPO / "outputs"))
import render


@pytest.mark.slow
def test_a_page_is_made_and_its_prose_is_taken_over_again(lesson, tmp_path):
    command = ["outputs/render.py", "simpsons-cnn", "--epochs", 1, "--output-dir", tmp_path]
    done = lesson(*command)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "simpsons-cnn"
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# Recognize characters in folders of images")
    assert "`python train_simpsons.py --sample`" in page
    assert "model = keras.Sequential(" in page
    assert "macro F1" in page
    assert "ms/step" in page
    plots = [line.split("(")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(plots) >= 8
    assert all((folder / plot).stat().st_size > 1000 for plot in plots)
    assert str(REPO) not in page
    (folder / "README.md").unlink()
    done = lesson("outputs/render.py", "simpsons-cnn", "--prose", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (folder / "README.md").read_text(encoding="utf-8") == page

    stored = folder / "page" / "outputs.json"
    changed = json.loads(stored.read_text(encoding="utf-8"))
    changed["cells"][2]["code"] += "\nprint()"
    stored.write_text(json.dumps(changed), encoding="utf-8")
    for _ in range(2):  # it says so once, and is otherwise as it was
        (folder / "README.md").write_text(render.page("simpsons-cnn", folder / "page"))
    first, rest = (folder / "README.md").read_text(encoding="utf-8").split("\n\n", 1)
    assert "older version" in first
    assert rest == page


@pytest.mark.parametrize("name", render.LESSONS)
def test_a_page_that_is_kept_is_of_today_or_says_that_it_is_not(name):
    folder = render.REFERENCE / name
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert page == render.page(name, folder / "page")
    stored = json.loads((folder / "page" / "outputs.json").read_text(encoding="utf-8"))
    code = [
        source for kind, source in render.cells(render.LESSONS[name].split()[0]) if kind == "code"
    ]
    of_today = code == [cell["code"] for cell in stored["cells"]]
    assert of_today != ("older version" in page.splitlines()[0])
    size = sum(path.stat().st_size for path in [folder / "README.md", *folder.glob("page/*")])
    assert size < 1_500_000


@pytest.mark.skipif(not chromium.BROWSER, reason="no Chromium")
@pytest.mark.parametrize("name", render.LESSONS)
def test_a_browser_shows_all_plots_of_a_page(name, tmp_path):
    folder = render.REFERENCE / name
    shutil.copytree(folder / "page", tmp_path / "page")
    text = (folder / "README.md").read_text(encoding="utf-8")
    view = tmp_path / "view.html"
    view.write_text(f"<meta charset='utf-8'>{MarkdownIt().render(text)}", encoding="utf-8")
    with chromium.Page(view, tmp_path / "profile") as page:
        found = page.run("[...document.images].map((plot) => [plot.naturalWidth, plot.alt])")
    assert len(found) == len(list(folder.glob("page/*.webp"))) >= 7
    assert min(width for width, _ in found) >= 500
    assert all(alt.endswith(".png") for _, alt in found)  # the file that the prose speaks of
    assert len({alt for _, alt in found}) == len(found)
