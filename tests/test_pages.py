"""The rendered lessons: that one can be made, and that those that are kept are up to date."""

import json
import shutil
import sys

import chromium
import pytest
from conftest import REPO
from markdown_it import MarkdownIt

sys.path.insert(0, str(REPO / "docs"))
import render


@pytest.mark.slow
def test_a_page_is_made_and_its_prose_is_taken_over_again(lesson, tmp_path):
    command = ["docs/render.py", "1-digits", "--sample", "--epochs", 1, "--output-dir", tmp_path]
    done = lesson(*command)
    assert done.returncode == 0, done.stderr
    path, place = tmp_path / "1-digits.md", tmp_path / "1-digits"
    page = path.read_text(encoding="utf-8")
    assert page.startswith("# Recognize handwritten digits")
    assert "`python train_mnist.py`" in page
    assert "model = keras.Sequential(" in page
    assert "ms/step" in page
    plots = [line.split("(")[1].rstrip(")") for line in page.splitlines() if line.startswith("![")]
    assert len(plots) >= 8
    assert all((tmp_path / plot).stat().st_size > 1000 for plot in plots)
    assert str(REPO) not in page
    path.unlink()
    done = lesson("docs/render.py", "1-digits", "--prose", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert path.read_text(encoding="utf-8") == page

    stored = place / "outputs.json"
    changed = json.loads(stored.read_text(encoding="utf-8"))
    changed["cells"][2]["code"] += "\nprint()"
    stored.write_text(json.dumps(changed), encoding="utf-8")
    for _ in range(2):  # it says so once, and is otherwise as it was
        path.write_text(render.page("1-digits", place), encoding="utf-8")
    first, rest = path.read_text(encoding="utf-8").split("\n\n", 1)
    assert "older version" in first
    assert rest == page


def test_answers_are_folded_and_links_lead_from_the_folder_of_the_pages():
    text = (
        "**Why?** See [this](docs/a.md) and [that](https://b.org).\n\n*Answer:* So\nit is.\n\nOn."
    )
    page = render.prose(text)
    assert "[this](../../docs/a.md) and [that](https://b.org)" in page
    answer = "<details>\n<summary>Answer</summary>\n\nSo\nit is.\n\n</details>\n\nOn."
    assert page.endswith(answer)


@pytest.mark.parametrize("name", render.LESSONS)
def test_a_page_that_is_kept_is_of_today_or_says_that_it_is_not(name):
    path, place = render.PAGES / f"{name}.md", render.PAGES / name
    page = path.read_text(encoding="utf-8")
    assert page == render.page(name, place)
    stored = json.loads((place / "outputs.json").read_text(encoding="utf-8"))
    code = [
        source for kind, source in render.cells(render.LESSONS[name].split()[0]) if kind == "code"
    ]
    of_today = code == [cell["code"] for cell in stored["cells"]]
    assert of_today != ("older version" in page.splitlines()[0])
    assert sum(file.stat().st_size for file in [path, *place.iterdir()]) < 1_500_000


@pytest.mark.skipif(not chromium.BROWSER, reason="no Chromium")
@pytest.mark.parametrize("name", render.LESSONS)
def test_a_browser_shows_all_plots_of_a_page(name, tmp_path):
    path, place = render.PAGES / f"{name}.md", render.PAGES / name
    shutil.copytree(place, tmp_path / "docs" / "lessons" / name)
    shutil.copytree(REPO / "outputs" / "reference" / "ideas", tmp_path / "outputs/reference/ideas")
    view = tmp_path / "docs" / "lessons" / "view.html"
    text = MarkdownIt().render(path.read_text(encoding="utf-8"))
    view.write_text(f"<meta charset='utf-8'>{text}", encoding="utf-8")
    with chromium.Page(view, tmp_path / "profile") as page:
        found = page.run(
            "[...document.images].map((plot) => [plot.naturalWidth, plot.alt, plot.src])"
        )
    assert min(width for width, *_ in found) >= 500
    drawn = [alt for _, alt, file in found if file.endswith(".webp")]  # by the run itself
    assert len(drawn) == len(list(place.glob("*.webp"))) >= 7
    assert all(alt.endswith(".png") for alt in drawn)  # the file that the prose speaks of
    assert len(set(drawn)) == len(drawn)
