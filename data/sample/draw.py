"""Draws the stand-ins for data that may not be shipped. NumPy and Pillow, no TensorFlow.

A drawn thing is a list of shapes, each a role, which chooses its color, and a polygon: points of
(x, y) within -1 to 1, y downward. Every image gets its own colors, place, size, turn and
background, so that no pixel tells the class: its form has to be seen.
"""

import math
import os
import shutil
import tempfile

import numpy as np
from PIL import Image, ImageDraw

BODY, SECOND, DARK, LIGHT = range(4)
SKIN = 7  # behind the colors of the three patches of clutter


def _ellipse(x, y, width, height):
    """The points of an ellipse around (x, y), of these half axes."""
    angles = np.linspace(0, 2 * math.pi, 14, endpoint=False)
    return np.stack([x + width * np.cos(angles), y + height * np.sin(angles)], axis=1)


def _bar(x0, y0, x1, y1, width):
    """The points of a straight bar between two points."""
    along = np.array([x1 - x0, y1 - y0])
    across = np.array([-along[1], along[0]]) * width / 2 / np.hypot(*along)
    start, end = np.array([x0, y0]), np.array([x1, y1])
    return np.stack([start + across, end + across, end - across, start - across])


def _mirrored(*shapes):
    """The shapes, and the same at the other side."""
    return [*shapes, *((role, np.asarray(points) * [-1, 1]) for role, points in shapes)]


def _eyes(x, y, radius, pupil):
    """Two eyes, with pupils of these half axes."""
    return _mirrored(
        (LIGHT, _ellipse(x, y, radius, radius)),
        (DARK, _ellipse(x, y, *pupil)),
    )


def _four_legs(neck, head):
    """What deer and horse have in common."""
    feet = [(-0.5, -0.06), (-0.34, 0.06), (0.28, -0.06), (0.44, 0.06)]
    legs = [(SECOND, _bar(x, 0.1, x + lean, 0.9, 0.11)) for x, lean in feet]
    return [*legs, (BODY, _ellipse(0, 0.1, 0.62, 0.25)), (BODY, neck), (BODY, head)]


