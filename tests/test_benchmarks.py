"""`benchmarks/`: that it runs, and what its ratios are."""

import json
import sys

import pytest
from conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))
import beside_the_tutorials
import faults
import ideas
import side

from common import options


def test_both_sides_are_measured_on_the_same_pictures(lesson, tmp_path):
    output = tmp_path / "figures.json"
    command = ["--sample", "--epochs", 1, "--precision", "float32", "--output", output, "mnist"]
    done = lesson("benchmarks/beside_the_tutorials.py", *command)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    figures = json.loads(output.read_text(encoding="utf-8"))
    for who in ("tutorial", "lesson"):
        measured = figures["mnist"][who]
        seconds = [seconds for seconds, _, _ in measured["epochs"]]
        assert len(seconds) == 1
        assert 0 < seconds[0] <= measured["fit_seconds"] + 0.01
        assert 0.2 < measured["test_accuracy"] < 1
        assert measured["precision"] == "float32"
        assert measured["peak_megabytes"] > figures["import"] > 100
    assert 0 <= figures["mnist"]["lesson"]["waiting"] < 1
    assert len(figures["mnist"]["lesson"]["waiting_rounds"]) == 7
    assert "waiting for input" in done.stdout
    assert f"Figures: {output}" in done.stdout


def test_the_table_of_devices_has_a_row_for_the_cpu(lesson, tmp_path):
    output = tmp_path / "figures.json"
    done = lesson("benchmarks/gpu.py", "mnist", "--sample", "--epochs", 2, "--output", output)
    assert done.returncode == 0, done.stderr
    figures = json.loads(output.read_text(encoding="utf-8"))[-1]
    assert figures["device"]["kind"] == "cpu"
    first, later = figures["first_epoch"], figures["later_epoch"]
    assert first + later == pytest.approx(figures["fit_seconds"])
    accuracy = f"{figures['test_accuracy']:.2%}"
    row = done.stdout.splitlines()[-1]
    assert f"| {accuracy} | 2 | {first + later:.0f} s | {first:.1f} s | {later:.1f} s |" in row


def test_ratios_are_ours_to_theirs():
    theirs = {"fit_seconds": 10.0, "epochs": [[4, 0.8, 1], [10, 0.8, 1]], "test_accuracy": 0.8}
    ours = {
        "fit_seconds": 20.0,
        "epochs": [[2, 0.7, 1], [4, 0.8, 1], [6, 0.81, 2]],
        "test_accuracy": 0.9,
    }
    pair = beside_the_tutorials.compare(
        theirs | {"peak_megabytes": 900}, ours | {"peak_megabytes": 700}, 500
    )
    assert pair["seconds_until_passed"] == 6  # equal is not passed
    assert pair["our_accuracy_at_their_end"] == 0.81
    assert pair["ratios"] == {
        "until_passed_to_their_fit": 0.6,
        "until_passed_to_their_first": 1.5,
        "fit": 2.0,
        "memory_above_import": 0.5,
    }
    ours["epochs"] = [[12, 0.7, 1]]
    pair = beside_the_tutorials.compare(
        theirs | {"peak_megabytes": 900}, ours | {"peak_megabytes": 700}, 500
    )
    assert pair["seconds_until_passed"] is pair["ratios"]["until_passed_to_their_fit"] is None
    assert pair["our_accuracy_at_their_end"] is None


@pytest.mark.parametrize("name", beside_the_tutorials.PAIRS)
def test_each_lesson_has_its_tutorial(name):
    assert name in side.TUTORIALS
    assert (REPO / f"train_{name}.py").exists()


def test_a_mistake_is_answered_in_one_line(lesson):
    done = lesson("benchmarks/beside_the_tutorials.py", "minst")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("beside_the_tutorials.py: error: unknown lesson minst; known are")


@pytest.mark.parametrize("name", ideas.LESSONS)
def test_each_idea_changes_lines_that_its_lesson_has(name):
    changed = ideas.LESSONS[name]
    text = (REPO / changed.script).read_text(encoding="utf-8")
    for idea, pairs in changed.ideas.items():
        assert idea.startswith(("with-", "without-"))
        compile(ideas.change(text, [*changed.always, *pairs]), idea, "exec")


def test_a_line_that_is_not_there_is_named():
    with pytest.raises(options.Mistake, match="0 times, not once: 'epoch = 3'"):
        ideas.change("epochs = 3\n", [("epoch = 3", "epoch = 4")])


