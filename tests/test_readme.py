"""Tables are those of the stored runs, links lead somewhere, and all stands on public names."""

import ast
import json
import re

import numpy as np
import pytest
from conftest import REPO

SCRIPTS = ["train_mnist.py", "train_fashion.py", "train_cifar10.py", "train_simpsons.py"]
README = (REPO / "README.md").read_text(encoding="utf-8")
REFERENCE = REPO / "outputs" / "reference"
# Each row of the table of results: the command, the folder of its runs, and which model.
ROWS = [
    ("python train_mnist.py", "mnist-cnn", "seed-?", None),
    ("python train_fashion.py", "fashion-mlp", "seed-?", "plain"),
    ("python train_fashion.py", "fashion-mlp", "seed-?", None),
    ("python train_cifar10.py", "cifar10-plain", "seed-?", "mlp"),
    ("python train_cifar10.py", "cifar10-plain", "seed-?", None),
    ("python train_cifar10.py --model deep", "cifar10-deep", "seed-?", None),
    ("python train_cifar10.py --model wide", "cifar10-wide", "seed-?", None),
    ("python train_simpsons.py --images five", "simpsons-cnn", "five-seed-?", "baseline"),
    ("python train_simpsons.py --images five", "simpsons-cnn", "five-seed-?", None),
]