_THINGS = {
    "airplane": [
        (SECOND, [(-0.1, 0.0), (0.25, 0.0), (-0.25, 0.75), (-0.45, 0.75)]),
        (SECOND, [(-0.1, 0.0), (0.25, 0.0), (-0.25, -0.75), (-0.45, -0.75)]),
        (BODY, _ellipse(0.05, 0, 0.85, 0.14)),
        (DARK, [(-0.75, 0.0), (-0.55, 0.0), (-0.8, -0.4), (-0.92, -0.4)]),
        (LIGHT, _ellipse(0.65, -0.03, 0.12, 0.06)),
    ],
    "automobile": [
        (BODY, [(-0.9, 0.05), (0.9, 0.05), (0.9, 0.42), (-0.9, 0.42)]),
        (SECOND, [(-0.62, 0.07), (-0.35, -0.35), (0.3, -0.35), (0.6, 0.07)]),
        (LIGHT, [(-0.42, 0.02), (-0.27, -0.25), (-0.05, -0.25), (-0.05, 0.02)]),
        (LIGHT, [(0.05, 0.02), (0.05, -0.25), (0.25, -0.25), (0.42, 0.02)]),
        *_mirrored((DARK, _ellipse(0.52, 0.42, 0.2, 0.2))),
    ],
    "bird": [
        (DARK, _bar(-0.1, 0.3, -0.14, 0.8, 0.06)),
        (DARK, _bar(0.1, 0.3, 0.12, 0.8, 0.06)),
        (SECOND, [(-0.4, 0.05), (-0.95, -0.2), (-0.95, 0.2)]),
        (BODY, _ellipse(-0.05, 0.1, 0.5, 0.3)),
        (BODY, _ellipse(0.42, -0.28, 0.22, 0.22)),
        (LIGHT, [(0.6, -0.36), (0.95, -0.24), (0.6, -0.16)]),
        (SECOND, [(-0.4, 0.0), (0.2, -0.02), (-0.25, 0.32)]),
    ],
    "cat": [
        *_mirrored((BODY, [(0.15, -0.4), (0.62, -0.9), (0.66, -0.1)])),
        (BODY, _ellipse(0, 0.1, 0.68, 0.6)),
        *_eyes(0.27, -0.05, 0.13, (0.05, 0.12)),
        (SECOND, [(-0.1, 0.22), (0.1, 0.22), (0.0, 0.34)]),
        *_mirrored((DARK, _bar(0.2, 0.35, 0.85, 0.25, 0.04))),
        *_mirrored((DARK, _bar(0.2, 0.42, 0.85, 0.5, 0.04))),
    ],
    "deer": [
        *_four_legs(_bar(0.45, 0.1, 0.62, -0.42, 0.2), _ellipse(0.7, -0.42, 0.22, 0.12)),
        (DARK, _bar(0.58, -0.5, 0.4, -0.95, 0.06)),
        (DARK, _bar(0.5, -0.7, 0.66, -0.95, 0.06)),
        (DARK, _bar(0.66, -0.5, 0.86, -0.95, 0.06)),
        (LIGHT, _ellipse(-0.6, 0.0, 0.09, 0.09)),
    ],
    "dog": [
        (BODY, _ellipse(0, 0.0, 0.58, 0.6)),
        *_mirrored((SECOND, _ellipse(0.62, 0.05, 0.18, 0.45))),
        (LIGHT, _ellipse(0, 0.42, 0.32, 0.3)),
        (DARK, _ellipse(0, 0.3, 0.14, 0.1)),
        *_eyes(0.24, -0.15, 0.12, (0.07, 0.07)),
        (SECOND, _ellipse(0, 0.68, 0.1, 0.14)),
    ],
    "frog": [
        *_mirrored((SECOND, _ellipse(0.68, 0.5, 0.26, 0.3))),
        *_mirrored((BODY, _ellipse(0.38, -0.3, 0.22, 0.22))),
        (BODY, _ellipse(0, 0.22, 0.75, 0.45)),
        *_eyes(0.38, -0.34, 0.14, (0.07, 0.07)),
        (DARK, _bar(-0.5, 0.2, 0.5, 0.2, 0.06)),
    ],
    "horse": [
        (DARK, [(-0.55, -0.05), (-0.95, 0.15), (-0.85, 0.6), (-0.62, 0.15)]),
        (DARK, [(0.25, -0.05), (0.42, -0.75), (0.6, -0.65), (0.45, 0.0)]),
        *_four_legs(_bar(0.42, 0.1, 0.6, -0.55, 0.26), _ellipse(0.74, -0.5, 0.26, 0.13)),
        (BODY, [(0.5, -0.6), (0.55, -0.85), (0.65, -0.6)]),
    ],
    "ship": [
        (DARK, _bar(-0.05, 0.2, -0.05, -0.9, 0.07)),
        (LIGHT, [(0.02, -0.85), (0.02, 0.1), (0.6, 0.1)]),
        (SECOND, [(-0.12, -0.6), (-0.12, 0.1), (-0.5, 0.1)]),
        (BODY, [(-0.9, 0.2), (0.9, 0.2), (0.6, 0.65), (-0.6, 0.65)]),
    ],
    "truck": [
        (BODY, [(-0.92, -0.5), (0.35, -0.5), (0.35, 0.4), (-0.92, 0.4)]),
        (SECOND, [(0.4, -0.15), (0.75, -0.15), (0.92, 0.12), (0.92, 0.4), (0.4, 0.4)]),
        (LIGHT, [(0.55, -0.07), (0.72, -0.07), (0.82, 0.12), (0.55, 0.12)]),
        *((DARK, _ellipse(x, 0.45, 0.17, 0.17)) for x in (-0.68, -0.28, 0.65)),
    ],
}
CIFAR10_NAMES = list(_THINGS)


def _person(hair, face, clothes):
    """Shoulders, a yellow head with eyes, nose and mouth, and what tells one from another."""
    return [
        (BODY, [(-0.75, 1.1), (-0.6, 0.6), (-0.2, 0.48), (0.2, 0.48), (0.6, 0.6), (0.75, 1.1)]),
        *clothes,
        (SKIN, _bar(0, 0.2, 0, 0.55, 0.28)),
        (SKIN, _ellipse(0, -0.1, 0.4, 0.48)),
        *hair,
        *_eyes(0.16, -0.15, 0.12, (0.04, 0.04)),
        (SKIN, _ellipse(0.04, 0.03, 0.07, 0.06)),
        (DARK, _bar(-0.14, 0.2, 0.16, 0.2, 0.035)),
        *face,
    ]


