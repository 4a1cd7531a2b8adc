"""What the README says is what the runs that it quotes say."""

import json

import pytest
from conftest import REPO

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
    ("python train_simpsons.py --pictures five", "simpsons-cnn", "five-seed-?", "baseline"),
    ("python train_simpsons.py --pictures five", "simpsons-cnn", "five-seed-?", None),
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
    what = ", the plain network" if network else ""
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


def test_a_script_is_as_short_as_it_promises():
    for path, limit in [
        ("train_mnist.py", 250),
        ("train_fashion.py", 350),
        ("train_cifar10.py", 350),
        ("train_simpsons.py", 350),
    ]:
        assert len((REPO / path).read_text(encoding="utf-8").splitlines()) <= limit, path
