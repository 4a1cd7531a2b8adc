"""The drawings: in the formats they stand in for, varied, the same for the same seed."""

import runpy
from types import SimpleNamespace

import numpy as np
from conftest import REPO
from PIL import Image

draw = SimpleNamespace(**runpy.run_path(str(REPO / "data" / "sample" / "draw.py")))


def test_drawings_are_balanced_varied_and_the_same_again():
    first, again, other = (draw.cifar10(train=6, test=2, seed=seed) for seed in (0, 0, 1))
    for name, shape in [("x_train", (60, 32, 32, 3)), ("x_test", (20, 32, 32, 3))]:
        assert (first[name].shape, first[name].dtype) == (shape, np.uint8)
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != other[name]).any()
        assert len({image.tobytes() for image in first[name]}) == len(first[name])
    assert np.bincount(first["y_train"]).tolist() == [6] * 10


def test_no_single_pixel_tells_the_class():
    drawn = draw.cifar10()
    x = drawn["x_train"].reshape(5000, -1).astype(np.float32)
    means = np.stack([x[drawn["y_train"] == i].mean(axis=0) for i in range(10)])
    test = drawn["x_test"].reshape(1000, -1).astype(np.float32)
    nearest = ((test[:, None] - means) ** 2).sum(axis=-1).argmin(axis=1)
    # 10% is guessing; the class whose mean image is nearest was correct for 12%.
    assert (nearest == drawn["y_test"]).mean() < 0.2


def test_two_cartoons_of_two_persons_change_places(tmp_path):
    draw.write_cartoons(tmp_path / "made", most=20)  # so few that no labels are exchanged
    folder = tmp_path / "made" / "simpsons_dataset"
    before = {path: path.read_bytes() for path in folder.rglob("*.jpg")}
    draw._exchange_labels(folder, np.random.default_rng(0))
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    one, other = (path for path in before if before[path] != after[path])
    assert one.parent != other.parent
    assert (after[one], after[other]) == (before[other], before[one])


def test_cartoons_have_kaggles_layout_mixed_sizes_and_are_the_same_again(tmp_path):
    folders = [tmp_path / name / "cartoons" for name in ("sample", "again")]
    drawn = []
    for folder in folders:
        draw.write_cartoons(folder, most=20)
        assert list(folder.parent.iterdir()) == [folder]  # nothing half made
        paths = sorted(folder.rglob("*.jpg"))
        drawn.append([(path.relative_to(folder), path.read_bytes()) for path in paths])
    assert drawn[0] == drawn[1]
    assert len({Image.open(path).size for path in paths}) > 50
    persons = sorted((folder / "simpsons_dataset").iterdir())
    assert [len(list(own.glob("pic_????.jpg"))) for own in persons] == [20, 10, 7, 5, 4]
    names = {f"{person.name}_{i}.jpg" for person in persons for i in range(20)}
    assert {path.name for path in (folder / "kaggle_simpson_testset").iterdir()} == names
