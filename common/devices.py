"""Starts TensorFlow and Keras, names the device, and chooses the precision.

Models compute on TensorFlow or, with `KERAS_BACKEND=jax` in the environment, on JAX. The input
pipelines are TensorFlow's either way.
"""

import contextlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common.options import Mistake


@dataclass(frozen=True)
class Device:
    """What a lesson computes on.

    Attributes:
        kind: "cpu" or "gpu".
        name: Of the processor or of the (first) card.
        count: CPU cores that this process may use; GPUs that are used, of all processes.
        precision: A Keras dtype policy: float32, mixed_float16 or mixed_bfloat16.
        cores: CPU cores that this process may use, also beside a GPU.
    """

    kind: str
    name: str
    count: int
    precision: str
    cores: int


def start(args, *, convolutional):
    """Import TensorFlow and Keras, set them up, and print what the lesson computes on.

    Args:
        args: The lesson's options: `precision`, `deterministic` and, of a training, `devices`.
        convolutional: Whether the model is; `--precision auto` leaves others in float32.

    Returns:
        A `Device`.

    Raises:
        Mistake: There are to be several devices, but Keras does not compute on JAX.
    """
    users_level = "TF_CPP_MIN_LOG_LEVEL" in os.environ  # then all is shown that it admits
    # With op determinism, `map` makes its calls one after another, and reports that as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if args.deterministic else "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX takes memory as needed
    with contextlib.nullcontext([""]) if users_level else quiet() as written:
        import keras
        import tensorflow as tf

        backend = keras.backend.backend()
        if backend == "tensorflow":
            gpus = find_gpus(backend)
        else:
            tf.config.set_visible_devices([], "GPU")  # they are the other backend's
    wish = getattr(args, "devices", None)  # None: nothing is trained
    several = wish == "all" or (wish and "KERAS_DISTRIBUTION_NUM_PROCESSES" in os.environ)
    if several:
        if backend != "jax":
            raise Mistake("several devices need JAX: pip install jax, and set KERAS_BACKEND=jax.")
        from common import distribution

        distribution.set_up(args)
    if backend != "tensorflow":
        gpus = find_gpus(backend)
    if not users_level:  # it warns of retracing wherever batches differ in size
        tf.get_logger().setLevel("ERROR")
    if not gpus and (cards := nvidia_cards()):
        print(f"{written[0]}{advice(cards[0], backend, sys.platform)}", file=sys.stderr)
    if args.deterministic:
        tf.config.experimental.enable_op_determinism()
    capability = min((capability for _, capability in gpus), default=None)
    # JAX's bfloat16 on CPUs left numbers unset (0.12, AMX): float32 there.
    flags = set(_cpuinfo("flags").split()) if backend == "tensorflow" else set()
    precision = choose_precision(args.precision, capability, flags, convolutional)
    keras.config.set_floatx("float32")  # whatever ~/.keras/keras.json says
    keras.config.set_image_data_format("channels_last")
    keras.config.set_dtype_policy(precision)
    if gpus:
        used = len(keras.distribution.list_devices()) if several else 1
        device = Device("gpu", gpus[0][0], used, precision, cores())
        unit = "GPUs" if several else f"GPU of {len(gpus)}" if len(gpus) > 1 else "GPU"
    else:
        device = Device("cpu", cpu_name(), cores(), precision, cores())
        unit = "cores" if cores() > 1 else "core"
    version = f" {sys.modules['jax'].__version__}" if backend == "jax" else ""
    print(
        f"Device: {device.name}, {device.count} {unit}{_memory(gpus)}; {precision}; TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}, backend {backend}{version}"
    )
    if gpus and backend == "tensorflow":
        print(too_new(gpus[0], tf.__version__, tf.sysconfig.get_build_info()), end="")
    return device


def find_gpus(backend):
    """Name and compute capability of each GPU that Keras's backend can use."""
    if backend == "jax":
        import jax

        cards = [device for device in jax.local_devices() if device.platform == "gpu"]
        return [(c.device_kind, tuple(map(int, c.compute_capability.split(".")))) for c in cards]
    import tensorflow as tf

    found = []
    for gpu in tf.config.list_physical_devices("GPU"):
        with contextlib.suppress(RuntimeError):  # already in use: a notebook's second run
            tf.config.experimental.set_memory_growth(gpu, True)
        card = tf.config.experimental.get_device_details(gpu)
        found.append((card.get("device_name", gpu.name), card.get("compute_capability", (0, 0))))
    return found


def choose_precision(wish, capability, flags, convolutional):
    """Return the Keras dtype policy for `--precision` and the hardware.

    Args:
        wish: "auto", "float32" or "mixed".
        capability: The lowest compute capability of the GPUs, as a tuple; None: no GPU.
        flags: The set of the CPU's features, as Linux names them.
        convolutional: Whether the model is.
    """
    # Tensor cores compute in float16 from 7.0 on, in bfloat16 from 8.0 on. On CPUs, oneDNN has
    # fast bfloat16 with AMX and with AVX-512's own instructions.
    mixed = "mixed_float16" if capability and capability < (8, 0) else "mixed_bfloat16"
    fast = capability >= (7, 0) if capability else bool({"amx_bf16", "avx512_bf16"} & flags)
    if wish == "mixed" or (wish == "auto" and convolutional and fast):
        return mixed
    return "float32"


