"""The command line of a lesson, and one sentence for each mistake of a user.

Imports nothing heavy: a wrong option is answered before TensorFlow is loaded.
"""

import argparse
import contextlib
import difflib
import errno
import math
import os
import re
import shlex
import sys
import tempfile
from pathlib import Path

# What a disk refuses, and the user can mend: it is full, the folder not writable.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
DISK |= {errno.ENAMETOOLONG}
HOME = Path(__file__).resolve().parent.parent  # the folder that the lessons are in


class Mistake(SystemExit):
    """What the user can mend; the message says how. It ends the program, with the status 1."""

    def __init__(self, message):
        who = "" if "ipykernel" in sys.modules else f"{Path(sys.argv[0]).name}: "
        super().__init__(f"{who}error: {message}")


def parse(
    description, *, epochs, batch_size, learning_rate, models=(), image_size=None, default_model=""
):
    """Read and check the options of a lesson; end the program at a wrong one, with the status 2.

    Args:
        description: The lesson's docstring; its title and first paragraph head `--help`.
        epochs, batch_size, learning_rate: The lesson's defaults. Where they differ between its
            models, dicts with a default for each.
        models: The models' names, where it has several; without them, those of the first dict. The
            first one is the default.
        default_model: In words, which model is the default, where that depends on the data. The
            lesson says it with `choose`, as soon as it knows.
        image_size: Where it reads folders of images: the side that they get, in pixels.

    Returns:
        An `argparse.Namespace` with a value for each option. Three more are `script`, the file's
        name; `command`, as it was typed; and `about`, the lesson's title and its question. In a
        notebook's cell, where the command line belongs to the kernel, these are the defaults.
    """
    parser = Parser("\n\n".join((description or "").strip(" #\n").split("\n\n")[:2]))
    parser.epilog = f"example: python {parser.prog} --sample --epochs 3 shows everything in seconds"
    defaults = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    models = models or next((list(own) for own in defaults.values() if isinstance(own, dict)), None)
    if models:
        about = "the model that is trained"
        if default_model:
            parser.add_argument("--model", choices=models, help=f"{about} ({default_model})")
        else:
            parser.option("--model", about, models[0], choices=models)
    whole = _whole()
    parser.option("--epochs", "passes over the training images", epochs, type=whole, metavar="N")
    parser.option("--batch-size", "images per step", batch_size, type=whole, metavar="N")
    about = "of the optimizer, or of its schedule"
    parser.option("--learning-rate", about, learning_rate, type=_positive, metavar="X")
    about = "of the split, the first weights, and the order of the images; augmentation repeats "
    about += "with --deterministic only"
    parser.option("--seed", about, 0, type=_whole(0, 2**32 - 1), metavar="N")
    about = "where your own data are"
    parser.option("--data-dir", about, HOME / "data", type=_folder, metavar="DIR")
    about = "where this run's folder is made"
    parser.option("--output-dir", about, HOME / "outputs", type=_folder, metavar="DIR")
    parser.flag("--sample", "use the small sample; look for nothing, download nothing")
    about = "mixed: layers compute in 16 bits; auto: where that is faster"
    parser.option("--precision", about, "auto", choices=["auto", "float32", "mixed"])
    about = "the same command twice on one machine gives the same weights; slower"
    parser.flag("--deterministic", about)
    about = "all: all GPUs of this machine divide each batch; see docs/scaling.md"
    parser.option("--devices", about, "one", choices=["one", "all"])
    about = "continue a training that was cut off: the same command, and its run's folder; the "
    about += "order of the images and the patience of early stopping begin anew (default: none)"
    parser.add_argument("--resume", type=existing_folder, metavar="FOLDER", help=about)
    parser.flag("--show", "also open each plot in a window; close it to go on")
    if image_size:
        default = f"DATA_DIR/{_short_name(parser.prog)}"
        about = f"folder with a folder of images for each class (default: {default})"
        parser.add_argument("--images", type=existing_folder, metavar="DIR", help=about)
        parser.flag("--download", "fetch the lesson's images from Kaggle, if they are not there")
        about = "published test images, in class folders or called CLASS_NUMBER (default: none)"
        parser.add_argument("--test-images", type=existing_folder, metavar="DIR", help=about)
        about = "correlation from which on two images of a class stay in one part, or off"
        kind = {"type": _correlation, "metavar": "X"}
        parser.option("--near-duplicates", about, 0.95, **kind)
        about, side = "side that the model sees, in pixels", _whole(32, 1024)
        parser.option("--image-size", about, image_size, type=side, metavar="N")
        about = "where decoded images are"
        parser.option("--cache", about, "memory", choices=["memory", "disk"])
    # A notebook's cell has no command line; `%run train_mnist.py --epochs 3` has one.
    of_kernel = Path(sys.argv[0]).stem.endswith("kernel_launcher")
    no_file = not hasattr(sys.modules["__main__"], "__file__")
    in_cell = "ipykernel" in sys.modules and (of_kernel or no_file)
    args = parser.parse_args([] if in_cell else sys.argv[1:])
    for option, value in defaults.items():
        if getattr(args, option) is None:
            setattr(args, option, value)
    if models and args.model:
        choose(args, args.model)
    own = [name for name in ("sample", "images", "download") if getattr(args, name, None)]
    if len(own) > 1:
        parser.error(f"argument --{own[1]}: not with --{own[0]}")
    try:
        _probe(args.output_dir)
    except OSError as error:
        reason = error.strerror or error
        parser.error(f"argument --output-dir: cannot write to '{args.output_dir}': {reason}")
    if set("{}") & set(str(args.output_dir)):  # Keras's ModelCheckpoint takes them for a format
        parser.error(f"argument --output-dir: '{args.output_dir}' has a {{ or }} in it")
    args.script = "notebook" if in_cell else parser.prog
    args.command = "in a notebook" if in_cell else shlex.join(["python", *sys.argv])
    args.about = ("", "") if in_cell else _about(description, parser.prog)
    return args


