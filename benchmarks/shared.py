"""What the benchmarks share: their options, programs in a process of their own, changed lessons.

Import it before `common`: it puts the folder of the lessons on Python's path.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HOME = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(HOME))

from common import options


def parser(description, folder=None):
    """An `options.Parser` with the options of the benchmarks.

    Args:
        description: The program's docstring.
        folder: Where in `outputs` its figures go; None: it has no --output and no --images.
    """
    parser = options.Parser(description or "")
    parser.flag("--sample", "on the small samples")
    parser.add_argument("--epochs", type=int, metavar="N", help="default: each training's own")
    place = {"type": options.existing_folder, "metavar": "DIR"}
    parser.option("--data-dir", "where your own data are", HOME / "data", **place)
    if folder:
        about = "images for the Simpsons lesson (default: those in the data folder)"
        parser.add_argument("--images", help=about, **place)
        default = HOME / "outputs" / folder / time.strftime("%Y%m%d-%H%M%S.json")
        parser.option("--output", "JSON file", default, type=Path, metavar="FILE")
    return parser


def chosen(parser, names, known):
    """The names that were given, all where none was; end the program at one that is not known."""
    # argparse's `choices` refuses an empty list of positional arguments.
    if unknown := [name for name in names or [] if name not in known]:
        parser.error(f"unknown: {unknown[0]}; known are {', '.join(known)}")
    return names or list(known)


def passed_on(args, *names):
    """The options of these names that were given, as a lesson gets them."""
    found = []
    for name in names:
        if value := getattr(args, name):
            found += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return found


def write(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def run(command, cwd=HOME, env=None, accepted=None):
    """Run a Python program to its end; return what it wrote to stderr, and show its notices.

    Raises:
        Mistake: It failed, and did not say `accepted`.
    """
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=cwd, env=env, capture_output=True, text=True
    )
    if done.returncode and not (accepted and accepted in done.stderr):
        shown = " ".join(map(str, command))
        raise options.Mistake(f"{shown} failed:\n{done.stdout[-500:]}{done.stderr[-2000:]}")
    for line in done.stdout.splitlines():
        if line.startswith("Notice:"):  # as where a lesson takes the sample, for want of data
            print(line, file=sys.stderr)
    return done.stderr


def measure(side, name, args, more=(), env=None):
    """Run `side.py`, which trains a lesson or a tutorial; return what it measured.

    Args:
        side, name: "lesson" or "tutorial", and which one.
        args: The benchmark's options: some are passed on.
        more: Further options of the lesson.
        env: The environment; None: that of this process.
    """
    names = ["data_dir", "sample", "epochs", *["images"] * (name == "simpsons")]
    with tempfile.TemporaryDirectory() as place:
        report = Path(place) / "report.json"
        command = [HOME / "benchmarks" / "side.py", side, name, report]
        run([*command, *passed_on(args, *names), *more], env=env)
        return json.loads(report.read_text(encoding="utf-8"))


def change(text, pairs, script, name):
    """Replace each old text of a lesson by the new one.

    Args:
        text: The lesson's.
        pairs: Of old and new text; the old one occurs exactly once.
        script, name: The lesson's file, and what is changed there: for the message.

    Raises:
        Mistake: An old text is not in the lesson, or several times.
    """
    for old, new in pairs:
        if (count := text.count(old)) != 1:
            raise options.Mistake(
                f"{script} was changed since {name!r} was written for it in benchmarks/: "
                f"this is in the lesson {count} times, not once: {old!r}"
            )
        text = text.replace(old, new)
    return text


def only(text, training):
    """A lesson's text in which all trainings but this one take one epoch.

    Raises:
        Mistake: No other training is found in it.
    """

    def shorten(found):
        name = re.search(r"run\.callbacks\((.+?)\)", found[0])[1]
        if name == f'"{training}"':
            return found[0]
        epochs = f'{found[1]} if name == "{training}" else 1' if name == "name" else "1"
        return found[0].replace(f"={found[1]},", f"={epochs},", 1)

    call = r"epochs=((?:args\.)?epochs),\n(?: +[^ ].*,\n)*? +callbacks=.*run\.callbacks\(.+\n"
    changed = re.sub(call, shorten, text)
    if changed == text:
        raise options.Mistake(f"no training but {training} is found in this lesson")
    return changed


@contextlib.contextmanager
def trained(script, text, command, accepted=None):
    """Train a changed copy of a lesson; give its run's folder, and what it wrote to stderr.

    Args:
        script, text: The lesson's file, and its changed text.
        command: The lesson's options.
        accepted: What a run that fails may say.
    """
    with tempfile.TemporaryDirectory() as place:
        place = Path(place).resolve()
        (place / script).write_text(text, encoding="utf-8")
        for folder in ("common", "data/sample"):
            shutil.copytree(HOME / folder, place / folder)
        command = [script, *command, "--output-dir", place / "outputs"]
        errors = run(command, cwd=place, accepted=accepted)
        (folder,) = place.glob("outputs/*/*")
        yield folder, errors


def split(args, seed, side=128):
    """The images of the Simpsons lesson, the group of each, and the parts, as the lesson has them.

    Args:
        args: The benchmark's options.
        seed, side: The lesson's seed and image size.

    Returns:
        A `folders.Images`; integers, shape (count,); a dict of `Images` by part.
    """
    from common import folders

    images, _, _ = folders.load(
        args.images,
        place=args.data_dir / "simpsons",
        sample=args.sample,
        download=False,
        kaggle=("alexattia/the-simpsons-characters-dataset", "1.2 GB"),
        test_images=None,
        test_folder="kaggle_simpson_testset",
        min_images=290,
        side=side,
    )
    parts, groups = folders.split(images, seed)
    return images, groups, parts


def link(top, images, paths):
    """Link files into folders `<top>/<class>/`; return the links, in the order of the images.

    Args:
        images: The `folders.Images` whose names and classes the links have.
        paths: What each link leads to.
    """
    links = []
    for own, label, path in zip(images.paths, images.labels, paths, strict=True):
        link = top / images.class_names[label] / own.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(Path(path).resolve())
        links.append(link)
    return links