def stored(folder, pattern="seed-?"):
    """What `results.json` of these runs holds."""
    paths = sorted((REFERENCE / folder).glob(f"{pattern}/results.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in paths]


def spread(shares):
    """A mean, and the range where there are several."""
    mean = f"{sum(shares) / len(shares):.2%}"
    if len(shares) == 1:
        return mean
    return f"{mean} ({100 * min(shares):.2f} to {100 * max(shares):.2f})"


def row(command, folder, pattern, model):
    """A line of the table, made of the results of the runs."""
    results = stored(folder, pattern)
    seeds = ", ".join(str(result["options"]["seed"]) for result in results)
    if model:  # of older lessons it is at the top
        results = [result.get("models", result)[model] for result in results]
    accuracy = spread([result["test"]["accuracy"] for result in results])
    time, seconds = "not known", [result["fit_seconds"] for result in results]
    if None not in seconds:
        unit, name, digits = (1, "s", 0) if max(seconds) < 120 else (60, "min", 1)
        low, high = (f"{pick(seconds) / unit:.{digits}f}" for pick in (min, max))
        time = f"{low} {name}" if low == high else f"{low} to {high} {name}"
    who = {"mlp": "the MLP"}.get(model, "the plain model")
    what = f", {who}" if model else ""
    link = f"[{seeds}](outputs/reference/{folder})"
    return f"| `{command}`{what} | {accuracy} | {time} | {results[0]['parameters']:,} | {link} |"


@pytest.mark.parametrize("wanted", ROWS, ids=lambda wanted: f"{wanted[0]} {wanted[3] or ''}")
def test_the_table_of_results_is_that_of_the_stored_runs(wanted):
    assert row(*wanted) in README.splitlines()


@pytest.fixture(scope="module")
def remedies():
    """Of each of Fashion-MNIST's models, with each seed: accuracies and gap in percent, loss."""
    results = [result["models"] for result in stored("fashion-mlp")]
    found = {}
    for name in results[0]:
        train, test = (
            np.array([100 * own[name][part]["accuracy"] for own in results])
            for part in ("train", "test")
        )
        losses = np.array([own[name]["test"]["loss"] for own in results])
        found[name] = train, test, train - test, losses
    return found


def test_the_table_of_remedies_is_that_of_the_stored_runs(remedies):
    lines = []
    for name, (train, test, gap, loss) in remedies.items():
        line = f"# | {name} | {train.mean():.1f}% "
        line += f"| {test.mean():.1f}% ({test.min():.1f} to {test.max():.1f}) "
        line += f"| {gap.mean():.1f} ({gap.min():.1f} to {gap.max():.1f}) "
        losses = f"{loss.mean():.3f} ({loss.min():.3f} to {loss.max():.3f})"
        losses = "see Part 4" if name == "larger" else losses  # stored is that after scaling
        lines.append(f"{line}| {losses} |")
    lesson = (REPO / "train_fashion.py").read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line not in lesson] == []


def test_what_the_lesson_says_of_the_remedies_holds_in_all_three_runs(remedies):
    _, accuracy, gap, loss = ({name: own[i] for name, own in remedies.items()} for i in range(4))
    assert len(gap["plain"]) == 3
    small = ("early-stopping", "dropout", "weight-decay", "together")
    for name in (*small, "augmentation"):
        assert (gap[name] < gap["plain"]).all()
    for name in small:
        assert (loss[name] < 0.93 * loss["plain"]).all()
        assert not (accuracy[name] > accuracy["plain"]).all()
    for name in remedies:
        assert (gap["augmentation"] <= gap[name]).all()
        assert (accuracy["augmentation"] <= accuracy[name]).all()
        assert (gap[name] <= gap["larger"]).all()
        assert (accuracy[name] <= accuracy["larger"]).all()


def test_the_calibration_errors_in_the_readme_are_those_of_the_stored_runs():
    models = [result["models"] for result in stored("fashion-mlp")]
    for name, text in [("plain", "0.039 to 0.044"), ("early-stopping", "0.014 to 0.019")]:
        errors = [own[name]["test"]["calibration_error"] for own in models]
        assert f"{min(errors):.3f} to {max(errors):.3f}" == text
        assert text in README
    assert {f"{own['larger']['test']['calibration_error']:.3f}" for own in models} == {"0.018"}
    assert "leaves 0.018 with each of the three seeds" in README


def idea_rows(file, lesson, ideas):
    """Of the table in the Simpsons lesson: macro F1 of the validation set, and its change."""
    runs = json.loads((REFERENCE / "ideas" / f"{file}.json").read_text(encoding="utf-8"))["runs"]
    values = {
        name: [own["validation"]["macro_f1"] for _, own in sorted(seeds.items())]
        for name, seeds in runs.items()
    }
    own = values["the lesson"]
    lines = [f"# | **{lesson}** | {sum(own) / len(own):.3f} | |"]
    for text, idea in ideas.items():
        assert len(values[idea]) == len(own) >= 2
        changes = [new - old for new, old in zip(values[idea], own, strict=True)]
        mean, low, high = sum(changes) / len(changes), min(changes), max(changes)
        value = sum(values[idea]) / len(own)
        mean = round(mean, 3) + 0.0  # no -0.000
        lines.append(f"# | {text} | {value:.3f} | {mean:+.3f} ({low:+.3f} to {high:+.3f}) |")
    return lines


PLAIN = {
    "with augmentation": "with-augmentation",
    "with global max pooling": "with-global-pooling",
    "with dropout": "with-dropout",
    "with weight decay": "with-weight-decay",
}
REGULARIZED = {
    "without augmentation": "without-augmentation",
    "without global max pooling": "without-global-pooling",
    "without dropout": "without-dropout",
    "without weight decay": "without-weight-decay",
    "without augmentation, dropout and weight decay": "without-these-three",
    "without class weights": "without-class-weights",
    "without identity filters": "without-identity-filters",
    "with random weights in the last layer": "without-zero-logits",
}


def test_the_table_in_the_simpsons_lesson_is_that_of_the_stored_figures():
    lesson = (REPO / "train_simpsons.py").read_text(encoding="utf-8").splitlines()
    rows = idea_rows("simpsons-plain", "The plain model", PLAIN)
    rows += idea_rows("simpsons", "The regularized model", REGULARIZED)
    assert [line for line in rows if line not in lesson] == []


DIGITS = {
    "the first model": "the-first-model",
    "augmentation alone": "only-augmentation",
    "dropout alone": "only-dropout",
    "a third convolution alone": "only-third-convolution",
    "the schedule alone": "only-schedule",
    "all four: the final model": "the lesson",
}


CLOTHES = {
    "the larger network": "the lesson",
    "without batch normalization": "without-batch-normalization",
    "without label smoothing": "without-label-smoothing",
    "its units alone, trained as the plain network": "only-capacity",
}


def worth(file, names, base):
    """A table of ideas: means over the seeds; of the gains over `base` the range, too."""
    runs = json.loads((REFERENCE / "ideas" / f"{file}.json").read_text(encoding="utf-8"))["runs"]
    figures = {name: [run["validation"] for run in seeds.values()] for name, seeds in runs.items()}
    former = np.array([own["accuracy"] for own in figures[base]])
    lines = []
    for text, idea in names.items():
        assert list(runs[idea]) == ["0", "1", "2"]
        accuracies = np.array([own["accuracy"] for own in figures[idea]])
        gains = 100 * (accuracies - former)
        gain = f"{gains.mean():+.2f} ({gains.min():+.2f} to {gains.max():+.2f})"
        loss = np.mean([own["loss"] for own in figures[idea]])
        gain = gain if gains.any() else ""
        lines.append(f"# | {text} | {accuracies.mean():.2%} | {gain} | {loss:.3f} |")
    return lines


@pytest.mark.parametrize(
    ("script", "file", "names", "base"),
    [
        ("train_mnist.py", "mnist", DIGITS, "the-first-model"),
        ("train_fashion.py", "fashion", CLOTHES, "the lesson"),
    ],
)
def test_the_table_of_ideas_in_a_lesson_is_that_of_the_stored_figures(script, file, names, base):
    lesson = (REPO / script).read_text(encoding="utf-8").splitlines()
    assert [line for line in worth(file, names, base) if line not in lesson] == []


def test_the_stored_runs_name_no_folder_of_a_machine():
    for path in REFERENCE.glob("*/*/results.json"):
        options = json.loads(path.read_text(encoding="utf-8"))["options"]
        assert (options["data_dir"], options["output_dir"]) == ("data", "outputs"), path


@pytest.fixture(scope="module")
def control():
    """Of CIFAR-10's plain networks, on original and shuffled pixels: test accuracies in percent."""
    runs = [result["models"] for result in stored("cifar10-plain")]
    assert len(runs) == 3
    names = ("mlp", "mlp-shuffled", "cnn", "cnn-shuffled")
    return {name: np.array([100 * own[name]["test"]["accuracy"] for own in runs]) for name in names}


def test_the_worth_of_a_convolution_is_that_of_the_stored_runs(control):
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8")
    for name in ("mlp", "cnn"):
        cells = [
            f"{own.mean():.1f}% ({own.min():.1f} to {own.max():.1f})"
            for own in (control[name], control[f"{name}-shuffled"])
        ]
        assert f"# | {name.upper()} | {' | '.join(cells)} |" in lesson.splitlines()
        assert cells[0] in README
    lead = control["cnn"] - control["mlp"]
    worth = f"{lead.mean():.1f} points ({lead.min():.1f} to {lead.max():.1f})"
    assert worth in lesson.replace("\n# ", " ")
    assert worth in README.replace("\n", " ")


def test_what_the_deep_cnn_reaches_is_that_of_the_stored_runs():
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8").replace("\n# ", " ")
    runs = [result["models"] for result in stored("cifar10-deep")]
    mlp, plain, deep = (
        np.array([100 * run[name]["test"]["accuracy"] for run in runs])
        for name in ("mlp", "cnn", "deep-cnn")
    )
    first, second = plain - mlp
    leads = f"had {first:.1f} and {second:.1f} points"
    first, second = (
        100 * (run["mlp-shuffled"]["test"]["accuracy"] - run["cnn-shuffled"]["test"]["accuracy"])
        for run in runs
    )
    assert f"of an AMD EPYC, {leads}, and were {first:.1f} and {second:.1f} behind" in lesson
    assert f"The deep CNN reaches {deep.mean():.1f}%" in lesson
    assert f"{deep.mean():.1f}% ({deep.min():.1f} to {deep.max():.1f}; seeds 0 and 1)" in README
    assert f"from {plain.mean():.1f}% to {deep.mean():.1f}%" in lesson
    gain = f"by {(deep - plain).mean():.0f} points, with fewer than half"
    assert gain in lesson.replace("\n#  ", "")


def test_what_more_filters_are_worth_is_that_of_the_stored_runs():
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8").replace("\n# ", " ")
    (wide,) = (run["models"]["wide-cnn"] for run in stored("cifar10-wide"))
    deep = stored("cifar10-deep")[0]["models"]["deep-cnn"]
    train, validation, test = (
        [100 * own[part]["accuracy"] for own in (wide, deep)]
        for part in ("train", "validation", "test")
    )
    text = "accuracy is {:.1f}%, that of the deep CNN {:.1f}%."
    assert text.format(*validation) in lesson
    gaps = [seen - new for seen, new in zip(train, validation, strict=True)]
    assert "The gaps are {:.1f} and {:.1f} points.".format(*gaps) in lesson
    assert f"it raises the test accuracy from {test[1]:.1f}% to {test[0]:.1f}%" in lesson
    assert f"the wide one {test[0]:.1f}%" in lesson.replace("\n", " ")


def test_without_neighbors_the_cnn_is_behind_with_each_seed(control):
    assert (control["cnn-shuffled"] < control["mlp-shuffled"]).all()
    assert (control["cnn-shuffled"] < control["mlp"]).all()
    assert np.abs(control["mlp-shuffled"] - control["mlp"]).max() < 1.5
    behind = control["mlp-shuffled"] - control["cnn-shuffled"]
    text = f"{behind.mean():.1f} points ({behind.min():.1f} to {behind.max():.1f}) behind"
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8").replace("\n# ", " ")
    assert f"On shuffled pixels, it is {text}" in lesson


def test_the_cnn_is_ahead_after_its_first_epoch_with_each_seed():
    for folder in sorted((REFERENCE / "cifar10-plain").glob("seed-?")):
        mlp, cnn = (
            np.genfromtxt(folder / name / "history.csv", delimiter=",", names=True)["val_accuracy"]
            for name in ("mlp", "cnn")
        )
        assert 0.585 < cnn[0] < 0.615  # "59 to 61%"
        assert mlp.max() < 0.545


def test_the_figures_without_near_duplicates_are_those_of_the_stored_runs():
    results = stored("cifar10-plain")
    models = [own["models"]["cnn"] for own in results]
    for part in ("test", "test without near-duplicates"):
        assert spread([own[part]["accuracy"] for own in models]) in README
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8").replace("\n# ", " ")
    lost = [
        own["test"]["accuracy"] - own["test without near-duplicates"]["accuracy"] for own in models
    ]
    assert {f"{100 * own:.1f}" for own in lost} == {"0.3"}
    assert "the accuracy of the plain CNN is 0.3 points lower, with each of three seeds" in lesson
    for own in [*results, *stored("cifar10-deep")]:
        for name in ("mlp-shuffled", "cnn-shuffled"):
            without = own["models"][name]["test without near-duplicates"]["accuracy"]
            assert 0.002 <= round(own["models"][name]["test"]["accuracy"] - without, 3) <= 0.003


def test_the_f1_of_animals_and_vehicles_is_that_of_the_stored_runs():
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8").replace("\n# ", " ")
    vehicles = ("airplane", "automobile", "ship", "truck")
    found = []
    for folder in ("cifar10-plain", "cifar10-deep"):
        f1 = {
            name: np.mean([run["per_class"][name]["f1"] for run in stored(folder)])
            for name in stored(folder)[0]["per_class"]
        }
        assert f1["frog"] > f1["airplane"]
        found.append(np.mean([own for name, own in f1.items() if name not in vehicles]))
        found.append(np.mean([f1[name] for name in vehicles]))
    text = "of the animals is {:.2f} with the plain CNN and {:.2f} with the deep one"
    assert text.format(found[0], found[2]) in lesson
    assert f"that of the vehicles {found[1]:.2f} and {found[3]:.2f}" in lesson


@pytest.fixture(scope="module")
def photographs():
    """Of CIFAR-10's ideas, after 12 epochs with the seeds 0 and 1: accuracies in percent."""
    runs = json.loads((REFERENCE / "ideas" / "cifar10.json").read_text(encoding="utf-8"))["runs"]
    return {
        name: [
            np.array([100 * seeds[seed][part]["accuracy"] for seed in ("0", "1")])
            for part in ("train", "validation")
        ]
        for name, seeds in runs.items()
    }


def test_the_ladder_in_the_lesson_is_that_of_the_stored_figures(photographs):
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8")
    prose = lesson.replace("\n# ", " ")
    former = None
    for text, name in [
        ("plain CNN", "the-plain-cnn"),
        ("rung 1: + depth, batch normalization", "only-depth"),
        ("rung 2: + augmentation", "only-depth-and-augmentation"),
        ("rung 3: + schedule, weight decay", "the lesson"),
    ]:
        train, own = photographs[name]
        row = f"# | {text} | {own.mean():.1f}% ({own.min():.1f} to {own.max():.1f}) |"
        if former is not None:
            gain = own - former
            row += f" {gain.mean():+.1f} ({gain.min():+.1f} to {gain.max():+.1f})"
            assert f"from {former.mean():.1f}% to {own.mean():.1f}%" in prose
        assert f"{row} | {(train - own).mean():.1f} |" in lesson.splitlines()
        former = own


def test_what_label_smoothing_is_worth_in_the_deep_cnn_is_that_of_the_stored_figures(photographs):
    first, second = photographs["with-label-smoothing"][1] - photographs["the lesson"][1]
    lesson = (REPO / "train_cifar10.py").read_text(encoding="utf-8").replace("\n# ", " ")
    text = f"with it was {(first + second) / 2:.2f} points higher ({first:+.2f} and {second:+.2f}"
    assert text in lesson


def test_the_figures_of_the_older_cnn_are_those_of_its_stored_runs():
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8")
    for pattern in ("seed-?", "h200-seed-?"):
        runs = stored("cifar10-cnn", pattern)
        found = spread([own["test"]["accuracy"] for own in runs]).removesuffix(")")
        assert found in page
    assert f"in {runs[0]['fit_seconds']:.0f} seconds" in page


PEERS = {
    "mnist": "Keras's `mnist_convnet`",
    "fashion": "TensorFlow's `keras/classification`",
    "cifar10": "TensorFlow's `images/cnn`",
    "simpsons": "TensorFlow's `images/classification`",
}


def compared(name, figures, precision=""):
    """A line of the table beside the tutorials, made of the stored figures."""
    pair = figures[name]
    theirs, ours, ratios = pair["tutorial"], pair["lesson"], pair["ratios"]
    return (
        f"| {PEERS[name]}{precision} | {theirs['test_accuracy']:.1%} "
        f"| {theirs['fit_seconds']:.0f} s | {pair['seconds_until_passed']:.0f} s "
        f"| {ratios['until_passed_to_their_fit']:.2f} | {ratios['memory_above_import']:.2f} "
        f"| {ours['waiting']:.0%} |"
    )


COMPARED = {}
for file in ["benchmarks", "benchmarks-epyc"]:
    figures = json.loads((REFERENCE / f"{file}.json").read_text(encoding="utf-8"))
    for name in PEERS:
        if name in figures:
            COMPARED[f"{file}, {name}"] = compared(name, figures)
        if name in figures["float32"]:
            line = compared(name, figures["float32"], ", ours in float32")
            COMPARED[f"{file}, {name}, float32"] = line


@pytest.mark.parametrize("line", COMPARED.values(), ids=COMPARED)
def test_the_table_beside_the_tutorials_is_that_of_the_stored_figures(line):
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8")
    assert line in page.splitlines()


PAGES = ["README.md", "CONTRIBUTING.md", "data/README.md", "outputs/README.md"]
PAGES += ["benchmarks/README.md"]
PAGES += [str(path.relative_to(REPO)) for path in (REPO / "docs").rglob("*.md")]
PAGES += [str(path.relative_to(REPO)) for path in REFERENCE.glob("*/README.md")]


@pytest.mark.parametrize("page", PAGES)
def test_every_plot_and_page_that_is_linked_is_there(page):
    page = REPO / page
    for link in page.read_text(encoding="utf-8").split("](")[1:]:
        target, _, heading = link.split(")")[0].partition("#")
        assert target.startswith("http") or (page.parent / target).exists(), target
        if heading and target:
            assert heading in anchors(page.parent / target), link


def anchors(page):
    """The names by which a Markdown page's headings are linked."""
    lines = page.read_text(encoding="utf-8").lower().splitlines()
    headings = [line.lstrip("# ") for line in lines if re.match("#+ ", line)]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("script", SCRIPTS[:3])
def test_every_term_of_a_lesson_is_in_the_glossary(script):
    glossary = (REPO / "docs" / "glossary.md").read_text(encoding="utf-8")
    entries = re.findall(r"^- \*\*(.+?)\*\*: ", glossary, re.MULTILINE)
    assert entries == sorted(entries, key=str.lower)
    lesson = (REPO / script).read_text(encoding="utf-8").replace("\n# ", " ")
    terms = re.findall(r"\*\*(.+?)\*\*", lesson)
    assert {term.lower() for term in terms} <= {entry.lower() for entry in entries}


@pytest.mark.parametrize("path", [*SCRIPTS, "predict.py", "common"])
def test_it_stands_on_public_interfaces_alone(path):
    path = REPO / path
    for file in [path] if path.is_file() else path.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"ctypes", "mock", "unittest", "unittest.mock"}, file
                hidden = [name for name in names if name and name.startswith("_")]
                assert not hidden, f"{file}: {hidden}"
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                of = node.value.id if isinstance(node.value, ast.Name) else ""
                public = (of, node.attr) == ("os", "_exit")  # which Python documents
                assert of == "self" or public or node.attr.endswith("__"), f"{file}: {node.attr}"
