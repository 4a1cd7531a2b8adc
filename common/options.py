"""The command line of a lesson, and one-line answers to mistakes.

Imports nothing heavy: a mistaken option is answered before TensorFlow is loaded.
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
import stat
import sys
import tempfile
import threading
from pathlib import Path

# What a disk refuses, and the user can mend: it is full, the folder not writable.
DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO}
DISK |= {errno.ENAMETOOLONG, errno.EEXIST, errno.ENOTDIR}
_PACKAGES = {"tensorflow", "keras", "numpy", "matplotlib", "sklearn"}
_PACKAGES |= {"requests", "PIL", "jinja2", "h5py"}
HOME = Path(__file__).resolve().parent.parent  # the folder that the lessons are in
BEGUN, FINISHED = "begun.json", "results.json"  # in a run's folder: its command line; its figures


class Mistake(Exception):
    """What the user can mend; the message says how."""


def parse(description, *, epochs, batch_size, learning_rate, image_size=None):
    """Read and check the options of a lesson; end the program at a mistaken one.

    Args:
        description: The lesson's docstring; its title and first paragraph head `--help`.
        epochs, batch_size, learning_rate: The lesson's defaults. Where it teaches several
            models, dicts with a default for each; the first model is the default one.
        image_size: Where it reads folders of images: the side that they get, in pixels.

    Returns:
        An `argparse.Namespace` with a value for each option. `resume` is the folder of the run
        to resume, or None. Two more are `about`, the lesson's title and its question, and
        `begun`, a dict for `begun.json`: the script's name, the command, and the options. In a
        notebook's cell, where the command line belongs to the kernel, these are the defaults.
    """
    parser = Parser(
        description="\n\n".join((description or "").strip(" #\n").split("\n\n")[:2]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    name = parser.prog
    parser.epilog = f"example: python {name} --sample --epochs 3 shows everything in seconds"
    defaults = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate}
    models = next((list(value) for value in defaults.values() if isinstance(value, dict)), None)
    if models:
        parser.option("--model", "the model that is trained", models[0], choices=models)
    for option, about, default, kind, metavar in [
        ("--epochs", "passes over the training images", epochs, _whole(), "N"),
        ("--batch-size", "images per step", batch_size, _whole(), "N"),
        ("--learning-rate", "the peak of its schedule", learning_rate, _positive, "X"),
        ("--seed", "of split, weights, order and augmentation", 0, _whole(0, 2**32 - 1), "N"),
        ("--data-dir", "where data are looked for, and put", HOME / "data", _folder, "DIR"),
        ("--output-dir", "where this run's folder is made", HOME / "outputs", _folder, "DIR"),
    ]:
        parser.option(option, about, default, type=kind, metavar=metavar)
    parser.flag("--sample", "use the small sample; look for nothing, download nothing")
    about = "mixed: layers compute in 16 bits; auto: where that is faster"
    parser.option("--precision", about, "auto", choices=["auto", "float32", "mixed"])
    about = "the same command twice on one machine gives the same weights; slower"
    parser.flag("--deterministic", about)
    about = "all: all GPUs of this machine divide each batch; see docs/scaling.md"
    parser.option("--devices", about, "one", choices=["one", "all"])
    about = "resume a run that was cut off, with its own options; RUN: its folder, or else the "
    about += "newest unfinished one of this script (default: begin a new one)"
    parser.add_argument("--resume", nargs="?", const="", metavar="RUN", help=about)
    parser.flag("--show", "also open each plot in a window; close it to go on")
    if image_size:
        _add_folder_options(parser, image_size)
    if sys.version_info < (3, 11):  # noqa: UP036 - said before anything newer is imported
        parser.error(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}")
    # A notebook's cell has no command line; `%run train_mnist.py --epochs 3` has one.
    in_notebook = "ipykernel" in sys.modules
    of_kernel = Path(sys.argv[0]).stem.endswith("kernel_launcher")
    in_cell = in_notebook and (of_kernel or not hasattr(sys.modules["__main__"], "__file__"))
    if not in_notebook:
        answer_mistakes(name)
    argv = [] if in_cell else sys.argv[1:]

    def read(arguments):
        args = parser.parse_args(arguments)
        for option, value in defaults.items():
            if getattr(args, option) is None:
                setattr(args, option, value[args.model] if models else value)
        own = [name for name in ("sample", "images", "download") if getattr(args, name, None)]
        if len(own) > 1:
            parser.error(f"argument --{own[1]}: not with --{own[0]}")
        return args

    args = read(argv)
    try:
        _probe(args.output_dir)  # here, because no default passes through its type
    except argparse.ArgumentTypeError as error:
        parser.error(f"argument --output-dir: {error}")
    folder, begun = None, None
    if args.resume is not None:
        folder, begun = _unfinished_run(parser, args, argv)
    if folder:
        place, show = args.output_dir, args.show
        args = read(begun["arguments"])
        args.output_dir, args.show = place, show
    else:
        values = {k: v for k, v in vars(args).items() if k != "resume"}
        begun = {
            "script": "notebook" if in_cell else name,
            "command": "in a notebook" if in_cell else shlex.join(["python", name, *argv]),
            "options": {k: str(v) if isinstance(v, Path) else v for k, v in values.items()},
            "arguments": parser.arguments(args),
            "process": _process(),
        }
    args.resume, args.begun, args.about = folder, begun, _about(description)
    return args


def _process():
    """The number of this process where several train together; else None."""
    if "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ:
        return os.environ.get("KERAS_DISTRIBUTION_PROCESS_ID", os.environ.get("SLURM_PROCID"))
    return None


def _about(description):
    """The title and the first paragraph of a lesson's docstring, a line each; or two empty ones."""
    parts = [" ".join(part.split()) for part in (description or "").strip().split("\n\n")]
    ours = parts[0].startswith("# ") and len(parts) > 1  # in a notebook, it is IPython's own
    return (parts[0][2:], parts[1]) if ours else ("", "")


