"""The pipeline's order: what comes every epoch, what changes, and what never does."""

import keras
import numpy as np
import pytest

from common import pipeline

COUNT = 64


@pytest.fixture(scope="module")
def pictures():
    """Pictures that can be told apart by their label, as (x, y)."""
    generator = np.random.default_rng(0)
    return generator.integers(1, 256, (COUNT, 28, 28, 1), dtype=np.uint8), np.arange(COUNT)


def collect(dataset):
    """All pictures and labels of one epoch, in the order in which they come."""
    batches = list(dataset.as_numpy_iterator())
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def shift():
    return keras.layers.RandomTranslation(0.3, 0.3, fill_mode="constant", dtype="uint8", seed=1)


def test_every_training_picture_comes_once_an_epoch_in_another_order(pictures):
    dataset = pipeline.training_batches(*pictures, 10, seed=3)
    (_, first), (_, second) = collect(dataset), collect(dataset)
    assert sorted(first) == sorted(second) == list(range(COUNT))
    assert first.tolist() != second.tolist()
    assert len(dataset) == 7  # the last, smaller batch comes too


def test_the_seed_decides_the_order(pictures):
    orders = []
    for seed in (3, 3, 4):
        pipeline.begin_epoch(0)
        orders.append(collect(pipeline.training_batches(*pictures, 10, seed=seed))[1])
    assert orders[0].tolist() == orders[1].tolist() != orders[2].tolist()


def test_augmentation_differs_from_epoch_to_epoch_and_picture_to_picture(pictures):
    x, y = pictures
    same = np.repeat(x[:1], COUNT, axis=0)  # one picture, many times
    dataset = pipeline.training_batches(same, y, 16, shift(), seed=0)
    (first, order), (second, order_2) = collect(dataset), collect(dataset)
    first, second = first[np.argsort(order)], second[np.argsort(order_2)]
    assert first.dtype == np.uint8  # bytes until the model
    changed = (first != second).any(axis=(1, 2, 3)).mean()
    assert changed > 0.95
    for batch, _ in dataset.as_numpy_iterator():
        assert len(np.unique(batch.reshape(len(batch), -1), axis=0)) == len(batch)


def test_what_is_evaluated_is_never_distorted_nor_reordered(pictures):
    dataset = pipeline.evaluation_batches(*pictures, 10)
    for _ in range(2):
        x, y = collect(dataset)
        np.testing.assert_array_equal(x, pictures[0])
        np.testing.assert_array_equal(y, pictures[1])


def test_without_augmentation_training_pictures_are_as_they_were(pictures):
    x, y = collect(pipeline.training_batches(*pictures, 10))
    np.testing.assert_array_equal(x, pictures[0][y])


def test_no_epoch_waits_for_the_autotuner(pictures):
    for dataset in [
        pipeline.training_batches(*pictures, 10, shift()),
        pipeline.evaluation_batches(*pictures, 10),
    ]:
        assert dataset.options().autotune.enabled is False