def test_a_lesson_is_compared_with_its_changed_copy(lesson, tmp_path):
    output = tmp_path / "figures.json"
    command = ["cifar10-mlp", "--ideas", "without-label-smoothing"]
    done = lesson("benchmarks/ideas.py", *command, "--sample", "--epochs", 1, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    runs = json.loads(output.read_text(encoding="utf-8"))["runs"]
    assert list(runs) == ["the lesson", "without-label-smoothing"]
    assert [list(seeds) for seeds in runs.values()] == [["0"], ["0"]]
    assert json.loads(output.read_text())["options"] == ["--sample", "--epochs", "1"]
    assert runs["the lesson"]["0"]["epochs"] == 1
    assert runs["the lesson"]["0"]["train"] != runs["without-label-smoothing"]["0"]["train"]
    assert ideas.row("without-label-smoothing", runs) in done.stdout
    # Called again, it adds what is missing: here nothing, so nothing is trained.
    again = lesson("benchmarks/ideas.py", *command, "--sample", "--epochs", 1, "--output", output)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert json.loads(output.read_text(encoding="utf-8"))["runs"] == runs
    other = lesson("benchmarks/ideas.py", *command, "--sample", "--epochs", 2, "--output", output)
    assert other.returncode == 2
    assert "has other runs: cifar10-mlp, ['--sample', '--epochs', '1']" in other.stderr


def test_a_gain_is_that_of_the_lesson_over_its_copy():
    def run(value, measure="accuracy"):
        scores = {"accuracy": 0.5} | {measure: value}
        return {part: scores for part in ("train", "validation", "test")}

    runs = {"the lesson": {"0": run(0.92), "1": run(0.93)}, "x": {"0": run(0.9), "1": run(0.94)}}
    assert ideas.row("x", runs) == "| x | 92.00 | 92.00 | 92.00 | +0.50 (-1.00 to +2.00) |"
    runs["x"] = {"1": run(0.94)}  # only seed 1 was trained with both
    assert ideas.row("x", runs) == "| x | 94.00 | 94.00 | 94.00 | -1.00 (one seed) |"
    assert ideas.row("the lesson", runs) == "| the lesson | 92.50 | 92.50 | 92.50 |  |"
    runs = {"the lesson": {"0": run(0.97, "macro_f1")}, "x": {"0": run(0.96, "macro_f1")}}
    assert ideas.row("x", runs) == "| x | 96.00 | 96.00 | 96.00 | +1.00 (one seed) |"


@pytest.mark.parametrize("name", faults.FAULTS)
def test_each_fault_changes_lines_that_the_lesson_has(name):
    text = (REPO / faults.SCRIPT).read_text(encoding="utf-8")
    for training, pairs in faults.trainings([name]).items():
        compile(ideas.change(text, pairs), training, "exec")
    assert faults.FAULTS[name].notice.endswith(".")


def test_a_fault_is_trained_and_shown_on_a_page(lesson, tmp_path):
    names = ["no-rescaling", "shuffled-labels"]
    command = ["--sample", "--epochs", 1, "--output-dir", tmp_path, "--faults", *names]
    done = lesson("benchmarks/faults.py", *command)
    assert (done.returncode, done.stderr) == (0, "")
    histories = json.loads((tmp_path / "faults.json").read_text(encoding="utf-8"))
    expected = ["sound-no-rescaling", "no-rescaling", "the-lesson", "shuffled-labels"]
    assert list(histories) == expected
    assert histories["shuffled-labels"]["loss"][0] > histories["the-lesson"]["loss"][0]
    page = (tmp_path / "README.md").read_text(encoding="utf-8")
    for name in names:
        assert f"## {faults.FAULTS[name].title}\n" in page
        assert f"({name}.png)" in page
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
        assert faults.row("mistake", histories[name]) in page
    again = lesson("benchmarks/faults.py", *command)  # nothing is trained again
    assert again.stdout.splitlines() == done.stdout.splitlines()[-1:]


def test_a_loss_that_is_no_number_is_said_so():
    history = {"loss": [2.0, None], "val_loss": [2.0, None], "val_accuracy": [0.2, 0.1]}
    assert faults.row("fault", history) == "| fault | not a number | not a number | 10.0% |"


FAULTS = REPO / "outputs" / "reference" / "faults"


@pytest.mark.skipif(not FAULTS.exists(), reason="not stored")
def test_the_page_of_faults_is_that_of_the_stored_figures_and_of_todays_lesson():
    histories = json.loads((FAULTS / "faults.json").read_text(encoding="utf-8"))
    source = (REPO / faults.SCRIPT).read_text(encoding="utf-8")
    assert (FAULTS / "README.md").read_text(encoding="utf-8") == faults.page(source, histories)


def test_swapped_labels_are_among_the_first_to_doubt(lesson, tmp_path):
    output = tmp_path / "figures.json"
    small = ["--sample", "--epochs", 10, "--image-size", 48, "--seeds", 0]
    done = lesson("benchmarks/swapped_labels.py", *small, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = json.loads(output.read_text(encoding="utf-8"))["runs"].values()
    assert len(run["places"]) == 10
    assert run["found"] >= 7  # seen, in three trainings: 10
    assert f"{run['found']} of 10 are among the first 30 of 169" in done.stdout


def test_what_is_said_of_the_swapped_labels_is_that_of_the_stored_figures():
    path = REPO / "outputs" / "reference" / "swapped-labels.json"
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"].values()
    assert [(run["found"], len(run["places"])) for run in runs] == [(10, 10), (10, 10)]
    last = max(max(run["places"]) for run in runs)
    assert min(run["listed"] for run in runs) > 1200
    for page in ("README.md", "train_simpsons.py"):
        text = (REPO / page).read_text(encoding="utf-8").replace("\n# ", " ").replace("\n", " ")
        assert f"among the first {last} of" in text
        assert "more than 1,200 images" in text


REFERENCE = sorted((REPO / "outputs" / "reference" / "ideas").glob("*.json"))


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_the_tables_of_ideas_are_those_of_the_stored_figures(path):
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    assert [line for line in (ideas.row(idea, runs) for idea in runs) if line not in page] == []