def _add_folder_options(parser, image_size):
    """The options of a lesson that reads folders of images, a folder per class."""
    default = f"DATA_DIR/{Path(parser.prog).stem.removeprefix('train_')}"
    about = f"folder with a folder of images for each class (default: {default})"
    parser.add_argument("--images", type=existing_folder, metavar="DIR", help=about)
    parser.flag("--download", "fetch the lesson's images from Kaggle, if they are not there")
    about = "leave out classes with fewer images (default: 3; of the lesson's own: in the script)"
    parser.add_argument("--min-images", type=_whole(), metavar="N", help=about)
    about = "side that the model sees, in pixels"
    parser.option("--image-size", about, image_size, type=_whole(32, 1024), metavar="N")
    parser.option("--cache", "where decoded images are", "memory", choices=["memory", "disk"])
    parser.flag("--skip-baseline", "train the regularized model only")


class Parser(argparse.ArgumentParser):
    """An `ArgumentParser` that answers a mistake with one line, and with the likely name."""

    def __init__(self, **kwargs):
        self.known = []  # the long options, in their order
        super().__init__(**kwargs)

    def add_argument(self, *names, **kwargs):
        self.known += [name for name in names if name.startswith("--") and name != "--help"]
        return super().add_argument(*names, **kwargs)

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

    def parse_args(self, args=None):
        found, unknown = self.parse_known_args(args)
        if unknown:
            name = unknown[0].split("=")[0]
            known = [option[2:] for option in self.known]
            near = difflib.get_close_matches(name.lstrip("-"), known, n=1, cutoff=0.75)
            hint = f"did you mean --{near[0]}?" if near else "see --help"
            self.error(f"unknown {'option' if name.startswith('-') else 'argument'} {name}; {hint}")
        return found

    def arguments(self, args):
        """The command line that gives these options, but for where runs are and what is shown."""
        line = []
        for option in self.known:
            value = getattr(args, option[2:].replace("-", "_"))
            if option in ("--resume", "--output-dir", "--show") or value in (None, False):
                continue
            line += [option] if value is True else [option, str(value)]
        return line

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")


