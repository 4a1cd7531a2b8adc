"""`benchmarks/`: that it runs, what its ratios are, and that its changes fit today's lessons."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import REPO

sys.path.insert(0, str(REPO / "benchmarks"))
import beside_the_tutorials
import changes
import few_images
import gpu
import ideas
import none_of_the_classes
import shared

from common import options

STORED = REPO / "outputs" / "reference"
MNIST = (REPO / "train_mnist.py").read_text(encoding="utf-8")


def read(path):
    return json.loads(path.read_text(encoding="utf-8"))


# Beside the tutorials, and on a GPU


@pytest.mark.slow
def test_both_sides_are_measured_on_the_same_images(lesson, tmp_path):
    output = tmp_path / "figures.json"
    command = ["--sample", "--epochs", 1, "--precision", "float32", "--output", output, "mnist"]
    done = lesson("benchmarks/beside_the_tutorials.py", *command)
    assert (done.returncode, done.stderr) == (0, "")
    pair = read(output)["mnist"]
    for side, trainings in ((pair["tutorial"], 1), (pair["lesson"], 2)):
        assert len(side["epochs"]) == trainings
        seconds, accuracy, training = side["epochs"][-1]
        assert 0 < seconds <= side["fit_seconds"] + 0.01
        assert 0.2 < accuracy == pytest.approx(side["test_accuracy"], abs=0.002)
        assert (training, side["precision"]) == (trainings, "float32")
        assert side["peak_megabytes"] > side["import_megabytes"] > 100
    assert 0 <= pair["lesson"]["waiting"] < 1
    assert len(pair["lesson"]["waiting_rounds"]) == 7
    _, peer = beside_the_tutorials.PAIRS["mnist"]
    assert beside_the_tutorials.row(peer, pair) in done.stdout.splitlines()


def test_ratios_are_ours_to_theirs():
    def side(seconds, accuracy, epochs, megabytes):
        memory = {"peak_megabytes": megabytes, "import_megabytes": 500}
        return {"fit_seconds": seconds, "test_accuracy": accuracy, "epochs": epochs, **memory}

    theirs = side(10.0, 0.8, [[4, 0.8, 1], [10, 0.8, 1]], 900)
    ours = side(20.0, 0.9, [[2, 0.7, 1], [4, 0.8, 1], [6, 0.81, 2]], 700)
    pair = beside_the_tutorials.compare(theirs, ours)
    assert pair["seconds_until_passed"] == 6  # equal is not passed
    assert pair["our_accuracy_at_their_end"] == 0.81
    assert pair["ratios"] == {
        "until_passed_to_their_fit": 0.6,
        "until_passed_to_their_first": 1.5,
        "fit": 2.0,
        "memory_above_import": 0.5,
    }
    pair = beside_the_tutorials.compare(theirs, ours | {"epochs": [[12, 0.7, 1]], "waiting": None})
    assert pair["seconds_until_passed"] is pair["ratios"]["until_passed_to_their_fit"] is None
    assert pair["our_accuracy_at_their_end"] is None
    assert beside_the_tutorials.row("peer", pair) == "| peer | 80.0% | 10 s | - | - | 0.50 | - |"


@pytest.mark.parametrize("file", ["benchmarks", "benchmarks-epyc"])
def test_a_row_of_stored_figures_is_in_the_page(file):
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    for name, (_, peer) in beside_the_tutorials.PAIRS.items():
        assert beside_the_tutorials.row(peer, read(STORED / f"{file}.json")[name]) in page


@pytest.mark.slow
def test_the_table_of_devices_has_a_row_for_the_cpu(lesson, tmp_path):
    output = tmp_path / "figures.json"
    done = lesson("benchmarks/gpu.py", "mnist", "--sample", "--epochs", 2, "--output", output)
    assert done.returncode == 0, done.stderr
    figures = read(output)[-1]
    assert (figures["device"]["kind"], figures["epochs"]) == ("cpu", 2)
    assert gpu.row(figures) in done.stdout.splitlines()


def test_the_times_are_those_of_the_last_training():
    ends = [[2, 0.5, 1], [9, 0.6, 2], [12, 0.7, 2], [14, 0.7, 2]]
    figures = gpu.last_training({"starts": [0.5, 4], "epochs": ends, "fit_seconds": 15})
    seconds = [figures[name] for name in ("fit_seconds", "first_epoch", "later_epoch")]
    assert (figures["epochs"], seconds) == (3, [11, 5, 2.5])


# Ideas


@pytest.mark.parametrize("name", ideas.LESSONS)
def test_each_idea_changes_lines_that_its_lesson_has(name):
    changed = ideas.LESSONS[name]
    for idea in changed.ideas:
        assert idea.startswith(("the-", "only-", "with-", "without-"))
        compile(ideas.copy(changed, idea), idea, "exec")


def test_an_idea_of_an_older_lesson_is_named():
    with pytest.raises(options.Mistake) as caught:
        shared.change("epochs = 3\n", [("epoch = 3", "epoch = 4")], "train_x.py", "with-four")
    for word in ("train_x.py", "with-four", "changed since", "0 times", "'epoch = 3'"):
        assert word in str(caught.value)


@pytest.mark.slow
def test_a_lesson_is_compared_with_its_changed_copy(lesson, tmp_path):
    output = tmp_path / "figures.json"
    command = ["benchmarks/ideas.py", "simpsons-plain", "--ideas", "with-weight-decay", "--sample"]
    command += ["--output", output, "--epochs"]
    done = lesson(*command, 2)
    assert (done.returncode, done.stderr) == (0, "")
    runs = read(output)["runs"]
    assert read(output)["options"] == ["--sample", "--epochs", "2"]
    assert [list(seeds) for seeds in runs.values()] == [["0"], ["0"]]
    own, other = (runs[name]["0"] for name in ("the lesson", "with-weight-decay"))
    assert own["epochs"] == 2  # the plain model's: that of the regularized one is 1
    assert own["train"] != other["train"]
    assert ideas.row("with-weight-decay", runs) in done.stdout
    # Called again, it adds what is missing: here nothing, so nothing is trained.
    again = lesson(*command, 2)
    assert (again.returncode, again.stdout) == (0, done.stdout)
    assert lesson(*command, 3).returncode == 2


def test_the_ladder_has_a_bar_for_each_rung_that_was_trained():
    runs = {
        "the lesson": {"0": 0.9, "1": 0.91},
        "not-a-rung": {"0": 0.1},
        "the-plain-cnn": {"0": 0.75},
    }
    for name, seeds in runs.items():
        runs[name] = {seed: {"validation": {"accuracy": own}} for seed, own in seeds.items()}
    figure = ideas.ladder(runs)
    (axis,) = figure.axes
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([75, 90.5])
    assert [label.get_text() for label in axis.get_yticklabels()] == [
        ideas.LADDER[name] for name in ("the-plain-cnn", "the lesson")
    ]
    assert figure.get_suptitle() == "The largest gain: schedule, weight decay, +15.5 points"


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


def test_the_figures_are_those_of_the_model_that_is_compared():
    keys = ("parameters", "epochs", "best_epoch", "fit_seconds", "train", "validation", "test")
    own = dict.fromkeys(keys, 1)
    results = {"models": {"plain": own}} | dict.fromkeys(keys, 2)
    assert ideas.figures(ideas.LESSONS["simpsons-plain"], results) == own


REFERENCE = sorted((STORED / "ideas").glob("*.json"))


@pytest.mark.parametrize("path", REFERENCE, ids=lambda path: path.stem)
def test_the_tables_of_ideas_are_those_of_the_stored_figures(path):
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    runs = read(path)["runs"]
    assert [line for line in (ideas.row(idea, runs) for idea in runs) if line not in page] == []


# Mistakes and exercises


PAGES = {name: changes.Page(name) for name in changes.PAGES}
BOTH = [(name, change) for name, page in PAGES.items() for change in page.changes]


@pytest.mark.parametrize(("page", "name"), BOTH)
def test_each_change_is_of_lines_that_the_lesson_has(page, name):
    texts = PAGES[page].copies([name])
    assert list(texts) == [PAGES[page].sound(name), name]
    for training, text in texts.items():
        compile(text, training, "exec")


@pytest.mark.slow
def test_a_mistake_is_trained_and_shown_on_a_page(lesson, tmp_path):
    names = ["no-rescaling", "shuffled-labels"]
    command = ["mistakes", "--sample", "--epochs", 1, "--output-dir", tmp_path, "--only", *names]
    done = lesson("benchmarks/changes.py", *command)
    assert (done.returncode, done.stderr) == (0, "")
    place = tmp_path / "classic-mistakes"
    histories = read(place / "figures.json")
    trainings = ["sound-no-rescaling", "no-rescaling", "the-lesson-first", "shuffled-labels"]
    assert list(histories) == ["code", *trainings]
    assert histories["shuffled-labels"]["loss"][0] > histories["the-lesson-first"]["loss"][0]
    page = place.with_suffix(".md").read_text(encoding="utf-8")
    assert page == PAGES["mistakes"].text(histories, names)
    assert "older version" not in page
    for name in names:
        assert f"(classic-mistakes/{name}.png)" in page
        assert (place / f"{name}.png").stat().st_size > 10_000
        assert changes.row("mistake", histories[name]) in page
    again = lesson("benchmarks/changes.py", *command)  # nothing is trained again
    assert again.stdout.splitlines() == done.stdout.splitlines()[-1:]


def test_a_loss_that_is_no_number_is_said_so():
    history = {"loss": [2.0, None], "val_loss": [2.0, None], "val_accuracy": [0.2, 0.1]}
    assert changes.row("fault", history) == "| fault | not a number | not a number | 10.0% |"
    assert changes.row("fault", history | {"val_accuracy": [None]}).endswith("| none |")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_of_changes_is_that_of_the_stored_figures_and_of_todays_lesson(name):
    page = PAGES[name]
    path = REPO / page.about["path"]
    histories = read(path / "figures.json")
    text = path.with_suffix(".md").read_text(encoding="utf-8")
    assert text == page.text(histories, page.changes)
    assert "SHOWS" not in text and "AFTER" not in text
    older = histories["code"] != changes.digest(page.source)
    assert ("older version" in text) == older


def test_prose_does_not_make_figures_older():
    code = changes.digest(MNIST)
    assert changes.digest(MNIST.replace("\n# ", "\n# Once more: ")) == code
    assert changes.digest(MNIST + "print()\n") != code


# Few images


@pytest.mark.slow
def test_few_images_are_trained_on_and_all_others_tested(lesson, tmp_path):
    output = tmp_path / "figures.json"
    command = ["--sample", "--model", "cnn", "--counts", 9, "--test", "all", "--epochs", 1]
    done = lesson("benchmarks/few_images.py", *command, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = read(output)["runs"].values()
    assert sum(run["data"][part] for part in ("train", "validation", "test")) == 9 * 5
    assert 400 < run["data"]["published test"] <= 594 - 45
    regularized = run["models"]["regularized"]["published test"]
    assert regularized["accuracy"] == pytest.approx(run["saved"]["accuracy"], abs=0.01)
    assert few_images.table(read(output)["runs"])[-1] in done.stdout


def test_those_of_a_class_are_drawn_with_their_near_duplicates_and_none_is_tested():
    names, labels = ["a", "b"], np.repeat([0, 1], 50)
    groups = np.arange(100) // 5
    images = SimpleNamespace(class_names=names, labels=labels)
    training, test = few_images.choose(images, groups, 10, 0, None)
    assert np.bincount(labels[training]).tolist() == [10, 10]
    assert not set(groups[training]) & set(groups[test])
    assert len(test) == 80
    training, test = few_images.choose(images, groups, 10, 0, 20)
    assert test.tolist() == [*range(30, 50), *range(80, 100)]
    assert not set(training) & set(test)
    again, _ = few_images.choose(images, groups, 10, 1, 20)
    assert sorted(again) != sorted(training)


def test_the_figures_of_few_images_are_those_that_are_stored():
    runs = read(STORED / "few-images.json")["runs"]
    page = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8").splitlines()
    readme = (REPO / "README.md").read_text(encoding="utf-8").splitlines()
    of_readme = {"signs": "hands | 600 others", "five": "Simpsons | all others"}
    for line in few_images.table(runs)[2:]:
        assert line in page
        images, _, regularized, _, _, saved = line.strip("| ").split(" | ")
        data, count = images.removesuffix(" of each class").split(", ")
        assert f"| {count} {of_readme[data]} | {regularized} | {saved} |" in readme
    intervals = read(STORED / "intervals.json")
    assert f"{intervals['covered']} of {len(intervals['runs'])} intervals" in " ".join(page)
    rows = none_of_the_classes.table(read(STORED / "none-of-the-classes.json")["runs"])
    for line in rows:
        assert line in page


# Swapped labels


@pytest.mark.slow
def test_swapped_labels_are_among_the_first_to_doubt(lesson, tmp_path):
    output = tmp_path / "figures.json"
    small = ["--sample", "--epochs", 10, "--image-size", 48, "--seeds", 0]
    done = lesson("benchmarks/swapped_labels.py", *small, "--output", output)
    assert (done.returncode, done.stderr) == (0, "")
    (run,) = read(output)["runs"].values()
    assert len(run["places"]) == 10
    assert run["found"] >= 7  # seen, in three trainings: 10
    assert f"{run['found']} of 10 are" in done.stdout


def test_what_is_said_of_the_swapped_labels_is_that_of_the_stored_figures():
    runs = read(STORED / "swapped-labels.json")["runs"].values()
    assert [(run["found"], len(run["places"])) for run in runs] == [(10, 10), (10, 10)]
    last = max(max(run["places"]) for run in runs)
    assert min(run["listed"] for run in runs) > 1200
    for page in ("README.md", "train_simpsons.py"):
        text = (REPO / page).read_text(encoding="utf-8").replace("\n# ", " ").replace("\n", " ")
        assert f"among the first {last} of" in text
        assert "more than 1,200 images" in text
