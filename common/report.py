"""Figures in words; figures and plots of a run -> one page, read without a network."""

import base64
import json
from pathlib import Path

import jinja2
import numpy as np
from scipy.stats import binomtest

PARTS = "train", "validation", "test"
ENOUGH = 500  # images, from which on an accuracy stands without its interval


def interval(accuracy, count):
    """The 95% interval of an accuracy that was measured on `count` images (Wilson, 1927).

    Args:
        accuracy: 0 to 1.
        count: One or more. The images are taken as independent of each other.

    Returns:
        Its lower and its upper end, 0 to 1.
    """
    return tuple(binomtest(round(accuracy * count), count).proportion_ci(method="wilson"))


def accuracy(share, count):
    """An accuracy in words; of few images with their number and its 95% interval.

    Args:
        share: 0 to 1.
        count: Of the images that it was measured on.
    """
    if count >= ENOUGH:
        return f"{share:.2%}"
    low, high = interval(share, count)
    return f"{share:.1%} ({count} images; 95% interval: {low:.0%} to {high:.0%})"


def write(folder, record, *, about, command, note="", network=None):
    """Write the page of a run.

    Args:
        folder: Of the run, a `Path`; its PNG files are put inside `report.html`.
        record: What `results.json` holds.
        about: The lesson's title and its question, both may be empty.
        command: The one that made the run.
        note: What the plots say of their data, where they are a sample.
        network: For a canvas to draw on, what `network` returned: JSON; "": it could not be made;
            None: none is wanted.
    """
    plots = {}
    for path in sorted(folder.glob("*.png")):
        if not path.name.startswith("predicted-"):
            plots[path.stem] = base64.b64encode(path.read_bytes()).decode("ascii")
    models = record["models"]
    networks = [(name, models[name]) for name in dict.fromkeys([*models][:1] + [*models][-1:])]
    data = record["data"]
    ends = [interval(own["test"]["accuracy"], data["test"]) for _, own in networks]
    shared = {
        "networks": networks,
        "overlap": max(low for low, _ in ends) <= min(high for _, high in ends),
        "more": [p for p in data if p not in PARTS and any(p in own for _, own in networks)],
    }
    here = Path(__file__).parent
    script = (here / "draw.js").read_text(encoding="utf-8") if network else ""
    loader = jinja2.FileSystemLoader(here)
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True)
    title, question = about
    title = title or f"{record['lesson']}, {record['model']}"
    texts = {"title": title, "question": question, "command": command, "note": note}
    environment.filters["accuracy"] = accuracy
    template = environment.get_template("report.html")
    drawing = {"network": network, "script_of_canvas": script}
    page = template.render(record, **texts, **drawing, **shared, plots=plots)
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")


def network(model):
    """The layers and weights of a trained Keras model, in JSON, for `draw.js`.

    Returns:
        A text; "" where the model does not take one gray image of 28x28 pixels, or has a layer
        that `draw.js` does not know, or an option of one.
    """
    if model.input_shape[1:] != (28, 28, 1):
        return ""
    layers = []
    for layer in model.layers:
        kind, config = type(layer).__name__, layer.get_config()
        options = {key: config.get(key) for key in ("strides", "padding", "dilation_rate")}
        weighed = {"relu": config.get("activation") == "relu"}
        if kind in ("Conv2D", "Dense") and config["use_bias"]:
            weights, bias = layer.get_weights()
            weighed |= {"shape": weights.shape, "weights": _encode(weights), "bias": _encode(bias)}
        plain = options == {"strides": (1, 1), "padding": "valid", "dilation_rate": (1, 1)}
        if kind == "Rescaling":
            layers.append(
                {"kind": "rescaling", "scale": config["scale"], "offset": config["offset"]}
            )
        elif kind == "Conv2D" and plain and config["groups"] == 1 and "bias" in weighed:
            layers.append({"kind": "convolution", **weighed})
        elif kind == "Dense" and "bias" in weighed:
            layers.append({"kind": "dense", **weighed})
        elif kind == "MaxPooling2D" and config["pool_size"] == config["strides"] == (2, 2):
            layers.append({"kind": "pooling"})
        elif kind in ("Flatten", "Softmax"):
            layers.append({"kind": kind.lower()})
        elif kind not in ("Dropout", "InputLayer"):  # which do nothing outside of training
            return ""
        if config.get("activation") not in (None, "relu", "linear"):
            return ""
    return json.dumps({"shape": model.input_shape[1:], "layers": layers})


def _encode(array):
    """Numbers in 16 bits, little-endian, in base64."""
    return base64.b64encode(np.asarray(array, "<f2").tobytes()).decode("ascii")