def _unfinished_run(parser, args, argv):
    """The folder of the run that `--resume` means, and what its `begun.json` holds.

    `None, None`, with a notice, where there is no run yet. The program ends where the run is
    finished, or other options were given.
    """
    for option in (part.split("=")[0] for part in argv):
        if option in parser.known and option not in ("--resume", "--output-dir", "--show"):
            parser.error(f"argument {option}: not with --resume, which takes the run's own")
    place = Path(os.path.expanduser(args.resume)).absolute() if args.resume else args.output_dir
    if args.resume and not place.is_dir():
        parser.error(f"argument --resume: there is no folder {args.resume!r}")
    folders = [place, *place.glob("*")] if args.resume else place.glob("*/*")
    finished, newest, begun = [], None, None
    for folder in folders:
        read = _read(folder / BEGUN, "arguments")
        own = read and (folder == place or read.get("process") == _process())
        if own and read["script"] == parser.prog:
            with contextlib.suppress(OSError):  # it ends at this moment
                time = (folder / BEGUN).stat().st_mtime
                if newest is None or time > newest[0]:
                    newest, begun = (time, folder), read
        elif (read := _read(folder / FINISHED, "options")) and read["script"] == parser.prog:
            finished.append(folder)
    if newest:
        return newest[1], begun
    if finished:
        which = f"{place} is finished" if place in finished else "no run is unfinished"
        print(f"{which}; there is nothing to resume.")
        parser.exit(0)
    if args.resume:
        parser.error(f"argument --resume: {args.resume!r} holds no run of {parser.prog}")
    print(f"Notice: no run of {parser.prog} in {place}; this one begins.")
    return None, None


def _read(path, key):
    """What a run noted; None: no run, or one that was cut off before that."""
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        return noted if noted["script"] and noted[key] is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


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


def _folder(text):
    """The absolute `Path` of a folder, which need not be there yet."""
    path = Path(os.path.expanduser(text)).absolute()
    try:
        is_other = not text or not stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return path
    except (OSError, ValueError) as error:  # not to be entered; too long; a zero in it
        reason = getattr(error, "strerror", None) or error
        raise argparse.ArgumentTypeError(f"{text!r}: {reason}") from None
    if is_other:
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
    if set("{}") & set(str(path)):  # Keras's ModelCheckpoint takes them for a format
        raise argparse.ArgumentTypeError(f"'{path}' has a {{ or }} in it")
    nearest = next((p for p in [path, *path.parents] if p.exists()), path.parents[-1])
    try:
        with tempfile.TemporaryDirectory(dir=nearest):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise argparse.ArgumentTypeError(f"cannot write to '{path}': {reason}") from None


def answer_mistakes(name):
    """Let what the user can mend end in a sentence instead of a traceback."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed, as by `>&-`
            setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 - for the whole program
    # `... | tee log` shows each line at once; names that a console cannot show are spelled.
    if hasattr(sys.stdout, "reconfigure"):  # not in IDLE
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")

    def interrupted(*_):
        print("\nInterrupted.", flush=True)
        end(130)

    def answer(kind, error, traceback):
        if issubclass(kind, BrokenPipeError):  # `... | head` has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        elif issubclass(kind, Mistake):
            print(f"{name}: error: {error}", file=sys.stderr)
        elif issubclass(kind, ModuleNotFoundError) and error.name in _PACKAGES:
            hint = "pip install -r requirements.txt brings all that is needed"
            print(f"{name}: error: {error.name} is not installed; {hint}.", file=sys.stderr)
        elif issubclass(kind, OSError) and error.errno in DISK:
            where = f"{error.filename}: " if error.filename else ""
            hint = "Make room, or choose another --output-dir or --data-dir."
            print(f"{name}: error: {where}{os.strerror(error.errno)}. {hint}", file=sys.stderr)
        else:
            sys.__excepthook__(kind, error, traceback)

    signal.signal(signal.SIGINT, interrupted)
    signal.signal(signal.SIGTERM, lambda *_: end(143))
    sys.excepthook = answer


def end(status):
    """End the program at a signal: what was made for a while is removed.

    Keras waits for JAX in a bare `except`, which would go on; so it may take two seconds.
    """
    timer = threading.Timer(2, os._exit, [status])
    timer.daemon = True
    timer.start()
    raise SystemExit(status)
