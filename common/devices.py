"""Starts TensorFlow, names the device, chooses precision and strategy.

The only place that imports TensorFlow first: what it writes while it starts is sifted here.
"""

import contextlib
import ctypes
import faulthandler
import gc
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

# Written at every start, before TF_CPP_MIN_LOG_LEVEL counts; they ask nothing of the user.
_CHATTER = re.compile(
    r"All log messages before absl::InitializeLog"
    r"|port\.cc:\d+\] oneDNN custom operations are on"
    r"|cpu_feature_guard\.cc"
    r"|To enable the following instructions"
    r"|Unable to register cu\w+ factory"
    r"|computation_placer\.cc:\d+\] computation placer already registered"
    r"|TF-TRT Warning"
    r"|device_compiler\.h:\d+\] Compiled cluster using XLA"
)
# These tell of a missing GPU: news only for someone who has an NVIDIA card.
_WITHOUT_CARD = re.compile(
    r"Could not find cuda drivers|failed call to cuInit|Cannot dlopen some GPU libraries"
    r"|Skipping registering GPU devices|tensorflow\.org/install/gpu|cuda_diagnostics\.cc"
)

_sifting = False  # whether known chatter is kept from the user
deterministic = False  # whether TensorFlow was started so, with `--deterministic`


@dataclass
class Device:
    """What a lesson computes on: `kind` (cpu or gpu), its name, how many, and the precision."""

    kind: str
    name: str
    count: int
    precision: str  # a Keras dtype policy: float32, mixed_float16, mixed_bfloat16
    strategy: object = field(default=None, repr=False)

    def scope(self):
        """The context in which a model is built and compiled, so that all GPUs share the work."""
        return self.strategy.scope() if self.strategy else contextlib.nullcontext()


def start(options, *, convolutional):
    """Import TensorFlow and Keras, set them up, and print what the lesson computes on.

    Args:
        options: The lesson's options; `precision` and `deterministic` are used.
        convolutional: Whether the model is; auto precision leaves others in float32.

    Returns:
        A `Device`.
    """
    _share_freed_memory()
    with _sifted_stderr():
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        for gpu in gpus:
            if not tf.config.experimental.get_memory_growth(gpu):
                tf.config.experimental.set_memory_growth(gpu, True)
        import keras
    global deterministic
    deterministic = options.deterministic
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    details = [tf.config.experimental.get_device_details(gpu) for gpu in gpus]
    capability = min((d.get("compute_capability", (0,)) for d in details), default=None)
    precision = choose_precision(options.precision, capability, _cpu_flags(), convolutional)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    device = Device(
        kind="gpu" if gpus else "cpu",
        name=details[0].get("device_name", gpus[0].name) if gpus else _cpu_name(),
        count=len(gpus) or _cores(),
        precision=precision,
        strategy=strategy([g.name.split(":", 1)[1] for g in gpus]) if on_tensorflow else None,
    )
    keras.config.set_dtype_policy(precision)
    unit = ("core" if device.kind == "cpu" else "GPU") + ("s" if device.count > 1 else "")
    backend = "" if on_tensorflow else f" on {keras.backend.backend()}"
    print(f"Device: {device.name}, {device.count} {unit}{_memory(gpus)}; {precision}")
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}{backend}")
    if not gpus and has_nvidia_card():
        print(advice(sys.platform))
    return device


def choose_precision(wish, capability, cpu_flags, convolutional):
    """Return the Keras dtype policy for `--precision` and the hardware.

    Args:
        wish: "auto", "float32" or "mixed".
        capability: The least compute capability of the GPUs, as a tuple; None: no GPU.
        cpu_flags: The features that the CPU has, as Linux names them.
        convolutional: Whether the model is.
    """
    mixed = "mixed_bfloat16" if capability is None else "mixed_float16"
    # Tensor cores came with 7.0. On CPUs, oneDNN has fast bfloat16 with AMX and with AVX-512's
    # own instructions: on two cores of an AMD EPYC (Zen 5), the MNIST lesson trains for 46 s
    # (44 to 48, three seeds) against 73 s in float32.
    fast = capability >= (7, 0) if capability else bool({"amx_bf16", "avx512_bf16"} & cpu_flags)
    if wish == "mixed" or (wish == "auto" and convolutional and fast):
        return mixed
    return "float32"


