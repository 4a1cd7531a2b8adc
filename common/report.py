"""Figures and pictures of a run -> one page that is read in a browser, without a network."""

import base64
from pathlib import Path

import jinja2

# In the order of the page: what the picture shows, and what to look for. Others come last.
_PICTURES = {
    "curves": (
        "Learning curves",
        "Training dashed, validation solid, the best epoch marked. Where the two part, the "
        "network learns its training pictures by heart.",
    ),
    "confusion_matrix": (
        "Which class is taken for which",
        "Row: what a picture is; column: what the network takes it for.",
    ),
    "mistakes": ("Mistakes", "Those that the network was surest of."),
    "predictions": ("Predictions", "Right in blue, wrong in red."),
    "classes": ("Pictures of each class", ""),
    "examples": ("Training pictures", ""),
    "augmented": ("Training pictures, distorted", "Each should still be of its class."),
    "pixels": ("One picture, and the scale of its values", ""),
}


def write(path, record, *, about, command, note=""):
    """Write the page of a run.

    Args:
        path: Of the HTML file; the PNG files of its folder are put inside it.
        record: What `results.json` holds.
        about: The lesson's title and its question, both may be empty.
        command: The one that made the run.
        note: What the pictures say of their data, if they are not the real ones.
    """
    path = Path(path)
    drawn = {file.stem: file for file in path.parent.glob("*.png")}
    own = [name for name in drawn if name not in _PICTURES and not name.startswith("predicted-")]
    pictures = []
    for name in [*(name for name in _PICTURES if name in drawn), *sorted(own)]:
        heading, text = _PICTURES.get(name, (name, ""))
        encoded = base64.b64encode(drawn[name].read_bytes()).decode("ascii")
        pictures.append((heading, drawn[name].name, encoded, text))
    networks = [("the network", record)]
    if baseline := record.get("baseline"):
        networks = [("plain network", baseline), ("second network", record)]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    title, question = about
    page = environment.get_template("report.html").render(
        record,
        title=title or f"{record['lesson']}, {record['model']}",
        question=question,
        command=command,
        note=note,
        networks=networks,
        baseline=baseline,
        rows=_rows(record, [figures for _, figures in networks]),
        pictures=pictures,
        percent=_percent,
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _rows(record, networks):
    """The table of figures: a label, and a text for each network."""
    rows = [
        ("test accuracy", [_percent(n["test"]["accuracy"]) for n in networks]),
        ("test macro F1", [f"{n['test']['macro_f1']:.3f}" for n in networks]),
        ("training accuracy", [_percent(n["train"]["accuracy"]) for n in networks]),
        ("validation accuracy", [_percent(n["validation"]["accuracy"]) for n in networks]),
        (
            "gap between training and test",
            [
                f"{round(100 * (n['train']['accuracy'] - n['test']['accuracy']), 1) + 0.0} points"
                for n in networks
            ],
        ),
        ("parameters", [f"{n['parameters']:,}" for n in networks]),
        ("epochs", [f"{n['epochs']}, the best {n['best_epoch']}" for n in networks]),
        ("training time", [_duration(n["fit_seconds"]) for n in networks]),
    ]
    further = record.get("further_tests", {})  # of the second network alone
    before = [""] * (len(networks) - 1)
    rows[2:2] = [(f"accuracy, {k}", [*before, _percent(further[k]["accuracy"])]) for k in further]
    return rows


def _percent(share):
    return f"{share:.2%}"


def _duration(seconds):
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
