"""Arrays -> tf.data, in the one order: cache, shuffle, batch, augment, prefetch."""

import contextlib
import ctypes
import gc
import itertools
import os
import sys
import weakref
from unittest import mock

import keras
import tensorflow as tf

from common import devices

# As many files are decoded at a time as there are cores; as many batches distorted, or half as
# many where the network computes on the same cores; and four are kept ready. Not
# `tf.data.AUTOTUNE`: its thread is asleep when an epoch ends, and the epoch waits until it wakes
# (TensorFlow 2.21, in the destructor of `RootDataset`). On two cores that was nothing in one
# epoch and up to four seconds in the next; these numbers were as fast, without the wait.
PARALLEL = os.cpu_count() or 1
READY = 4

with tf.device("CPU"):
    _epoch = tf.Variable(0, dtype=tf.int64)  # which the next pass over training batches is


def _share_freed_memory():
    """Let threads share what they have freed: one heap a core, where glibc would give eight.

    What is freed in one heap serves only the threads of that heap, and TensorFlow has many.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(-8, devices.cores())  # M_ARENA_MAX of malloc.h


_share_freed_memory()


def return_freed_memory():
    """Give the system back what this program has freed; glibc keeps it, in case it is asked again.

    Between two large steps, so that the peak is that of the larger one, not their sum.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


def training_batches(x, y, batch_size, augment=None, *, seed=0):
    """Batches to train on, in another order and with other distortions at each epoch.

    Both follow from the seed and the number of the epoch (`begin_epoch`) alone, so that a
    training that was cut off goes on as it would have.

    Args:
        x: Pictures, uint8, shape (count, height, width, channels).
        y: Labels, integers, shape (count,).
        batch_size: Pictures a batch; the last one may have fewer.
        augment: A layer that distorts a batch of pictures, each in its own way; None: none.
        seed: Of the order and the distortions.

    Returns:
        A `tf.data.Dataset` of (pictures, labels) with every picture once.
    """
    return _epochs(_cached(x, y), len(x), batch_size, augment, seed)


def begin_epoch(number):
    """Let the next pass over training batches be that of epoch `number`, counted from 0.

    The run's callbacks say so; without them, each pass is that of the next epoch.
    """
    _epoch.assign(number)


def evaluation_batches(x, y, batch_size):
    """Batches to validate or test on: in their own order, never distorted.

    Arguments and result are those of `training_batches`.
    """
    return _cached(x, y).batch(batch_size).prefetch(READY)


def _epochs(cached, buffer, batch_size, augment, seed):
    count = -(-len(cached) // batch_size)

    def one_epoch(_):
        key = tf.stack([tf.constant(seed, tf.int64), _epoch.assign_add(1) - 1])
        tf.random.set_seed(1)  # of this function's graph; with 0, shuffle takes no tensor as a seed
        of_order = tf.cast(tf.random.experimental.stateless_fold_in(key, count)[0], tf.int64)
        order = cached.shuffle(buffer, seed=of_order, reshuffle_each_iteration=False)
        return order.batch(batch_size).enumerate().map(lambda i, batch: (key, i, *batch))

    dataset = tf.data.Dataset.range(1).flat_map(one_epoch)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(count))

    def augmented(key, i, pictures, labels):
        if augment is not None:
            with _drawing_from(tf.random.experimental.stateless_fold_in(key, i)):
                pictures = augment(pictures, training=True)
        return pictures, labels

    # TensorFlow's determinism allows no parallel calls behind a variable (`_epoch`), and says so
    # by a line about an unknown attribute.
    parallel = PARALLEL if tf.config.list_physical_devices("GPU") else max(1, PARALLEL // 2)
    parallel = None if devices.deterministic else parallel
    dataset = dataset.map(augmented, num_parallel_calls=parallel).prefetch(READY)
    return dataset.with_options(_without_autotuner())


@contextlib.contextmanager
def _drawing_from(key):
    """Let Keras's layers draw their random numbers from this key, of shape (2,).

    A `SeedGenerator` counts its draws in a variable: which batch gets which numbers then depends
    on which of those that are distorted at the same time comes first.
    """
    draws = itertools.count()

    def next_seed(self, ordered=True):
        drawn = tf.random.experimental.stateless_fold_in(key, next(draws))
        return tf.cast(drawn % 2**31, self.state.dtype)

    with mock.patch.object(keras.random.SeedGenerator, "next", next_seed):
        yield


def _cached(x, y):
    dataset = tf.data.Dataset.from_tensor_slices((_tensor(x), y)).cache()
    return dataset.with_options(_without_autotuner())


def _without_autotuner():
    options = tf.data.Options()
    options.autotune.enabled = False
    return options


_tensors = {}


def _tensor(x):
    """An array as a tensor: the same one each time, because each is a copy of all its bytes."""
    key = id(x)
    if key not in _tensors:
        forget = weakref.ref(x, lambda _: _tensors.pop(key))
        _tensors[key] = tf.constant(x), forget
    return _tensors[key][0]
