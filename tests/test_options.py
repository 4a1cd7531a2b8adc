"""Options: their help, and one clear line for each mistake, before anything is done."""

import os
import re
import subprocess
import sys

import pytest
from conftest import REPO, run_folder

TWO_MODELS = ["train_fashion.py", "train_cifar10.py"]
LESSONS = ["train_mnist.py", *TWO_MODELS, "train_simpsons.py"]

MISTAKES = [
    (["--epochs", "0"], "argument --epochs: '0' is not a whole number from 1 to 2,147,483,647"),
    (["--epochs", "-3"], "argument --epochs: '-3' is not a whole number from 1"),
    (["--epochs", "2.5"], "argument --epochs: '2.5' is not"),
    (["--epochs"], "argument --epochs: expected one argument"),
    (["--batch-size", "x"], "argument --batch-size: 'x' is not a whole number"),
    (["--learning-rate", "nan"], "argument --learning-rate: 'nan' is not a positive number"),
    (["--learning-rate", "inf"], "argument --learning-rate: 'inf' is not a positive number"),
    (["--learning-rate", "0"], "argument --learning-rate: '0' is not a positive number"),
    (["--seed", "-1"], "argument --seed: '-1' is not a whole number from 0"),
    (["--precision", "half"], "argument --precision: invalid choice: 'half'"),
    (["--epoch", "3"], "unknown option --epoch; did you mean --epochs?"),
    (["--batchsize=3"], "unknown option --batchsize; did you mean --batch-size?"),
    (["--lr", "0.1"], "unknown option --lr; see --help"),
    (["--version"], "unknown option --version; see --help"),
    (["--qwertz"], "unknown option --qwertz; see --help"),
    (["3"], "unknown argument 3; see --help"),
    (["--data-dir", "LICENSE"], "argument --data-dir: 'LICENSE' is not a folder"),
    (["--data-dir", ""], "argument --data-dir: '' is not a folder"),
    (["--output-dir", "LICENSE"], "argument --output-dir: 'LICENSE' is not a folder"),
    (["--output-dir", "LICENSE/runs"], "argument --output-dir: cannot write to"),
    (["--epochs", "1" + "0" * 30], f"argument --epochs: '1{'0' * 30}' is not a whole number"),
    (["--batch-size", "1" + "0" * 30], f"argument --batch-size: '1{'0' * 30}' is not"),
    (["--data-dir", "d" * 5000], f"argument --data-dir: '{'d' * 5000}': File name too long"),
    (["--output-dir", "a{1}"], "argument --output-dir: '"),
    (["--output-dir", "d" * 300], f"argument --output-dir: '{'d' * 300}': File name too long"),
    (["--output-dir", "/proc/runs"], "argument --output-dir: cannot write to '/proc/runs': "),
]


@pytest.mark.parametrize("script", LESSONS)
@pytest.mark.parametrize(("arguments", "answer"), MISTAKES, ids=lambda value: str(value)[:60])
def test_a_mistake_is_answered_in_one_line(lesson, tmp_path, script, arguments, answer):
    if "/proc/runs" in arguments and not os.path.isdir("/proc"):
        pytest.skip("this system has no /proc")
    done = lesson(script, "--output-dir", tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: error: {answer}")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", LESSONS)
def test_nothing_heavy_is_imported_before_options_are_answered(lesson, script):
    done = lesson("-X", "importtime", script, "--epochs", "0")
    assert done.returncode == 2
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert not imported & {"numpy", "tensorflow", "keras", "matplotlib", "sklearn", "requests"}


