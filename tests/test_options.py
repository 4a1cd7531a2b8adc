"""Options: their help, and one clear line for each mistake, before anything is done."""

import sys

import pytest
from conftest import REPO

from common import options

LESSONS = ["train_mnist.py", "train_fashion.py", "train_cifar10.py", "train_simpsons.py"]
HEAVY = {"numpy", "tensorflow", "keras", "matplotlib", "sklearn", "requests"}


@pytest.fixture
def parse(monkeypatch, tmp_path):
    """Parse a command line as a lesson does that reads folders of images and has two models."""

    def parse(*arguments, script="train_mnist.py", about=None, default=None):
        monkeypatch.chdir(REPO)
        monkeypatch.setattr("sys.argv", [script, "--output-dir", str(tmp_path), *arguments])
        rates = {"mlp": 0.1, "cnn": 0.2}
        numbers = {"epochs": 3, "batch_size": 20, "learning_rate": rates, "image_size": 96}
        return options.parse(about, **numbers, default_model=default)

    return parse


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--epochs", "2.5"], "'2.5' is not a whole number"),
        (["--batch-size", "1" + "0" * 30], "is not a whole number"),
        (["--learning-rate", "nan"], "'nan' is not a positive number"),
        (["--learning-rate", "0"], "'0' is not a positive number"),
        (["--seed", "-1"], "'-1' is not a whole number from 0"),
        (["--epoch", "3"], "--epoch; did you mean --epochs?"),
        (["--lr", "0.1"], "--lr; see --help"),
        (["3"], "unknown argument 3"),
        (["--data-dir", "LICENSE"], "'LICENSE' is not a folder"),
        (["--data-dir", ""], "'' is not a folder"),
        (["--output-dir", "LICENSE/runs"], "cannot write to"),
        (["--output-dir", "a{1}"], "has a { or } in it"),
        (["--resume", "nowhere"], "--resume: there is no folder 'nowhere'"),
        (["--image-size", "16"], "'16' is not a whole number from 32"),
        (["--images", "nowhere"], "there is no folder 'nowhere'"),
        (["--images", "tests", "--sample"], "--images: not with --sample"),
        (["--images", "tests", "--download"], "--download: not with --images"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_mistake_is_answered_in_one_line(parse, tmp_path, capsys, arguments, answer):
    with pytest.raises(SystemExit, match="2"):
        parse(*arguments)
    printed, told = capsys.readouterr()
    assert (printed, told.count("\n")) == ("", 1)
    assert told.startswith("train_mnist.py: error: ")
    assert answer in told
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", LESSONS)
def test_help_and_mistakes_are_answered_before_anything_heavy_is_imported(lesson, script):
    for arguments, status in [(["--help"], 0), (["--epochs", "0"], 2)]:
        done = lesson("-X", "importtime", script, *arguments)
        assert done.returncode == status
        imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
        assert "argparse" in imported
        assert not imported & HEAVY
    assert f"{script}: error: argument --epochs" in done.stderr


def test_help_tells_defaults_and_what_an_option_does_not_do(parse, capsys):
    with pytest.raises(SystemExit, match="0"):
        parse("--help", about="Title\n\nThe question?\n\n    a command")
    described, example = capsys.readouterr().out.split("options:\n")[1].split("example:")
    of = {part.split()[0]: " ".join(part.split()) for part in described.split("\n  --")[1:]}
    assert all("(default: " in about for about in of.values())
    assert "0.1 for mlp, 0.2 for cnn" in of["learning-rate"]
    assert "patience" in of["resume"]
    assert "order" in of["resume"]
    assert "augmentation repeats with --deterministic only" in of["seed"]
    assert "python train_mnist.py --sample" in example


def test_a_default_is_that_of_the_chosen_model(parse):
    args = parse("--model", "cnn")
    assert (args.epochs, args.learning_rate) == (3, 0.2)
    assert parse().learning_rate == 0.1
    assert parse("--model", "cnn", "--learning-rate", "7").learning_rate == 7


def test_a_lesson_may_choose_the_model_when_it_knows_the_data(parse, capsys):
    args = parse(default="default: as many as there are")
    assert args.model is None
    options.choose(args, "cnn")
    assert (args.model, args.learning_rate) == ("cnn", 0.2)
    args = parse("--learning-rate", "7", default="default: as many as there are")
    options.choose(args, "cnn")
    assert args.learning_rate == 7
    args = parse("--model", "mlp", default="default: as many as there are")
    assert (args.model, args.learning_rate) == ("mlp", 0.1)
    with pytest.raises(SystemExit):
        parse("--help", default="default: as many as there are")
    assert "as many as there are" in " ".join(capsys.readouterr().out.split())


def test_folders_are_absolute_also_a_users_own(parse, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    args = parse("--data-dir", "~/images", "--resume", "tests")
    assert (args.data_dir, args.resume) == (tmp_path / "images", REPO / "tests")
    assert parse().resume is None


def test_a_page_is_headed_by_the_lessons_own_docstring_or_by_none(parse):
    about = "# Title\n\nThe\nquestion?\n\n    python train_mnist.py --sample\n"
    assert parse(about=about).about == ("Title", "The question?")
    assert parse(about=about, script="train_letters.py").about == ("", "")  # a copy that kept it
    assert parse(about=None).about == ("", "")  # PYTHONOPTIMIZE=2


def test_a_package_that_is_not_installed_is_one_line(lesson, tmp_path):
    done = lesson("-S", LESSONS[0], "--sample", "--output-dir", tmp_path)  # -S: no site-packages
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "pip install -r requirements.txt" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_cell_of_an_interactive_window_takes_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "--f=kernel.json"])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "train_mnist.py", raising=False)
    monkeypatch.setattr(options, "HOME", tmp_path)
    args = options.parse("Title", epochs=3, batch_size=20, learning_rate=0.1)
    assert (args.epochs, args.script) == (3, "notebook")
