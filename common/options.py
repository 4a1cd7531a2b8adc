"""The command line of a lesson, and the answers to what goes wrong there.

Imports nothing heavy: a wrong option is answered before TensorFlow is loaded.
"""

import argparse
import contextlib
import difflib
import errno
import json
import math
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path

# What a disk refuses, and the user can mend: it is full, the folder not writable.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
_PACKAGES = {
    "tensorflow",
    "keras",
    "numpy",
    "matplotlib",
    "sklearn",
    "requests",
    "PIL",
    "jinja2",
}
HOME = Path(__file__).resolve().parent.parent  # the folder that the lessons are in
BEGUN, FINISHED = "begun.json", "results.json"  # in a run's folder: options; all figures


def parse(description, *, epochs, batch_size, learning_rate, image_size=None):
    """Read and check the options of a lesson; end the program at a wrong one.

    Args:
        description: The lesson's docstring; its title and first paragraph head `--help`.
        epochs, batch_size, learning_rate: The lesson's defaults. Where it teaches several
            models, dicts with a default for each; the first model is the default one.
        image_size: Where it reads folders of pictures: the side that they get, in pixels.

    Returns:
        An `argparse.Namespace` with `epochs`, `batch_size`, `learning_rate`, `seed`,
        `data_dir`, `sample`, `output_dir`, `precision`, `deterministic`, `resume` (the folder
        of the run to go on with, or None) and `show`; with `model` where there are several;
        where it reads folders, with `pictures`, `min_images` (None where they are
        not given), `image_size`, `cache` and `skip_baseline`; and `about`, the lesson's title
        and its question. In a notebook's cell, where the command line belongs to the kernel,
        these are the defaults.
    """
    parser = _LessonParser(
        description="\n\n".join((description or "").strip(" #\n").split("\n\n")[:2]),
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(about=_about(description))
    name = parser.prog
    parser.epilog = (
        "examples:\n"
        f"  python {name} --sample --epochs 3     a look at everything, in seconds\n"
        f"  python {name} --seed 1 --show         another seed; pictures in windows\n"
    )
    if isinstance(epochs, dict):
        models = list(epochs)
        parser.epilog += f"  python {name} --model {models[1]:15} the other network\n"
        parser.add_argument(
            "--model", choices=models, default=models[0], help="the network that is trained"
        )
    number = parser.add_argument
    number(
        "--epochs",
        type=_whole,
        default=_default(epochs),
        metavar="N",
        help="passes over the pictures",
    )
    number(
        "--batch-size",
        type=_whole,
        default=_default(batch_size),
        metavar="N",
        help="pictures a step",
    )
    number(
        "--learning-rate",
        type=_positive,
        default=_default(learning_rate),
        metavar="X",
        help="highest of all steps",
    )
    number(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="of the split, the weights, the order and the distortions",
    )
    parser.add_argument(
        "--data-dir",
        type=_folder,
        default=HOME / "data",
        metavar="DIR",
        help="where the data are looked for, and put",
    )
    parser.add_argument(
        "--sample",
        action="store_true",
        help="use the small sample; look for nothing, download nothing",
    )
    parser.add_argument(
        "--output-dir",
        type=_folder,
        default=HOME / "outputs",
        metavar="DIR",
        help="where a folder is made for this run",
    )
    parser.add_argument(
        "--precision",
        choices=["auto", "float32", "mixed"],
        default="auto",
        help="mixed: layers compute in 16 bits; auto: where that is faster",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        help="the same command twice gives the same weights, on the same machine; "
        "MNIST takes up to a tenth longer",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="RUN",
        help="go on with a run that was cut off, with its own options; RUN: its folder, "
        "or else the newest of this lesson (default: begin a new one)",
    )
    parser.add_argument(
        "--show",
        action="store_true",
        help="also open each picture in a window; close it to go on",
    )
    if image_size:
        _add_folder_options(parser, image_size)
    if sys.version_info < (3, 11):  # noqa: UP036 - said before anything newer is imported
        parser.error(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    if "ipykernel" in sys.modules:
        # A cell has no command line; `%run train_mnist.py --epochs 3` has one, and is a file.
        in_cell = not hasattr(sys.modules["__main__"], "__file__")
        return parser.parse_args([] if in_cell else None)
    answer_mistakes(parser.prog)
    return parser.parse_args()


def _about(description):
    """The title and the first paragraph of a lesson's docstring, a line each; or two empty ones."""
    parts = [" ".join(part.split()) for part in (description or "").strip().split("\n\n")]
    ours = parts[0].startswith("# ") and len(parts) > 1  # in a notebook, it is IPython's own
    return (parts[0][2:], parts[1]) if ours else ("", "")


def _add_folder_options(parser, image_size):
    """The options of a lesson that reads folders of pictures, one folder a class."""
    parser.add_argument(
        "--pictures",
        type=existing_folder,
        metavar="DIR",
        help="folder with a folder of pictures for each class (default: DATA_DIR/simpsons)",
    )
    parser.add_argument(
        "--min-images",
        type=_whole,
        metavar="N",
        help="leave out classes with fewer pictures (default: 2; of Kaggle's 42 characters: 290)",
    )
    parser.add_argument(
        "--image-size",
        type=_side,
        default=image_size,
        metavar="N",
        help="width and height that the network sees, in pixels",
    )
    parser.add_argument(
        "--cache",
        choices=["auto", "memory", "disk"],
        default="auto",
        help="where decoded training pictures are kept; auto: on disk where memory is short",
    )
    parser.add_argument(
        "--skip-baseline", action="store_true", help="train the second network only"
    )
    parser.epilog += f"  python {parser.prog} --pictures photos   pictures of your own\n"


class Mistake(Exception):
    """What the user can mend; the message says how."""


class _OfModel(dict):
    """A default for each model; in `--help`, all of them."""

    def __str__(self):
        return ", ".join(f"{value} for {model}" for model, value in self.items())


def _default(value):
    return _OfModel(value) if isinstance(value, dict) else value


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind each option; description and examples as they are written."""

    def _get_help_string(self, action):
        if action.default is None:  # said in words
            return action.help
        return super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that answers a mistake with one line, and with the likely name."""

    def parse_args(self, args=None):
        found, unknown = self.parse_known_args(args)
        if unknown:
            name = unknown[0].split("=")[0]
            known = [option[2:] for action in self._actions for option in action.option_strings]
            near = difflib.get_close_matches(name.lstrip("-"), known, n=1, cutoff=0.75)
            hint = f"did you mean --{near[0]}?" if near else "see --help"
            self.error(f"unknown {'option' if name.startswith('-') else 'argument'} {name}; {hint}")
        return found

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


class _LessonParser(Parser):
    """What the options of a lesson must hold besides."""

    def parse_args(self, args=None):
        found = super().parse_args(args)
        for option, value in vars(found).items():
            if isinstance(value, _OfModel):
                setattr(found, option, value[found.model])
        if found.resume is not None:
            self._resume(found, args)
        if found.sample and getattr(found, "pictures", None):
            self.error("argument --pictures: not with --sample, which has its own")
        try:
            _probe(found.output_dir)  # here, because no default passes through its type
        except argparse.ArgumentTypeError as error:
            self.error(f"argument --output-dir: {error}")
        return found

    def _resume(self, found, args):
        """Set `found` to the options of the run that is to be gone on with."""
        unset = object()
        actions = {action.dest: action for action in self._actions}
        given, _ = self.parse_known_args(args, argparse.Namespace(**dict.fromkeys(actions, unset)))
        given = {name: value for name, value in vars(given).items() if value is not unset}
        model = given.get("model")
        folder = Path(os.path.expanduser(found.resume))
        if not found.resume:
            folder = _newest_run(found.output_dir, self.prog, model, "*/*")
            if folder is None:
                what = self.prog if model is None else f"{self.prog} --model {model}"
                print(f"Notice: no run of {what} in {found.output_dir}; this one begins.")
                found.resume = None
                return
        elif not folder.is_dir():
            self.error(f"argument --resume: there is no folder {str(folder)!r}")
        elif not any((folder / name).exists() for name in (BEGUN, FINISHED)):
            folder = _newest_run(folder, self.prog, model, "*") or folder
        begun = _begun(folder / FINISHED)
        finished = begun and begun.get("script") == self.prog
        if not finished:
            begun = _begun(folder / BEGUN)
        if begun is None or begun["script"] != self.prog:
            self.error(f"argument --resume: {str(folder)!r} holds no run of {self.prog}")
        for name, value in begun["options"].items():
            if name not in actions:
                option = name.replace("_", "-")
                self.error(f"argument --resume: the run has an option --{option}, unknown here")
            is_path = value is not None and actions[name].type in (_folder, existing_folder)
            value = Path(value) if is_path else value
            if name in ("show", "output_dir"):
                continue  # they change nothing of the training
            own, here = (_comparable(v) for v in (value, given.get(name, value)))
            if own != here:
                option = name.replace("_", "-")
                self.error(
                    f"argument --{option}: {here} here, {own} in {folder}; leave it out, or begin "
                    "anew, without --resume"
                )
            setattr(found, name, value)
        if finished:
            for left in [*folder.glob("backup*"), folder / BEGUN]:  # killed at the very end
                left.unlink(missing_ok=True)
            print(f"{folder} is finished; there is nothing to go on with.")
            if other := _newest_run(folder.parent, self.prog, model, "*", finished=False):
                print(f"Another one is not: --resume {shlex.quote(str(other))} goes on with it.")
            self.exit(0)
        found.resume = folder


def _newest_run(place, script, model, below, *, finished=True):
    """The folder of a lesson's newest run, those that are finished included, or not; or None."""
    found = {}
    for path in [*place.glob(f"{below}/{BEGUN}"), *place.glob(f"{below}/{FINISHED}")]:
        if not finished and (path.parent / FINISHED).exists():
            continue
        run = _begun(path)
        if run and run["script"] == script and model in (None, run["options"].get("model")):
            with contextlib.suppress(OSError):  # it ends at this moment
                found[path.parent] = path.stat().st_mtime
    return max(found, key=found.get, default=None)


def _begun(path):
    """What a run noted when it began; None: no run, or one that was cut off before that."""
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
        return begun if begun["script"] and begun["options"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _comparable(value):
    return str(value.absolute()) if isinstance(value, Path) else value


def _whole(text):
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def _side(text):
    number = _whole(text)
    if not 32 <= number <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 32 to 1024")
    return number


def _seed(text):
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2^32 - 1")
    return number


def _positive(text):
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def _folder(text):
    path = Path(os.path.expanduser(text))
    if not text or (path.exists() and not path.is_dir()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return path


def existing_folder(text):
    """The `Path` of a folder that is there, for argparse's `type`."""
    path = _folder(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return path


def _probe(path):
    """Raise ArgumentTypeError unless a folder can be made at `path`; leave nothing behind."""
    nearest = next(p for p in [path, *path.absolute().parents] if p.exists())
    try:
        with tempfile.TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise argparse.ArgumentTypeError(f"cannot write to '{path}': {reason}") from None


def answer_mistakes(name):
    """Let what the user can mend end in a sentence instead of a traceback."""
    if hasattr(sys.stdout, "reconfigure"):
        # `... | tee log` shows each line at once; names that a console cannot show are spelled.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")

    def interrupted(*_):
        print("\nInterrupted.", flush=True)
        raise SystemExit(130)

    def answer(kind, error, traceback):
        ours = kind.__module__.startswith("common.")  # raised by the shelf, worded for the user
        if issubclass(kind, BrokenPipeError):  # `... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif ours:
            print(f"{name}: error: {error}", file=sys.stderr)
        elif issubclass(kind, ModuleNotFoundError) and error.name in _PACKAGES:
            hint = "pip install -r requirements.txt brings all that is needed"
            print(f"{name}: error: {error.name} is not installed; {hint}.", file=sys.stderr)
        elif issubclass(kind, OSError) and error.errno in DISK:
            where = f"{error.filename}: " if error.filename else ""
            hint = "Make room, or choose another --output-dir or --data-dir."
            print(f"{name}: error: {where}{error.strerror}. {hint}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, traceback)

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made for a while is removed
    sys.excepthook = answer