def choose(args, model):
    """Choose a model, and with it the defaults of the options that were not given."""
    args.model = model
    for option, value in vars(args).items():
        if isinstance(value, dict):
            setattr(args, option, value[model])


def _about(description, script):
    """The title and the first paragraph of a docstring; empty where it is of another script."""
    scripts = re.findall(r"\btrain_\w+\.py", description or "")
    if not description or (scripts and script not in scripts):  # a copy that kept it
        return "", ""
    parts = [" ".join(part.split()) for part in description.strip().split("\n\n")]
    return parts[0].lstrip("# "), parts[1] if len(parts) > 1 else ""


def _short_name(script):
    return Path(script).stem.removeprefix("train_")


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that answers a mistake with one line, and with the likely name."""

    def __init__(self, description):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(description=description, formatter_class=formatter, allow_abbrev=False)
        self.known = []  # the names of the long options

    def option(self, name, about, default, **kwargs):
        """An option with a value, whose default `--help` tells; a dict: one for each model."""
        text = str(default)
        if isinstance(default, dict):
            text = ", ".join(f"{value} for {model}" for model, value in default.items())
            default = None
        text = text.replace("%", "%%")
        self.add_argument(name, default=default, help=f"{about} (default: {text})", **kwargs)

    def flag(self, name, about):
        """An option without a value."""
        self.add_argument(name, action="store_true", help=f"{about} (default: off)")

    def add_argument(self, *names, **kwargs):
        added = super().add_argument(*names, **kwargs)
        if names[-1].startswith("--") and names[-1] != "--help":
            self.known.append(names[-1])
        return added

    def parse_args(self, args=None):
        found, unknown = self.parse_known_args(args)
        if unknown:
            name = unknown[0].split("=")[0]
            near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else "see --help"
            self.error(f"unknown {'option' if name.startswith('-') else 'argument'} {name}; {hint}")
        return found

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def _whole(lowest=1, highest=2**31 - 1):
    """A type for argparse: whole numbers of this range; by default, what TensorFlow counts with."""

    def number(text):
        with contextlib.suppress(ValueError):
            if lowest <= int(text) <= highest:
                return int(text)
        what = f"is not a whole number from {lowest} to {highest:,}"
        raise argparse.ArgumentTypeError(f"{text!r} {what}")

    return number


def _positive(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) < math.inf:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")


def _correlation(text):
    if text == "off":
        return None
    with contextlib.suppress(ValueError):
        if 0.5 <= float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number from 0.5 to 1 nor off")


def _folder(text):
    """The absolute `Path` of a folder, which need not be there yet."""
    path = os.path.abspath(os.path.expanduser(text))
    if not text or "\0" in text or (os.path.exists(path) and not os.path.isdir(path)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder")
    return Path(path)


def existing_folder(text):
    """The absolute `Path` of a folder that is there, for argparse's `type`."""
    path = _folder(text)
    if not os.path.isdir(path):
        raise argparse.ArgumentTypeError(f"there is no folder {text!r}")
    return path


def _probe(path):
    """Raise OSError unless a folder can be made at `path`; leave nothing behind."""
    nearest = next(p for p in [path, *path.parents] if os.path.lexists(p))
    with tempfile.TemporaryDirectory(dir=nearest):
        pass


def explain_errors():
    """Let a full disk, a folder that is not writable, and Ctrl-C end in a sentence.

    In a notebook, all stays as it is.
    """
    if "ipykernel" in sys.modules:
        return
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed, as by `>&-`
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 - for the whole program
    # `... | tee log` shows each line at once; names that a console cannot show are spelled.
    if hasattr(sys.stdout, "reconfigure"):  # not in IDLE
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")

    def answer(kind, error, traceback):
        if issubclass(kind, KeyboardInterrupt):
            print("\nInterrupted.")
        elif issubclass(kind, BrokenPipeError):  # `... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif issubclass(kind, OSError) and error.errno in DISK:
            where = f"{error.filename}: " if error.filename else ""
            hint = "Make room, or choose another --output-dir or --data-dir."
            told = Mistake(f"{where}{os.strerror(error.errno)}. {hint}")
            print(told, file=sys.stderr, flush=True)
            os._exit(1)  # HDF5 would crash at its files that it cannot close
        else:
            sys.__excepthook__(kind, error, traceback)

    sys.excepthook = answer
