"""One affine map against Keras's layers, which do a part of it each."""

import keras
import numpy as np
import pytest

from common import augmentation, pipeline
from common.augmentation import RandomAffine

NEAREST = {"fill_mode": "nearest", "interpolation": "nearest", "dtype": "uint8"}


@pytest.fixture(scope="module")
def pictures():
    """Smooth pictures, so that two ways to blend their pixels agree: uint8, (6, 40, 30, 3)."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (6, 5, 4, 3)).astype("float32")
    smooth = keras.ops.image.resize(coarse, (40, 30), interpolation="bicubic")
    return keras.ops.convert_to_numpy(keras.ops.clip(smooth, 0, 255)).astype(np.uint8)


def distorted(layer, pictures):
    result = keras.ops.convert_to_numpy(layer(pictures, training=True))
    assert result.dtype == np.uint8
    return result.astype(int)


@pytest.mark.parametrize(
    ("ours", "keras_layer", "factor"),
    [
        ({"rotation": (0.1, 0.1)}, "RandomRotation", (0.1, 0.1)),
        ({"rotation": (-0.05, -0.05)}, "RandomRotation", (-0.05, -0.05)),
        ({"zoom": (-0.3, -0.3)}, "RandomZoom", (-0.3, -0.3)),
        ({"zoom": (0.23, 0.23)}, "RandomZoom", (0.23, 0.23)),
    ],
)
def test_alone_each_is_that_of_keras(pictures, ours, keras_layer, factor):
    theirs = distorted(getattr(keras.layers, keras_layer)(factor, **NEAREST), pictures)
    result = distorted(RandomAffine(**ours, dtype="uint8"), pictures)
    assert np.abs(result - pictures).mean() > 10  # it does something
    differ = np.abs(result - theirs).max(axis=-1) > 1
    assert differ.mean() < 0.02  # where a place falls between two pixels


def test_together_they_are_one_after_the_other(pictures):
    both = distorted(RandomAffine((0.04, 0.04), zoom=(-0.2, -0.2), dtype="uint8"), pictures)
    how = NEAREST | {"interpolation": "bilinear"}  # so that two steps lose little
    after = keras.layers.RandomRotation((0.04, 0.04), **how)(pictures, training=True)
    after = distorted(keras.layers.RandomZoom((-0.2, -0.2), **how), after)
    assert np.abs(both - after).mean() < 5  # two bilinear steps against one nearest
    assert np.abs(both - pictures).mean() > 10


def test_pictures_are_shifted_as_far_as_asked(pictures):
    layer = RandomAffine(translation=0.1, seed=1, dtype="uint8")
    shifts = set()
    for _ in range(20):
        for before, after in zip(pictures, distorted(layer, pictures), strict=True):
            down, right = _shift(before, after)
            shifts.add((down, right))
    downs, rights = zip(*shifts, strict=True)
    assert (min(downs), max(downs)) == (-4, 4)  # of 40 pixels
    assert (min(rights), max(rights)) == (-3, 3)  # of 30
    assert len(shifts) > 20  # height and width, each for itself


def _shift(before, after):
    """By how many rows and columns a picture was shifted, its border repeated."""
    for down in range(-5, 6):
        for right in range(-5, 6):
            rows = np.clip(np.arange(len(before)) - down, 0, len(before) - 1)
            columns = np.clip(np.arange(before.shape[1]) - right, 0, before.shape[1] - 1)
            moved = before[rows][:, columns]
            if np.array_equal(moved, after):
                return down, right
    raise AssertionError("not a shift")


def test_half_of_the_pictures_are_mirrored(pictures):
    layer = RandomAffine(flip=True, seed=1, dtype="uint8")
    many = np.repeat(pictures, 50, axis=0)
    result = distorted(layer, many)
    mirrored = (result == many[:, :, ::-1]).all(axis=(1, 2, 3))
    assert ((result == many).all(axis=(1, 2, 3)) ^ mirrored).all()
    assert 0.4 < mirrored.mean() < 0.6  # of 300: 3.5 standard deviations


def test_without_a_factor_and_outside_of_training_nothing_changes(pictures):
    np.testing.assert_array_equal(distorted(RandomAffine(dtype="uint8"), pictures), pictures)
    layer = RandomAffine(0.2, 0.2, (-0.3, 0.3), flip=True, dtype="uint8")
    np.testing.assert_array_equal(layer(pictures, training=False), pictures)


def test_without_xla_it_does_the_same(pictures, monkeypatch):
    layer = RandomAffine((0.1, 0.1), zoom=(-0.2, -0.2), dtype="uint8")
    compiled = distorted(layer, pictures)
    monkeypatch.setattr(augmentation, "_look_up", lambda: augmentation._pixels)
    differ = np.abs(distorted(layer, pictures) - compiled).max(axis=-1) > 0
    assert differ.mean() < 0.01  # a place between two pixels may be rounded the other way


def test_a_single_picture_is_distorted_as_one_of_a_batch(pictures):
    layer = RandomAffine((0.1, 0.1), zoom=(-0.2, -0.2), dtype="uint8")
    batch, single = distorted(layer, pictures[:1]), distorted(layer, pictures[0])
    np.testing.assert_array_equal(single, batch[0])


def test_it_is_saved_and_loaded_as_a_layer_of_a_model(pictures, tmp_path):
    layer = RandomAffine((0.1, 0.1), zoom=(-0.3, -0.3), dtype="uint8")
    model = keras.Sequential([keras.Input((40, 30, 3), dtype="uint8"), layer])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(
        tmp_path / "model.keras", custom_objects={"RandomAffine": RandomAffine}
    )
    assert loaded.layers[-1].get_config() == layer.get_config()
    np.testing.assert_array_equal(
        distorted(loaded.layers[-1], pictures), distorted(layer, pictures)
    )


def test_in_the_pipeline_each_picture_has_its_own(pictures):
    same = np.repeat(pictures[:1], 32, axis=0)
    augment = RandomAffine(0.1, 0.1, (-0.2, 0.2), flip=True, dtype="uint8")
    darker = keras.layers.RandomBrightness((-0.2, -0.2))  # beside Keras's own; it makes floats
    augment = keras.layers.Pipeline([augment, darker])
    batches = pipeline.training_batches(same, np.arange(32), 8, augment).as_numpy_iterator()
    x = np.concatenate([pictures for pictures, _ in batches])
    assert len(np.unique(x.reshape(32, -1), axis=0)) == 32
    assert x.max() <= pictures[0].max() - 50  # a fifth of 255
