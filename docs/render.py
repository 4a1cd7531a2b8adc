"""Render the lessons as pages that show prose, code, console and plots together.

    python docs/render.py 1-digits              # run the lesson as a notebook; write its page
    python docs/render.py                       # all four: about an hour on two CPU cores
    python docs/render.py 1-digits --epochs 1 --sample --output-dir DIR   # does it work?
    python docs/render.py --prose               # today's prose into the pages; runs nothing

A page is `lessons/<page>.md`, with its plots in a folder of this name beside it. What the code
printed and drew is kept there, too, in `outputs.json`, with the code. `--prose` puts it together
with the script's text anew. Where the script's code has changed, the page stays as it is until the
lesson runs again, but for its first line, which says so.

A paragraph of the script that begins with `*Answer:*` is folded on the page. Links in the script
are relative to its own folder.

Needs `pip install -r requirements-dev.txt`. The Simpsons are rendered on the drawings, since frames
of the films may not be shown.
"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jupytext
from nbclient import NotebookClient
from PIL import Image

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from common import options

LESSONS = {
    "1-digits": "train_mnist.py",
    "2-clothes": "train_fashion.py",
    "3-photographs": "train_cifar10.py --model deep",
    "4-images-of-your-own": "train_simpsons.py --sample",
}
PAGES = HOME / "docs" / "lessons"
STALE = "*Rendered from an older version of the lesson*"
ABOUT = """\
This page is [`{script}`](../../{script}) with what it prints and draws: `{command}`, run as a
notebook on {date}. The figures in output and plots are those of {whose}. Each plot has the name of
its file below it; the other files of the run are not kept. [`common/`](../../common) holds
helpers that a reader can skip, and the [README](../../README.md) tells how to begin."""


def main():
    parser = options.Parser(__doc__)
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help=", ".join(LESSONS))
    parser.add_argument("--prose", action="store_true", help="run nothing; take over the prose")
    parser.add_argument("--epochs", type=int, help="default: the lesson's")
    parser.add_argument("--sample", action="store_true", help="on the small sample")
    parser.add_argument("--output-dir", type=Path, default=PAGES)
    args = parser.parse_args()
    if unknown := [name for name in args.lessons if name not in LESSONS]:
        parser.error(f"unknown lesson {unknown[0]}; known are {', '.join(LESSONS)}")
    for name in args.lessons or LESSONS:
        place = args.output_dir / name
        if not args.prose:
            run(name, place, args)
        path = args.output_dir / f"{name}.md"
        path.write_text(page(name, place), encoding="utf-8")
        print(f"Page: {path}")


def cells(script):
    """The cells of a script: pairs of "markdown" or "code", and the text."""
    notebook = jupytext.read(HOME / script)
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def run(name, place, args):
    """Run a lesson as a notebook; write its plots and `outputs.json` into `place`."""
    script, *choices = LESSONS[name].split()
    notebook = jupytext.read(HOME / script)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    shown = [cell.source for cell in code]
    first = code[0]
    if "deep" in choices:  # in a notebook, options take their defaults: the first model
        first.source = first.source.replace('["plain", "deep"', '["deep", "plain"', 1)
    changes = "from pathlib import Path\nargs.output_dir = Path(OUTPUT_DIR)\n"
    changes += "args.sample = True\n" * ("--sample" in choices or args.sample)
    changes += f"args.epochs = {args.epochs}\n" * bool(args.epochs)
    first.source = first.source.replace(
        "\nfrom common import devices", f"\n{changes}from common import devices", 1
    )
    for cell in code:  # a line per epoch, not a bar
        cell.source = cell.source.replace("plots.set_up(", "run.verbose = 2\nplots.set_up(", 1)
    started = time.strftime("%Y-%m-%d")
    with tempfile.TemporaryDirectory() as folder:  # of the run, which is not kept
        first.source = first.source.replace("OUTPUT_DIR", repr(folder))
        where = {"metadata": {"path": HOME}}
        NotebookClient(notebook, timeout=None, kernel_name="python3", resources=where).execute()

    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    outputs, count = [], 0
    for cell, source in zip(code, shown, strict=True):
        results, text = [], ""
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                count += 1
                plot = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
                plot.save(place / f"{count}.webp", quality=90)  # a fifth of the size
                results += [{"text": clean(text, folder)}, {"plot": f"{count}.webp"}]
                text = ""
            elif output.get("name") != "stderr":  # printed, or shown as Keras's summary of a model
                text += output.get("text", "") + data.get("text/plain", "")
        results.append({"text": clean(text, folder)})
        outputs.append({"code": source, "results": results})
    command = " ".join(["python", script, *choices])
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=HOME, capture_output=True, text=True
    ).stdout.strip()
    record = {"command": command, "date": started, "commit": commit, "cells": outputs}
    text = json.dumps(record, indent=1)
    (place / "outputs.json").write_text(text + "\n", encoding="utf-8")


def clean(text, folder):
    """What a lesson printed, without colors and without this machine's folders."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    return text.replace(folder, "outputs").replace(f"{HOME}/", "").rstrip()