def strategy(names):
    """A `MirroredStrategy` over these devices ("GPU:0", "GPU:1"), or None for less than two."""
    if len(names) < 2:
        return None
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(names)


def has_nvidia_card():
    """Whether an NVIDIA card is in this machine and its user has not hidden it."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return False
    return bool(_nvidia_smi("name")) or any(Path("/proc/driver/nvidia/gpus").glob("*"))


def advice(system):
    """What to do where TensorFlow cannot use the card, on `sys.platform` = `system`."""
    if system == "win32":
        return (
            "There is an NVIDIA card, but TensorFlow has no GPU support on Windows itself: run "
            "the lesson in WSL2, after pip install 'tensorflow[and-cuda]' there."
        )
    return (
        "There is an NVIDIA card, but TensorFlow cannot use it: pip install "
        "'tensorflow[and-cuda]' brings the CUDA libraries that it needs."
    )


def _share_freed_memory():
    """Let threads share what they have freed: one heap a core, where glibc would give eight.

    What is freed in one heap serves only the threads of that heap, and TensorFlow has many.
    """
    if sys.platform == "linux" and "MALLOC_ARENA_MAX" not in os.environ:
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).mallopt(-8, _cores())  # M_ARENA_MAX of malloc.h


def return_freed_memory():
    """Give the system back what this program has freed; glibc keeps it, in case it is asked again.

    Between two large steps, so that the peak is that of the larger one, not their sum.
    """
    gc.collect()
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError, OSError):  # another C library
            ctypes.CDLL(None).malloc_trim(0)


@contextlib.contextmanager
def _sifted_stderr():
    """Hold back what TensorFlow writes while it starts, then pass on all but known chatter."""
    global _sifting
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        yield  # the user's own level wins; or there is nothing to come
        return
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    _sifting = True
    with without_chatter():
        yield


def without_chatter():
    """Hold back what is written to file descriptor 2, but where the user has set a log level."""
    if not _sifting:
        return contextlib.nullcontext()
    return hold_stderr(lambda text: sift(text, card=has_nvidia_card))


@contextlib.contextmanager
def hold_stderr(passed):
    """Hold back what is written to file descriptor 2; at the end, write `passed(text)` of it."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        real = os.dup(2)
        was_enabled = faulthandler.is_enabled()
        faulthandler.enable(real)  # a crash in here is not swallowed
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(real, 2)
            faulthandler.enable(2) if was_enabled else faulthandler.disable()
            os.close(real)
            held.seek(0)
            sys.stderr.write(passed(held.read().decode(errors="replace")))


def sift(text, card):
    """Return the lines of TensorFlow's start-up that concern the user.

    Args:
        text: What it wrote.
        card: Called, once there is a need, to tell whether an NVIDIA card is there.
    """
    lines = [line for line in text.splitlines(keepends=True) if not _CHATTER.search(line)]
    if any(_WITHOUT_CARD.search(line) for line in lines) and not card():
        lines = [line for line in lines if not _WITHOUT_CARD.search(line)]
    return "".join(lines) if any(line.strip() for line in lines) else ""


def _nvidia_smi(field):
    """A field of `nvidia-smi`, one string a card; empty where the program is not or fails."""
    program = shutil.which("nvidia-smi")
    if not program:
        return []
    try:
        command = [program, f"--query-gpu={field}", "--format=csv,noheader,nounits"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def _memory(gpus):
    """Memory of the first GPU or of the machine, as ", 24 GB"; empty where nobody tells."""
    if gpus:
        mebibytes = next(iter(_nvidia_smi("memory.total")), "")
        return f", {int(mebibytes) / 1024:.0f} GB" if mebibytes.strip().isdigit() else ""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return ""
    return f", {total / 2**30:.0f} GB"


def _cores():
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(key):
    """The first value of `key` in Linux's /proc/cpuinfo; empty elsewhere."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.split(":")[0].strip() == key:
                return line.split(":", 1)[1].strip()
    return ""


def _cpu_flags():
    return set(_cpuinfo("flags").split())


def _cpu_name():
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):
            command = ["sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True).stdout.strip()
    return _cpuinfo("model name") or platform.processor() or platform.machine()
