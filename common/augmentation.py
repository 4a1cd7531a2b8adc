"""A distortion that does in one step what takes Keras a layer each."""

import math

import keras


class RandomAffine(keras.layers.RandomRotation):
    """Turns, shifts, zooms and mirrors each picture of a batch, each in its own way.

    Keras has `RandomRotation`, `RandomTranslation`, `RandomZoom` and `RandomFlip`; each computes
    every pixel anew, so three of them take about three times as long. All four are
    affine maps of the plane, and so is what they are together: this layer draws the factors as
    they do, multiplies the maps, and looks up every pixel once. (As torchvision's `RandomAffine`.)

    Args:
        rotation: Up to which share of a full turn, either way.
        translation: Up to which share of height and width, each for itself.
        zoom: Lower and upper share by which more is seen, as of `RandomZoom`: negative is nearer.
        flip: Whether a picture is mirrored, left to right, with a probability of one half.
        fill_mode: What is beyond the border, as of `RandomRotation`; "constant": `fill_value`, 0.
        interpolation: "nearest" takes the nearest pixel; "bilinear" blends four, and takes longer.
        **kwargs: Of `RandomRotation`: `fill_value`, `seed`, `dtype` ("uint8": bytes stay bytes).

    Input and output are pictures, shape (count, height, width, channels).
    """

    def __init__(
        self,
        rotation=0.0,
        translation=0.0,
        zoom=(0.0, 0.0),
        *,
        flip=False,
        fill_mode="constant",
        interpolation="nearest",
        **kwargs,
    ):
        super().__init__(rotation, fill_mode=fill_mode, interpolation=interpolation, **kwargs)
        self.translation, self.zoom, self.flip = translation, tuple(zoom), flip

    def get_random_transformation(self, data, training=True, seed=None):
        """Of each pixel of the output, which place of the input it shows: eight numbers each."""
        if not training:
            return None
        ops = self.backend  # in a tf.data pipeline TensorFlow's, whatever Keras runs on
        count, height, width, _ = ops.core.shape(data)
        seed = seed or self._get_seed_generator(ops._backend)

        def draw(lower, upper):
            return ops.random.uniform((count,), lower, upper, seed=seed)

        angle = 2 * math.pi * draw(*self.factor)
        scale = 1 + draw(*self.zoom)
        side = ops.numpy.where(draw(0, 1) < (0.5 if self.flip else 0), -1.0, 1.0)
        height, width = (ops.cast(pixels, "float32") for pixels in (height, width))
        down = height * draw(-self.translation, self.translation)
        right = width * draw(-self.translation, self.translation)
        cos, sin = scale * ops.numpy.cos(angle), scale * ops.numpy.sin(angle)
        x, y = (width - 1) / 2, (height - 1) / 2  # the center stays in its place but for the shift
        from_x = [side * cos, -sin, x - x * side * cos + y * sin + right]
        from_y = [side * sin, cos, y - x * side * sin - y * cos + down]
        nothing = ops.numpy.zeros((count,))
        matrix = ops.numpy.stack([*from_x, *from_y, nothing, nothing], axis=1)
        return {"rotation_matrix": matrix}

    def get_config(self):
        config = super().get_config()
        del config["factor"]
        return config | {
            "rotation": self.factor,
            "translation": self.translation,
            "zoom": self.zoom,
            "flip": self.flip,
        }
