"""What each lesson's run on the sample must leave and reach; `conftest.finished` runs it, once."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

import predict
from common import datasets

PLOTS = "examples augmented curves confusion_matrix predictions mistakes"
ALWAYS = {*(f"{name}.png" for name in PLOTS.split()), "mistakes.csv", "report.txt", "report.html"}
ALWAYS |= {"model.keras", "results.json"}
REMEDIES = ("plain", "early-stopping", "dropout", "weight-decay", "augmentation", "together")
REMEDIES += ("larger",)
NO_DOWNLOAD = "could not be downloaded"


@dataclass(frozen=True)
class Lesson:
    """A command, and what its run on the sample must leave and reach."""

    name: str
    command: tuple
    trainings: tuple  # their names, as in results.json; the last is the final model
    more: frozenset  # files besides those of every lesson
    floor: float  # test accuracy
    notice: str = NO_DOWNLOAD
    counts: tuple = (4500, 500, 1000)  # images for training, validation and test

    @property
    def script(self):
        return self.command[0]

    @property
    def files(self):
        return ALWAYS | self.more | set(self.trainings)

    @property
    def reported(self):
        """The trainings whose figures `results.json` has: MNIST's first model is not tested."""
        return self.trainings[-1:] if self.name == "mnist" else self.trainings


HOOD = "comparison convolution feature_maps filters first_mistakes gradient_descent means stencils"
HOOD = frozenset(f"{name}.png" for name in HOOD.split())
FASHION = frozenset(f"{n}.png" for n in ("reliability", "scaled", "remedies", "validation_loss"))
PLAIN = ("mlp-shuffled", "cnn-shuffled", "mlp", "cnn")
ANSWER = frozenset({"answer.png", "shuffled.png"})
FOLDERS = frozenset(f"{n}.png" for n in ("activation_maps", "classes", "doubtful", "groups"))
FOLDERS |= {"doubtful.csv"}
# The floors are below what was seen: six seeds of MNIST gave 97.2 to 97.5%; one or two runs of the
# others 81% (fashion-mlp), 80% (cifar10-plain) and 97% (cifar10-deep). None is a whole training.
LESSONS = [
    Lesson("mnist", ("train_mnist.py",), ("first", "final"), HOOD, 0.95, counts=(3600, 400, 1000)),
    Lesson("fashion-mlp", ("train_fashion.py", "--epochs", 3), REMEDIES, FASHION, 0.65),
    Lesson(
        "cifar10-plain",
        ("train_cifar10.py", "--precision", "mixed", "--epochs", 1),  # ten times slower with AVX2
        PLAIN,
        ANSWER,
        0.4,
    ),
    Lesson(
        "cifar10-deep",
        ("train_cifar10.py", "--model", "deep", "--precision", "float32", "--epochs", 3),
        (*PLAIN, "deep-cnn"),
        ANSWER | {"deep.png"},
        0.8,
    ),
    Lesson(
        "simpsons",
        ("train_simpsons.py", "--image-size", 64, "--epochs", 3),
        ("plain", "regularized"),
        FOLDERS,
        0,  # 81 steps of 32 images teach it little yet
        "no images in",
        (425, 85, 84),
    ),
]
MNIST = LESSONS[0].script


def sample_test_set(case):
    if case.name != "simpsons":
        name = {"mnist": "mnist", "fashion": "fashion-mnist"}.get(
            case.name.split("-")[0], "cifar10"
        )
        return datasets.load(name, Path("/nowhere"), sample=True)[1]
    test = sample_test_files()
    images = [predict.prepare(path, (64, 64, 3), "folder")[0] for path in test.paths]
    return np.stack(images), test.labels


def sample_test_files():
    """The test part of the Simpsons' drawings, as the lesson splits them."""
    from common import folders

    images, _, _ = folders.load(
        None, place=Path("/nowhere"), sample=True, download=False, kaggle=("", ""),
        test_images=None, test_folder="kaggle_simpson_testset", min_images=290, side=64,
    )  # fmt: skip
    return folders.split(images, seed=0)[0]["test"]