_PERSONS = {
    "adam_archer": _person(
        hair=[
            (SECOND, _bar(-0.35, -0.35, -0.6, -0.95, 0.1)),
            (BODY, [(-0.5, -0.32), (-0.1, -0.98), (0.7, -0.38)]),
        ],
        face=[(DARK, _bar(-0.3, -0.3, -0.08, -0.26, 0.05))],
        clothes=[(LIGHT, [(-0.12, 0.5), (0.12, 0.5), (0, 0.75)])],
    ),
    "betty_baker": _person(
        hair=[
            *_mirrored((LIGHT, _ellipse(0.28, -0.7, 0.24, 0.2))),
            (LIGHT, _ellipse(0, -0.8, 0.26, 0.2)),
            (LIGHT, _bar(0, -0.4, 0, -0.7, 0.6)),
        ],
        face=[(DARK, _ellipse(0, 0.21, 0.1, 0.06))],
        clothes=_mirrored((LIGHT, _ellipse(0.16, 0.56, 0.07, 0.05))),
    ),
    "carl_captain": _person(
        hair=[(BODY, _ellipse(0, -0.5, 0.42, 0.2)), (DARK, _bar(-0.42, -0.42, 0.5, -0.42, 0.1))],
        face=[(DARK, [(-0.34, 0.15), (-0.2, 0.42), (0.2, 0.42), (0.34, 0.15), (0, 0.28)])],
        clothes=[(LIGHT, _ellipse(0, y, 0.05, 0.05)) for y in (0.7, 0.9)],
    ),
    "dora_diver": _person(
        hair=[
            *_mirrored((SECOND, _ellipse(0.5, -0.1, 0.14, 0.36))),
            (SECOND, _ellipse(0, -0.5, 0.4, 0.15)),
        ],
        face=_mirrored((DARK, _bar(0.04, -0.28, 0.3, -0.28, 0.04))),
        clothes=[(SECOND, _bar(-0.6, 0.8, 0.6, 0.8, 0.12))],
    ),
    "emil_engineer": _person(
        hair=_mirrored((DARK, _ellipse(0.4, -0.15, 0.08, 0.16))),
        face=[
            *_mirrored((DARK, _bar(0.03, -0.02, 0.3, -0.02, 0.03))),
            (DARK, _bar(-0.2, 0.12, 0.2, 0.12, 0.09)),
        ],
        clothes=_mirrored((SECOND, _bar(0.3, 0.55, 0.25, 1.1, 0.12))),
    ),
}


def cifar10(train=500, test=100, seed=0):
    """Draw ten simple things that stand for CIFAR-10's classes.

    Args:
        train, test: Images of each class.
        seed: Of everything that varies.

    Returns:
        A dict of `x_train`, `y_train`, `x_test` and `y_test`: images are uint8 arrays of
        shape (count, 32, 32, 3), labels uint8 of shape (count,), in random order.
    """
    generator = np.random.default_rng(seed)
    arrays = {}
    for part, count in [("train", train), ("test", test)]:
        labels = generator.permutation(np.repeat(np.arange(10, dtype=np.uint8), count))
        arrays[f"x_{part}"] = _draw([_THINGS[CIFAR10_NAMES[y]] for y in labels], generator)
        arrays[f"y_{part}"] = labels
    return arrays


