"""Arrays -> tf.data, in the one order: cache, shuffle, batch, augment, prefetch."""

import os
import weakref

import tensorflow as tf

# As many batches are distorted at a time as there are cores, and four are kept ready. Not
# `tf.data.AUTOTUNE`: its thread is asleep when an epoch ends, and the epoch waits until it wakes
# (TensorFlow 2.21, in the destructor of `RootDataset`). On two cores that was nothing in one
# epoch and up to four seconds in the next; these two numbers were as fast, without the wait.
PARALLEL = os.cpu_count() or 1
READY = 4


def training_batches(x, y, batch_size, augment=None, *, seed=0):
    """Batches to train on, in another order and with other distortions at each epoch.

    Args:
        x: Pictures, uint8, shape (count, height, width, channels).
        y: Labels, integers, shape (count,).
        batch_size: Pictures a batch; the last one may have fewer.
        augment: A layer that distorts a batch of pictures, each in its own way; None: none.
        seed: Of the order.

    Returns:
        A `tf.data.Dataset` of (pictures, labels) with every picture once.
    """
    dataset = _cached(x, y).shuffle(len(x), seed=seed).batch(batch_size)
    if augment is not None:
        # Batches that are distorted at the same time may draw the same numbers from the layers'
        # generator; each picture of a batch has its own all the same.
        dataset = dataset.map(
            lambda pictures, labels: (augment(pictures, training=True), labels),
            num_parallel_calls=PARALLEL,
        )
    return dataset.prefetch(READY)


def evaluation_batches(x, y, batch_size):
    """Batches to validate or test on: in their own order, never distorted.

    Arguments and result are those of `training_batches`.
    """
    return _cached(x, y).batch(batch_size).prefetch(READY)


def _cached(x, y):
    options = tf.data.Options()
    options.autotune.enabled = False
    return tf.data.Dataset.from_tensor_slices((_tensor(x), y)).cache().with_options(options)


_tensors = {}


def _tensor(x):
    """An array as a tensor: the same one each time, because each is a copy of all its bytes."""
    key = id(x)
    if key not in _tensors:
        forget = weakref.ref(x, lambda _: _tensors.pop(key))
        _tensors[key] = tf.constant(x), forget
    return _tensors[key][0]
