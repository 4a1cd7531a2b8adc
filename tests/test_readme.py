"""What the README says is what the runs that it quotes say."""

import ast
import io
import json
import tokenize

import pytest
from conftest import REPO, old_words

OPENED = [
    "train_mnist.py",
    "train_simpsons.py",
]  # the lessons that show their pipeline, callbacks and metrics

REFERENCE = REPO / "outputs" / "reference"
# Each row of the table of results: the command, the folder of its runs, and which network.
ROWS = [
    ("python train_mnist.py", "mnist-cnn", "seed-?", None),
    ("python train_mnist.py --precision float32", "mnist-cnn", "seed-?-float32", None),
    ("python train_fashion.py", "fashion-mlp", "seed-?", "baseline"),
    ("python train_fashion.py", "fashion-mlp", "seed-?", None),
    ("python train_fashion.py --model cnn", "fashion-cnn", "seed-?", None),
    ("python train_cifar10.py", "cifar10-mlp", "seed-?", None),
    ("python train_cifar10.py --model cnn", "cifar10-cnn", "seed-?", None),
    ("python train_simpsons.py --images five", "simpsons-cnn", "five-seed-?", "baseline"),
    ("python train_simpsons.py --images five", "simpsons-cnn", "five-seed-?", None),
]


def row(command, folder, pattern, network):
    """A line of the table, made of the results of the runs."""
    paths = sorted((REFERENCE / folder).glob(f"{pattern}/results.json"))
    results = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    seeds = ", ".join(str(result["options"]["seed"]) for result in results)
    results = [result[network] if network else result for result in results]
    accuracies = [result["test"]["accuracy"] for result in results]
    accuracy = f"{sum(accuracies) / len(accuracies):.2%}"
    if len(accuracies) > 1:
        accuracy += f" ({100 * min(accuracies):.2f} to {100 * max(accuracies):.2f})"
    seconds = [result["fit_seconds"] for result in results]
    unit, name, digits = (1, "s", 0) if max(seconds) < 120 else (60, "min", 1)
    low, high = (f"{pick(seconds) / unit:.{digits}f}" for pick in (min, max))
    time = f"{low} {name}" if low == high else f"{low} to {high} {name}"
    named = "model" if folder.startswith("simpsons") else "network"
    what = f", the plain {named}" if network else ""
    link = f"[{seeds}](outputs/reference/{folder})"
    return f"| `{command}`{what} | {accuracy} | {time} | {results[0]['parameters']:,} | {link} |"


@pytest.mark.parametrize("wanted", ROWS, ids=lambda wanted: f"{wanted[0]} {wanted[3] or ''}")
def test_the_table_of_results_is_that_of_the_stored_runs(wanted):
    assert row(*wanted) in (REPO / "README.md").read_text(encoding="utf-8").splitlines()


BENCHMARKS = json.loads((REFERENCE / "benchmarks.json").read_text(encoding="utf-8"))
PEERS = {
    "mnist": "Keras's `mnist_convnet`",
    "fashion": "TensorFlow's `keras/classification`",
    "cifar10": "TensorFlow's `images/cnn`",
    "simpsons": "TensorFlow's `images/classification`",
}


def compared(name):
    """A line of the table beside the tutorials, made of the stored figures."""
    pair = BENCHMARKS[name]
    theirs, ours, ratios = pair["tutorial"], pair["lesson"], pair["ratios"]
    return (
        f"| {PEERS[name]} | {theirs['test_accuracy']:.1%} | {theirs['fit_seconds']:.0f} s "
        f"| {pair['seconds_until_passed']:.0f} s | {ratios['until_passed_to_their_fit']:.2f} "
        f"| {ratios['memory_above_import']:.2f} | {ours['waiting']:.0%} |"
    )


@pytest.mark.parametrize("name", PEERS)
def test_the_table_beside_the_tutorials_is_that_of_the_stored_figures(name):
    assert compared(name) in (REPO / "README.md").read_text(encoding="utf-8").splitlines()


def test_every_picture_and_page_that_the_readme_links_is_there():
    for page in [REPO / "README.md", REPO / "data" / "README.md"]:
        for link in page.read_text(encoding="utf-8").split("](")[1:]:
            target = link.split(")")[0]
            assert target.startswith(("http", "#")) or (page.parent / target).exists(), target


def code_lines(path):
    """The lines of a script that are code: no docstrings, comments and blanks."""
    text = path.read_text(encoding="utf-8")
    passed = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in passed | {tokenize.ENDMARKER}:
            lines |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str):
            lines -= set(range(node.lineno, node.end_lineno + 1))
    return lines


def test_a_script_is_as_short_as_it_promises():
    for name, most, before in [("mnist", 170, 110), ("simpsons", 250, 125)]:
        path = REPO / f"train_{name}.py"
        code = code_lines(path)
        assert len(code) <= most
        lines = path.read_text(encoding="utf-8").splitlines()
        fit = next(i for i, line in enumerate(lines, start=1) if "model.fit(" in line)
        assert sum(line < fit for line in code) <= before
    for name in ["fashion", "cifar10"]:
        path = REPO / f"train_{name}.py"
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 350, path


SHOWN = """.cache( .shuffle( .batch( .map( .prefetch( keras.layers.RandomRotation( train_test_split(
    ModelCheckpoint( BackupAndRestore( CSVLogger( classification_report( model.fit( load_model("""
MORE = {
    "train_simpsons.py": """image_dataset_from_directory( DBSCAN( StratifiedGroupKFold(
    EarlyStopping( f1_score( accuracy_score( log_loss( confusion_matrix( resize_with_pad(""",
}


@pytest.mark.parametrize("script", OPENED)
def test_a_lesson_shows_what_it_teaches(script):
    path = REPO / script
    lines = path.read_text(encoding="utf-8").splitlines()
    code = "\n".join(lines[i - 1].split("#")[0] for i in sorted(code_lines(path)))
    shown = f"{SHOWN} {MORE.get(script, '')}"
    assert [call for call in shown.split() if call not in code] == []


def reached(path):
    """A script and the modules of the shelf that it imports, directly or not."""
    found, left = set(), [path]
    while left:
        path = left.pop()
        found.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("common"):
                names = [node.module, *(f"common.{alias.name}" for alias in node.names)]
                modules = {REPO / f"{name.replace('.', '/')}.py" for name in names}
                left += [module for module in modules - found if module.exists()]
    return sorted(found)


@pytest.mark.parametrize("script", OPENED)
def test_it_stands_on_public_interfaces_alone(script):
    for path in reached(REPO / script):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = {alias.name for alias in node.names} | {getattr(node, "module", "")}
                assert not names & {"ctypes", "mock", "unittest", "unittest.mock"}, path
                hidden = [name for name in names if name and name.startswith("_")]
                assert not hidden, f"{path}: {hidden}"
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
                assert of_self or node.attr.endswith("__"), f"{path}: {node.attr}"


@pytest.mark.parametrize("script", OPENED)
def test_it_speaks_in_the_words_of_the_field(script):
    text = (REPO / script).read_text(encoding="utf-8")
    assert old_words(text) == []