def page(name, place):
    """The text of a page: the script's cells, with what `outputs.json` has of each.

    Where the script's code is not that which was run: the page as it is, with a line that says so.
    """
    script = LESSONS[name].split()[0]
    if not (place / "outputs.json").exists():
        raise options.Mistake(f"{name} has no page yet; run it: python docs/render.py {name}")
    stored = json.loads((place / "outputs.json").read_text(encoding="utf-8"))
    code = [source for kind, source in cells(script) if kind == "code"]
    if code != [cell["code"] for cell in stored["cells"]]:
        old = (place.parent / f"{name}.md").read_text(encoding="utf-8")
        old = old.split("\n\n", 1)[1] if old.startswith(STALE) else old
        today = f"today's is [`{script}`](../../{script})"
        return f"{STALE}, commit {stored['commit']} of {stored['date']}; {today}.\n\n{old}"
    remaining = iter(stored["cells"])
    whose = "this run"
    if "--sample" in stored["command"]:
        whose = "this run, **on the drawings**; those in the text are of the Simpsons"
    about = ABOUT.format(script=script, whose=whose, **stored)
    lines, heading = [], ""
    for kind, source in cells(script):
        if kind == "markdown":
            heading = next(
                (s.lstrip("# ") for s in source.splitlines() if s.startswith("#")), heading
            )
            lines += [prose(source), ""]
            if about:
                lines += [about, ""]
                about = ""
            continue
        own = next(remaining)
        lines += ["```python", source, "```", ""]
        files = iter(re.findall(r'"(\w+\.png)"', source))  # in the order in which they are drawn
        for result in own["results"]:
            if "plot" in result:
                file = next(files, heading)
                lines += [f"![{file}]({name}/{result['plot']})", "", f"*{file}*", ""]
            elif result["text"]:
                lines += fold(result["text"])
    return "\n".join(lines).rstrip() + "\n"


def prose(text):
    """A cell's Markdown for the page: answers folded, links as seen from the page's folder."""
    answer = r"^\*Answer:\* (.+?)(?=\n\n|\Z)"
    block = r"<details>\n<summary>Answer</summary>\n\n\1\n\n</details>"
    text = re.sub(answer, block, text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"\]\((?!https?:|#)", "](../../", text)


def fold(text):
    """What was printed, as Markdown; the lines of a long training can be unfolded."""
    epochs = r"(?:Epoch \d+/\d+\n\d+/\d+ - .*\n?){6,}"
    lines = []
    for part in re.split(f"({epochs})", text):
        block = ["```text", part.strip("\n"), "```", ""]
        if re.fullmatch(epochs, part):
            *_, last, figures = part.splitlines()
            figures = figures.split("/step - ")[-1]
            block = ["<details>", f"<summary>All epochs. {last}: {figures}</summary>", "", *block]
            block += ["</details>", ""]
        lines += block if part.strip() else []
    return lines


if __name__ == "__main__":
    main()
