"""Several devices, of one machine or of several: Keras's `distribution`, which needs JAX.

Every process runs the whole lesson. All read the same data in the same order, and each trains on
its own share of every batch, so all have the same weights.
"""

import atexit
import os
import signal
import sys
import threading

import jax
import keras
import tensorflow as tf
from jax.experimental import multihost_utils

from common.options import Mistake

_PATIENCE = 50  # seconds, until all processes must have met
_begun = False  # whether batches have been divided


class EqualShares(keras.distribution.DataParallel):
    """Data parallelism in which all devices get equally many images of each batch.

    The last batch of an epoch is smaller. Where the devices cannot divide a batch, as many of its
    first images as are missing are used twice, as PyTorch's `DistributedSampler` does. Unequal
    shares would stop JAX or, in several processes, leave each with other weights.
    """

    def distribute_dataset(self, dataset):
        """The share of this process; `fit` and `evaluate` call it.

        Args:
            dataset: A `tf.data.Dataset` of batches, each a tuple of arrays, shape (count, ...).
        """
        devices = self.device_mesh.devices.size

        def share(*batch):
            size = tf.shape(batch[0])[0]
            own = -(-size // devices) * (devices // jax.process_count())  # rounded up
            indices = (own * jax.process_index() + tf.range(own)) % size
            return tuple(tf.gather(array, indices) for array in batch)

        return dataset.map(share).prefetch(2)


def divide():
    """Let Keras divide each batch among all devices, from here on.

    `keras.distribution.set_distribution(None)` ends it, after the training.
    """
    global _begun
    _begun = True
    keras.distribution.set_distribution(EqualShares())
    count, processes = jax.device_count(), jax.process_count()
    whose = f" of {processes} processes; this is process {jax.process_index()}"
    whose *= processes > 1
    print(f"Each batch is divided among {count} device{'s'[: count > 1]}{whose}.")


def join(seed):
    """Find the other processes; end the program if they do not answer.

    Args:
        seed: Of the lesson; the same in all processes.

    Raises:
        Mistake: The processes do not fit together.
    """
    keras.utils.set_random_seed(seed)  # or else Keras would choose one, for all processes
    count = os.environ["KERAS_DISTRIBUTION_NUM_PROCESSES"]
    place = os.environ.get("KERAS_DISTRIBUTION_JOB_ADDRESSES", "the first node").split(",")[0]

    def give_up():
        what = f"{count} processes have not met at {place} in {_PATIENCE} s. Is each started, with "
        what += "a number of its own from 0, and can they reach one another? (docs/scaling.md)"
        os.write(2, f"{Mistake(what)}\n".encode())
        os._exit(1)  # JAX would wait on, and abort

    print(f"Waiting for {count} processes to meet at {place}", flush=True)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C in one ends all: JAX tells the others
    timer = threading.Timer(_PATIENCE, give_up)
    timer.daemon = True
    timer.start()
    jax.config.update("jax_enable_preemption_service", False)  # it would ignore SIGTERM
    try:
        keras.distribution.initialize()
        multihost_utils.sync_global_devices("start")  # they can speak to one another, too
    except (ValueError, RuntimeError) as error:
        raise Mistake(f"the processes cannot meet: {error}") from None
    timer.cancel()
    atexit.register(_leave)


def _leave():
    """End without JAX, which would wait for processes that wait for this one, or are gone."""
    if keras.distribution.distribution() or not _begun:  # not trained to the end
        why = "If no error is above, another process has failed."
        print(f"Ended: the training is not complete. {why}", file=sys.stderr)
        os._exit(1)
