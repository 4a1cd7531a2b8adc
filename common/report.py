"""The figures and plots of a run -> one page, read in a browser without a network."""

import base64
from pathlib import Path

import jinja2

# In the order of the page: what the plot shows, and what to look for. Others come last.
_PLOTS = {
    "curves": (
        "Learning curves",
        "Training dashed, validation solid. The model overfits where the validation loss rises "
        "while the training loss falls.",
    ),
    "confusion_matrix": (
        "Confusion matrix",
        "Row: true class; column: predicted class. Off the diagonal, in red, the errors.",
    ),
    "mistakes": ("The most confident errors", ""),
    "predictions": ("Predictions", "Correct in blue, misclassified in red."),
    "classes": ("Images of each class", ""),
    "examples": ("Training images", ""),
    "augmented": ("Augmented training images", "Each should still be of its class."),
    "pixels": ("One image, and the scale of its values", ""),
}


def write(path, record, *, about, command, note=""):
    """Write the page of a run.

    Args:
        path: Of the HTML file; the PNG files of its folder are put inside it.
        record: What `results.json` holds.
        about: The lesson's title and its question, both may be empty.
        command: The one that made the run.
        note: What the plots say of their data, where they are a sample.
    """
    path = Path(path)
    drawn = {file.stem: file for file in path.parent.glob("*.png")}
    own = [name for name in drawn if name not in _PLOTS and not name.startswith("predicted-")]
    plots = []
    for name in [*(name for name in _PLOTS if name in drawn), *sorted(own)]:
        heading, text = _PLOTS.get(name, (name, ""))
        encoded = base64.b64encode(drawn[name].read_bytes()).decode("ascii")
        plots.append((heading, drawn[name].name, encoded, text))
    networks = [("model", record)]
    if baseline := record.get("baseline"):
        networks = [("plain model", baseline), ("final model", record)]
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
        plots=plots,
        percent=_percent,
    )
    path.write_text(page, encoding="utf-8", errors="backslashreplace")


def _rows(record, networks):
    """The table of figures: a label, and a text for each model."""
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
    further = record.get("further_tests", {})  # of the final model alone
    before = [""] * (len(networks) - 1)
    rows[2:2] = [(f"accuracy, {k}", [*before, _percent(further[k]["accuracy"])]) for k in further]
    return rows


def _percent(share):
    return f"{share:.2%}"


def _duration(seconds):
    if seconds is None:
        return "not known: the run was resumed after it"
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
