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
    "reliability": (
        "How far to trust a probability",
        "Below the line: overconfident; above: underconfident. Hollow: fewer than 30 images.",
    ),
    "activation_maps": (
        "Activation maps",
        "Bright: where the image supports the predicted class.",
    ),
    "filters": ("The filters of the first layer", "Dark: positive weights; light: negative ones."),
    "feature_maps": ("Feature maps", "Dark: where a filter responds."),
    "remedies": ("Remedies against overfitting", ""),
    "near_duplicates": ("Near-duplicates", "Test images above, training images below."),
    "classes": ("Images of each class", ""),
    "examples": ("Training images", ""),
    "augmented": ("Augmented training images", "Each should still be of its class."),
    "pixels": ("One image, and the scale of its pixels", ""),
}


def write(folder, record, *, about, command, note=""):
    """Write the page of a run.

    Args:
        folder: Of the run, a `Path`; its PNG files are put inside `report.html`.
        record: What `results.json` holds.
        about: The lesson's title and its question, both may be empty.
        command: The one that made the run.
        note: What the plots say of their data, where they are a sample.
    """
    drawn = {file.stem: file for file in folder.glob("*.png")}
    own = [name for name in drawn if name not in _PLOTS and not name.startswith("predicted-")]
    plots = []
    for name in [*(name for name in _PLOTS if name in drawn), *sorted(own)]:
        heading, text = _PLOTS.get(name, (name, ""))
        encoded = base64.b64encode(drawn[name].read_bytes()).decode("ascii")
        plots.append((heading, drawn[name].name, encoded, text))
    networks = [("model", record)]
    if baseline := record.get("baseline"):
        networks = [("plain model", baseline), ("final model", record)]
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    title, question = about
    title = title or f"{record['lesson']}, {record['model']}"
    texts = {"title": title, "question": question, "command": command, "note": note}
    template = environment.get_template("report.html")
    page = template.render(record, **texts, networks=networks, plots=plots)
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
