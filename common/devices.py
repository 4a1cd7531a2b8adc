"""Starts TensorFlow and Keras, names the device, and chooses the precision.

Models compute on TensorFlow or, with `KERAS_BACKEND=jax` in the environment, on JAX. The input
pipelines are TensorFlow's either way.
"""

import contextlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from common import options
from common.options import Mistake

_PROCESSES = "KERAS_DISTRIBUTION_NUM_PROCESSES"
_PACKAGES = "tensorflow", "keras", "numpy", "matplotlib", "sklearn", "PIL", "jinja2"


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


def start(args, *, convolutional=True):
    """Start a program: import TensorFlow and Keras, set them up, and name the device.

    From here on, a full disk and Ctrl-C end in a sentence (`options.explain_errors`).

    Args:
        args: The lesson's options: `precision`, `deterministic` and, of a training, `devices`.
        convolutional: Whether the model is; `--precision auto` leaves others in float32.

    Returns:
        A `Device`.

    Raises:
        Mistake: A package is not installed; or there are to be several devices, but Keras does
            not compute on JAX.
    """
    options.explain_errors()
    wanted = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if wanted not in ("tensorflow", "jax"):
        raise Mistake(f"KERAS_BACKEND={wanted}: the lessons compute on tensorflow or jax.")
    for package in (*_PACKAGES, wanted):
        if not importlib.util.find_spec(package):
            file = "requirements-jax.txt" if package == "jax" else "requirements.txt"
            raise Mistake(f"{package} is not installed: pip install -r {file}")
    users_level = "TF_CPP_MIN_LOG_LEVEL" in os.environ  # then all is shown that it admits
    # With op determinism, `map` makes its calls one after another, and reports that as an error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if args.deterministic else "2")
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # JAX takes memory as needed
    with contextlib.nullcontext() if users_level else quiet():
        import keras
        import tensorflow as tf

        backend = keras.backend.backend()
        if backend == "tensorflow":
            gpus = find_gpus(backend)
        else:
            tf.config.set_visible_devices([], "GPU")  # they are the other backend's
    several = _several(args)
    if several and backend != "jax":
        raise Mistake("several devices need JAX: pip install jax, and set KERAS_BACKEND=jax.")
    if several and _PROCESSES in os.environ:
        from common import distribution

        distribution.join(args.seed)
    if backend != "tensorflow":
        gpus = find_gpus(backend)
    if not users_level:  # it warns of retracing wherever batches differ in size
        tf.get_logger().setLevel("ERROR")
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1")
    if not gpus and not hidden and shutil.which("nvidia-smi"):
        cure = {"tensorflow": "tensorflow[and-cuda]", "jax": "jax[cuda13]"}[backend]
        print(
            f"Notice: the driver of an NVIDIA card is here, but {backend} finds no GPU. "
            f"pip install '{cure}' may be missing; see docs/scaling.md."
        )
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
        f"Device: {device.name}, {device.count} {unit}; {precision}; TensorFlow "
        f"{tf.__version__}, Keras {keras.__version__}, backend {backend}{version}"
    )
    return device


def distribute(args):
    """With `--devices all`, or in one of several processes: divide each batch, from here on.

    `keras.distribution.set_distribution(None)` ends it. See docs/scaling.md.
    """
    if _several(args):
        from common import distribution

        distribution.divide()


def _several(args):
    wish = getattr(args, "devices", None)  # None: nothing is trained
    return wish == "all" or bool(wish and _PROCESSES in os.environ)


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
    16 bits are slow. The weights are equal: Keras keeps them in float32 anyway.
    """
    import keras

    def in_float32(layer):
        return layer.__class__.from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(model, clone_function=in_float32, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def versions():
    """The versions of Python and of the packages that figures depend on."""
    import keras

    names = ["tensorflow", "keras", "numpy"] + ["jax"] * (keras.backend.backend() == "jax")
    return {"python": platform.python_version()} | {n: sys.modules[n].__version__ for n in names}


@contextlib.contextmanager
def quiet():
    """Keep back what libraries write to file descriptor 2.

    TensorFlow writes a dozen lines at each start that ask nothing of its user. Where the start
    fails, they are shown.
    """
    real = os.dup(2)
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            os.close(real)
            if isinstance(sys.exc_info()[1], Exception):  # not Ctrl-C
                held.seek(0)
                sys.stderr.write(held.read().decode(errors="replace"))


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
