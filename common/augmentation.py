"""A distortion that does in one step what takes Keras a layer each."""

import functools
import math

import keras
import tensorflow as tf

from common import devices


class RandomAffine(keras.layers.RandomRotation):
    """Turns, shifts, zooms and mirrors each picture of a batch, each in its own way.

    Keras has `RandomRotation`, `RandomTranslation`, `RandomZoom` and `RandomFlip`; each computes
    every pixel anew. All four are affine maps of the plane, and so is what they are together:
    this layer draws the factors as they do, and looks up every pixel once, in a loop that XLA,
    TensorFlow's compiler, compiles (but beside a GPU). On a CPU, which also trains, that saves
    much: three of Keras's layers, with nearest pixels, took 8 times as long for grey pictures of
    28x28, and 19 times for 128x128 in color (one core of an AMD EPYC Zen 5, TensorFlow 2.21).
    Compare torchvision's `RandomAffine`.

    A pixel becomes the nearest one of the place that it shows; beyond the border, the nearest on
    the border, as with `interpolation="nearest", fill_mode="nearest"` of Keras's layers.

    Args:
        rotation: Up to which share of a full turn, either way; or the lower and the upper one.
        translation: Up to which share of height and width, each for itself.
        zoom: Lower and upper share by which more is seen, as of `RandomZoom`: negative is nearer.
        flip: Whether a picture is mirrored, left to right, with a probability of one half.
        **kwargs: Of `RandomRotation`: `seed`, `dtype` ("uint8": bytes stay bytes).

    Input and output are pictures, shape (count, height, width, channels), or a single one,
    without the count. It computes on the CPU and in TensorFlow, as the input pipeline does,
    whatever Keras trains on.
    """

    def __init__(self, rotation=0.0, translation=0.0, zoom=(0.0, 0.0), *, flip=False, **kwargs):
        super().__init__(rotation, fill_mode="nearest", interpolation="nearest", **kwargs)
        self.translation, self.zoom, self.flip = translation, tuple(zoom), flip
        _look_up()

    def get_random_transformation(self, data, training=True, seed=None):
        """Turn, zoom, shift down and right, and mirroring: 0 to 1 each, shape (5, count)."""
        if not training:
            return None
        ops = self.backend  # in a tf.data pipeline TensorFlow's, whatever Keras runs on
        shape = ops.core.shape(data)
        seed = seed or self._get_seed_generator(ops._backend)
        return ops.random.uniform((5, shape[0] if len(shape) == 4 else 1), seed=seed)

    def transform_images(self, images, transformation, training=True):
        if self.backend._backend != "tensorflow":  # outside of a tf.data pipeline
            images, transformation = (
                None if x is None else keras.ops.convert_to_numpy(x)
                for x in (images, transformation)
            )
        images = tf.cast(images, self.compute_dtype)
        if not training:
            return images
        shift = (-self.translation, self.translation)
        ranges = tf.constant([self.factor, self.zoom, shift, shift, (0, 1)])[:, :, None]
        turn, more, down, right, half = tf.unstack(
            ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * transformation
        )
        side = tf.where(half < (0.5 if self.flip else 0), -1.0, 1.0)
        cos, sin = (1 + more) * tf.cos(2 * math.pi * turn), (1 + more) * tf.sin(2 * math.pi * turn)
        with tf.device("CPU"):
            return _look_up()(images, tf.stack([side * sin, cos, down, side * cos, -sin, right]))

    def get_config(self):
        config = super().get_config()
        for name in ("factor", "fill_mode", "fill_value", "interpolation"):
            del config[name]
        return config | {
            "rotation": self.factor,
            "translation": self.translation,
            "zoom": self.zoom,
            "flip": self.flip,
        }


@functools.cache
def _look_up():
    """`_pixels`, compiled where that can be done."""
    if tf.config.list_physical_devices("GPU"):  # where XLA for the CPU has not been tried
        return _pixels
    compiled = tf.function(_pixels, jit_compile=True)
    with devices.quiet():  # TensorFlow 2.20 tells of the first use of XLA
        try:
            compiled(tf.zeros((1, 1, 1, 1), tf.uint8), tf.zeros((6, 1)))
        except (tf.errors.OpError, ValueError):  # a TensorFlow that was built without it
            return _pixels
    return compiled


def _pixels(images, maps):
    """Each pixel of the output from the place that it shows, counted from the picture's center.

    That is, of a pixel at (y, x): row a x + b y + c height, column d x + e y + f width; `maps` has
    a to f of each picture, shape (6, count).
    """
    count, height, width, channels = tf.unstack(tf.shape(images))
    a, b, c, d, e, f = tf.unstack(maps[:, :, None, None])
    rows, columns = (tf.cast(size, tf.float32) for size in (height, width))
    y = tf.range(rows)[None, :, None] - (rows - 1) / 2
    x = tf.range(columns)[None, None, :] - (columns - 1) / 2
    row = a * x + (b * y + (c + 0.5) * rows)  # half a pixel more, so that cutting off rounds
    column = d * x + (e * y + (f + 0.5) * columns)
    row = tf.cast(tf.clip_by_value(row, 0, rows - 1), tf.int32)
    column = tf.cast(tf.clip_by_value(column, 0, columns - 1), tf.int32)
    first = tf.range(count)[:, None, None] * (height * width)
    return tf.gather(tf.reshape(images, (-1, channels)), first + row * width + column)