@pytest.mark.parametrize("script", LESSONS)
def test_help_names_every_option_with_its_default_and_ends_with_an_example(lesson, script):
    done = lesson(script, "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    described, example = done.stdout.split("options:\n")[1].split("example:")
    described = " ".join(described.split())
    names = "epochs batch-size learning-rate seed data-dir sample output-dir precision show"
    for name in names.split():
        assert "(default: " in described.split(f" --{name} ")[1].split(" --")[0], name
    assert f"python {script} --sample" in example


@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        (["--image-size", "16"], "argument --image-size: '16' is not a whole number from 32"),
        (["--min-images", "none"], "argument --min-images: 'none' is not a whole number"),
        (["--images", "nowhere"], "argument --images: there is no folder 'nowhere'"),
        (["--images", "LICENSE"], "argument --images: 'LICENSE' is not a folder"),
        (["--images", "tests", "--sample"], "argument --images: not with --sample"),
        (["--images", "tests", "--download"], "argument --download: not with --images"),
        (["--cache", "tape"], "argument --cache: invalid choice: 'tape'"),
        (["--skip-basline"], "unknown option --skip-basline; did you mean --skip-baseline?"),
    ],
    ids=str,
)
def test_a_mistake_about_folders_is_answered_in_one_line(lesson, tmp_path, arguments, answer):
    done = lesson(LESSONS[-1], "--output-dir", tmp_path, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{LESSONS[-1]}: error: {answer}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", TWO_MODELS)
def test_each_model_has_its_own_defaults(lesson, script):
    described = " ".join(lesson(script, "--help").stdout.split())
    assert "--model {mlp,cnn}" in described
    assert re.search(r"\(default: [\d.]+ for mlp, [\d.]+ for cnn\)", described)
    done = lesson(script, "--model", "rnn")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{script}: error: argument --model: invalid choice: 'rnn'")
    assert done.stderr.count("\n") == 1


def test_a_default_is_that_of_the_chosen_model(monkeypatch, tmp_path):
    from common import options

    def parsed(*arguments):
        monkeypatch.setattr("sys.argv", ["lesson.py", "--output-dir", str(tmp_path), *arguments])
        epochs, rate = {"mlp": 3, "cnn": 4}, {"mlp": 0.1, "cnn": 0.2}
        found = options.parse("Title", epochs=epochs, batch_size=20, learning_rate=rate)
        return found.model, found.epochs, found.batch_size, found.learning_rate

    monkeypatch.setattr(options, "answer_mistakes", lambda name: None)
    assert parsed() == ("mlp", 3, 20, 0.1)
    assert parsed("--model", "cnn") == ("cnn", 4, 20, 0.2)
    assert parsed("--model", "cnn", "--epochs", "7") == ("cnn", 7, 20, 0.2)


def test_a_package_that_is_not_installed_is_one_line(lesson, tmp_path):
    done = lesson("-S", LESSONS[0], "--sample", "--output-dir", tmp_path)  # -S: no site-packages
    assert done.returncode == 1
    assert done.stderr.endswith("requirements.txt brings all that is needed.\n")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="a shell's way to close a stream")
def test_closed_streams_are_no_mistake(offline, tmp_path):
    command = (
        f"{sys.executable} train_mnist.py --sample --epochs 1 --output-dir {tmp_path} >&- 2>&-"
    )
    done = subprocess.run(["sh", "-c", command], cwd=REPO, env=offline)
    assert done.returncode == 0
    assert (run_folder(tmp_path) / "results.json").exists()


def test_a_cell_of_an_interactive_window_takes_the_defaults(monkeypatch, tmp_path):
    from common import options

    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    monkeypatch.setattr("sys.argv", ["ipykernel_launcher.py", "--f=kernel.json"])
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "train_mnist.py", raising=False)
    monkeypatch.setattr(options, "HOME", tmp_path)
    args = options.parse("Title", epochs=3, batch_size=20, learning_rate=0.1)
    assert (args.epochs, args.begun["script"]) == (3, "notebook")


def test_a_user_folder_is_expanded(tmp_path, monkeypatch):
    from common import options

    monkeypatch.setenv("HOME", str(tmp_path))
    assert options._folder("~/images") == tmp_path / "images"