def write_cartoons(folder, most=260, seed=0):
    """Draw five persons of a cartoon of our own, in the layout of Kaggle's Simpsons.

    JPEG files of mixed sizes in `simpsons_dataset/<person>/pic_0000.jpg`, from `most` images
    of the first person to a fifth as many of the last; about a third are a second frame of the
    scene before. Two images are in each other's folder for every 40 of the first person, since few
    collections are without such errors. 20 more of each person, without errors, lie in
    `kaggle_simpson_testset/<person>_0.jpg`. The folder is made whole under another name and then
    renamed.

    Raises:
        OSError: The folder cannot be written.
    """
    generator = np.random.default_rng(seed)
    folder.parent.mkdir(parents=True, exist_ok=True)
    made = tempfile.mkdtemp(prefix=".cartoons-", dir=folder.parent)
    try:
        test = os.path.join(made, "kaggle_simpson_testset")
        os.mkdir(test)
        for i, (name, shapes) in enumerate(_PERSONS.items()):
            own = os.path.join(made, "simpsons_dataset", name)
            os.makedirs(own)
            for j, image in enumerate(_frames(shapes, round(most / (1 + i)), generator)):
                image.save(os.path.join(own, f"pic_{j:04}.jpg"), quality=85)
            for j, image in enumerate(_frames(shapes, 20, generator)):
                image.save(os.path.join(test, f"{name}_{j}.jpg"), quality=85)
        for _ in range(most // 40):
            _exchange_labels(os.path.join(made, "simpsons_dataset"), generator)
        os.chmod(made, 0o755)
        if not folder.exists():  # or another lesson was as quick
            os.rename(made, folder)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _exchange_labels(folder, generator):
    """Put an image into the folder of another person, and one of that person in its place."""
    paths = []
    for name in generator.choice(list(_PERSONS), 2, replace=False):
        files = sorted(os.listdir(os.path.join(folder, name)))
        paths.append(os.path.join(folder, name, files[generator.integers(len(files))]))
    os.rename(paths[0], paths[0] + ".tmp")
    os.rename(paths[1], paths[0])
    os.rename(paths[0] + ".tmp", paths[1])


def _frames(shapes, count, generator):
    """Yield `count` images of mixed sizes; now and then two of the same scene."""
    while count > 0:
        width, height = generator.integers(96, 200, 2)
        side = int(max(width, height)) + 8
        (scene,) = _draw([shapes], generator, size=side, smallest=0.6, lean=10, hidden=1)
        for _ in range(min(count, 1 + (generator.random() < 0.4))):
            left, top = generator.integers(0, 8, 2) + (side - 8 - np.array([width, height])) // 2
            yield Image.fromarray(scene).crop((left, top, left + width, top + height))
            count -= 1


def _draw(things, generator, size=32, smallest=0.7, lean=8, hidden=0):
    """Draw each thing in its own colors and place, before its own background.

    Args:
        smallest: The smallest scale; the largest is 1.05.
        lean: Standard deviation of the rotation, in degrees.
        hidden: How many patches of color are drawn over each thing.
    """
    count, twice = len(things), 2 * size  # drawn at twice the size, for smooth edges
    backgrounds = _backgrounds(count, generator)
    colors = _colors(count, generator)
    clutter = generator.uniform(-1, 1, (count, 3, 4, 2))
    scale = generator.uniform(smallest, 1.05, count) * twice / 2.2
    stretch = generator.uniform(0.85, 1.15, count)
    turn = np.radians(generator.normal(0, lean, count))
    side = generator.choice([-1, 1], count)
    place = generator.uniform(-0.12, 0.12, (count, 2)) * twice + twice / 2
    x = np.empty((count, size, size, 3), np.uint8)
    for i, shapes in enumerate(things):
        image = Image.fromarray(backgrounds[i]).resize((twice, twice), Image.Resampling.BICUBIC)
        draw = ImageDraw.Draw(image)
        for j, points in enumerate(clutter[i]):
            flat = (points * 0.35 + points[0] + 1) * size
            draw.polygon(flat.ravel().tolist(), fill=tuple(colors[i, 4 + j]))
        sine, cosine = math.sin(turn[i]), math.cos(turn[i])
        matrix = np.array([[cosine, sine], [-sine, cosine]]) * [[side[i]], [stretch[i]]] * scale[i]
        for role, points in shapes:
            flat = np.asarray(points) @ matrix + place[i]
            draw.polygon(flat.ravel().tolist(), fill=tuple(colors[i, role]))
        for points in generator.uniform(-1, 1, (hidden, 4, 2)):
            flat = (points * 0.35 + points[0] + 1) * size
            draw.polygon(flat.ravel().tolist(), fill=tuple(generator.integers(20, 235, 3).tolist()))
        x[i] = np.asarray(image.reduce(2))
    noise = generator.standard_normal(x.shape, np.float32)
    noise *= generator.uniform(2, 14, (count, 1, 1, 1)).astype(np.float32)
    return np.clip(noise + x, 0, 255).astype(np.uint8)


def _backgrounds(count, generator):
    """Coarse random images, to be stretched into soft patches of color."""
    hue = generator.uniform(0, 255, (count, 1, 1, 3))
    return np.clip(hue + generator.normal(0, 45, (count, 4, 4, 3)), 0, 255).astype(np.uint8)


def _colors(count, generator):
    """Colors of each image's body, second part, dark and light parts and three patches."""
    colors = generator.uniform(20, 235, (count, 7, 3))
    colors[:, SECOND] = 0.5 * colors[:, BODY] + 0.5 * colors[:, SECOND]
    colors[:, DARK] *= 0.35
    colors[:, LIGHT] = 255 - 0.35 * colors[:, LIGHT]
    skin = np.broadcast_to([[[248.0, 214.0, 52.0]]], (count, 1, 3))
    return np.concatenate([colors, skin], axis=1).astype(int)