def to_float32(model):
    """Return a copy of a built Sequential or functional model that computes in float32.

    Trained in 16 bits, a model is saved like this, because it may be loaded on a machine where
    16 bits are slow. The weights are equal: Keras keeps them in float32 anyway. What several
    devices have trained is on one of this process from now on, for what follows the training.
    """
    import keras

    keras.distribution.set_distribution(None)

    def in_float32(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=in_float32)
    copy.set_weights(model.get_weights())
    return copy


def versions():
    """The versions of Python and of the packages that figures depend on."""
    import keras

    names = ["tensorflow", "keras", "numpy"] + ["jax"] * (keras.backend.backend() == "jax")
    return {"python": platform.python_version()} | {n: sys.modules[n].__version__ for n in names}


def nvidia_cards():
    """Names of the NVIDIA cards in this machine, unless its user has hidden them."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return []
    unnamed = ["an NVIDIA card" for _ in Path("/proc/driver/nvidia/gpus").glob("*")]
    return _nvidia_smi("name") or unnamed


def advice(card, backend, system):
    """What to do where Keras's backend cannot use a card.

    Args:
        card: Its name.
        backend: "tensorflow" or "jax".
        system: `sys.platform`.
    """
    names = {"tensorflow": ("TensorFlow", "and-cuda"), "jax": ("JAX", "cuda13")}
    library, extra = names.get(backend, (backend, "cuda"))
    there = f"This machine has a GPU ({card}), but {library} cannot use it"
    if system == "win32":
        return f"{there} on Windows itself: run the lesson in WSL2."
    missing = not_installed(backend, extra)
    if missing:
        cure = f"pip install '{backend}[{extra}]' brings them."
        return f"{there}. Not installed by pip: {', '.join(missing)}. {cure}"
    return f"{there}. Its CUDA libraries are installed: is the driver too old (see nvidia-smi)?"


def not_installed(package, extra):
    """What pip would install for `package[extra]` and has not: names of distributions, sorted."""
    installed = {found.name.replace("_", "-") for found in importlib.metadata.distributions()}
    if package not in installed:  # but another one in its place, such as tensorflow-cpu
        return [package]
    needed = importlib.metadata.requires(package)
    ours = (text for text in needed if re.search(rf"extra == .{extra}.$", text))
    return sorted({re.match(r"[\w.-]+", text)[0] for text in ours} - installed)


def too_new(card, version, build):
    """A line about a card that is newer than the newest that TensorFlow was built for; else "".

    Args:
        card: Its name, and its compute capability as a tuple.
        version: TensorFlow's.
        build: What `tf.sysconfig.get_build_info()` returns. Its `cuda_compute_capabilities` are
            such as "sm_89" (machine code) and "compute_90" (which later cards translate).
    """
    built_for = build.get("cuda_compute_capabilities", [])
    known = [int(found[1]) for text in built_for if (found := re.search(r"_(\d+)", text))]
    newest = max(known, default=None)
    name, (major, minor) = card
    if newest is None or major * 10 + minor <= newest:
        return ""
    ours = f"TensorFlow {version}, with CUDA {build.get('cuda_version')}, was built for up to"
    return (
        f"{name} has compute capability {major}.{minor}; {ours} {newest // 10}.{newest % 10}. "
        "It may take many minutes to start, or fail.\n"
    )


@contextlib.contextmanager
def quiet():
    """Keep back what libraries write to file descriptor 2, and yield a list that gets the text.

    TensorFlow writes a dozen lines at each start that ask nothing of its user. Where the start
    fails, they are shown.
    """
    written, real = [], os.dup(2)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield written
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            held.seek(0)
            written.append(held.read().decode(errors="replace"))
            if isinstance(sys.exc_info()[1], Exception):  # not Ctrl-C
                sys.stderr.write(written[0])


def _nvidia_smi(field):
    """A field of `nvidia-smi`, one string a card; empty where the program is not or fails."""
    command = ["nvidia-smi", f"--query-gpu={field}", "--format=csv,noheader,nounits"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.split("\n")[:-1]
    return []


def _memory(gpus):
    """Memory of the first GPU or of the machine, as ", 24 GB"; empty where nobody tells."""
    if gpus:
        mebibytes = next(iter(_nvidia_smi("memory.total")), "")
        return f", {int(mebibytes) / 1024:.0f} GB" if mebibytes.strip().isdigit() else ""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return f", {total / 2**30:.0f} GB"
    return ""


def cores():
    """How many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(key):
    """The first value of `key` in Linux's /proc/cpuinfo; empty elsewhere."""
    with contextlib.suppress(OSError):
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        found = re.search(rf"^{key}\s*:(.*)$", text, re.MULTILINE)
        return found[1].strip() if found else ""
    return ""


def cpu_name():
    """The processor's name."""
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return _cpuinfo("model name") or platform.processor() or platform.machine()
