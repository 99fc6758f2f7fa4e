"""ONNX Runtime on this machine: its providers, sessions as they are measured, and what identifies both.

Part of the measuring core, so it needs nothing but the standard library, numpy and onnxruntime, and runs on Python 3.8.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

_NO_TELEMETRY = "ORT_DISABLE_TELEMETRY"


class MeasureError(ValueError):
    """The manifest, a model or a results file cannot be used.

    Attributes:
        model_id: the model at fault, None when it is none in particular.
    """

    def __init__(self, message: str, model_id: str | None = None) -> None:
        super().__init__(message)
        self.model_id = model_id


@dataclass(frozen=True)
class Provider:
    """An execution provider: its name in ONNX Runtime, a package that has it, how it is set up.

    Attributes:
        options: provider options; ``{threads}`` stands for the number of threads.
        memory: where inputs and outputs lie while a model is timed.
        minimum_runtime: the first ONNX Runtime that can be kept from giving nodes to the CPU.
    """

    name: str
    package: str = "onnxruntime"
    options: Mapping[str, str] = field(default_factory=dict)
    memory: str = "cpu"
    minimum_runtime: str = "1.17"

    def options_for(self, threads: int) -> dict[str, str]:
        """Return the options with the number of threads filled in."""
        return {key: value.format(threads=threads) for key, value in self.options.items()}


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", minimum_runtime="1.14"),
    "openvino": Provider(
        "OpenVINOExecutionProvider", "onnxruntime-openvino", {"device_type": "CPU", "num_of_threads": "{threads}"}
    ),
    "xnnpack": Provider("XnnpackExecutionProvider", options={"intra_op_num_threads": "{threads}"}),
    "cuda": Provider("CUDAExecutionProvider", "onnxruntime-gpu", memory="cuda"),
    "tensorrt": Provider("TensorrtExecutionProvider", "onnxruntime-gpu", memory="cuda"),
    "coreml": Provider("CoreMLExecutionProvider", options={"ModelFormat": "MLProgram"}),
    "dml": Provider("DmlExecutionProvider", "onnxruntime-directml"),
}
"""All providers that can be asked for, by the name of the device."""


def load_runtime() -> Any:
    """Import onnxruntime with its telemetry off, and return the module."""
    # Since 1.29 it writes a device id into the user's cache folder and uploads events unless this is set beforehand.
    os.environ[_NO_TELEMETRY] = "1"
    import onnxruntime

    return onnxruntime


def open_session(
    model: bytes | str | Path, threads: int = 1, provider: str = "cpu", profile: tuple[Path, Path] | None = None
) -> Any:
    """Open an ONNX model for inference, exactly as it is opened for measuring.

    Args:
        model: the content of the file, or its path. External data is refused.
        threads: threads inside an operator; operators run one after the other.
        provider: what runs it, a key of `PROVIDERS`; that it runs every node is asserted.
        profile: beginning of a file for the profiler's events, and a file for the graph as the runtime optimised it.

    Returns:
        The ``onnxruntime.InferenceSession``.

    Raises:
        MeasureError: the file cannot be read, or ONNX Runtime or the provider does not accept the model.
    """
    runtime, wanted = load_runtime(), PROVIDERS[provider]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads if provider == "cpu" else 1
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 4 if provider != "cpu" else 3  # what a provider lacks comes as an exception, too
    options.add_session_config_entry("session.intra_op.allow_spinning", "1")
    options.add_session_config_entry("session.load_model_format", "ONNX")
    # Weights outside the file escape its SHA-256, and would be looked for in the working directory: point to nowhere.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", os.devnull)
    if provider != "cpu":  # without this, nodes that the provider cannot run go to the CPU without a word
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix, options.optimized_model_filepath = (str(path) for path in profile)
    with explained():
        if version_of(runtime.__version__) < version_of(wanted.minimum_runtime):
            raise MeasureError(
                f"{wanted.name} needs onnxruntime >= {wanted.minimum_runtime}, not {runtime.__version__}"
            )
        if wanted.name not in runtime.get_available_providers():
            raise MeasureError(f"onnxruntime {runtime.__version__} here has no {wanted.name}; install {wanted.package}")
        content = model if isinstance(model, bytes) else Path(model).read_bytes()
        session = runtime.InferenceSession(
            content, options, providers=[(wanted.name, wanted.options_for(threads))], enable_fallback=0
        )
    if session.get_providers()[0] != wanted.name:
        raise MeasureError(f"asked for {wanted.name}, but the session runs on {session.get_providers()}")
    return session


def version_of(text: str) -> list[int]:
    """Return the first three numbers of a version."""
    return [int(number) for number in re.findall(r"\d+", text)[:3]]


def random_inputs(session: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Make one value for every input of a session: symbolic dimensions are 1.

    Floats are normal, 8-bit integers uniform. Wider integers and booleans are ones, since they tend to be indices,
    lengths and masks, which a random number would put out of range.

    Raises:
        MeasureError: an input is neither a tensor of numbers nor of booleans.
    """
    values = {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in node.shape]
        name = node.type[len("tensor(") : -1] if node.type.startswith("tensor(") else ""
        if name in ("float", "double", "float16"):
            values[node.name] = rng.standard_normal(shape).astype("float32" if name == "float" else name)
        elif name in ("uint8", "int8"):
            limits = np.iinfo(name)
            values[node.name] = rng.integers(limits.min, limits.max, shape, name, endpoint=True)
        elif re.fullmatch(r"bool|u?int(16|32|64)", name):
            values[node.name] = np.ones(shape, name)
        else:
            raise MeasureError(f"input {node.name!r} is a {node.type}, for which no value can be made")
    return values


@contextlib.contextmanager
def explained(path: Path | None = None, model_id: str | None = None) -> Iterator[None]:
    """Turn whatever ONNX Runtime or the file system raises into a `MeasureError` of one line, blaming a model."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - the runtime has fifteen error types without a base of their own
        text = " ".join(str(error).split())
        raise MeasureError(f"{path}: {text}" if path else text, model_id) from None


def describe_machine(threads: int, provider: str = "cpu") -> dict[str, Any]:
    """Return what a latency depends on besides the model: hardware, limits, runtime and its settings.

    What cannot be read on this system is None.
    """
    first_cpu = (text_of("/proc/cpuinfo") or "").split("\n\n")[0]
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first_cpu.splitlines())}
    flags = cpu.get("flags") or cpu.get("Features") or ""
    detail = ("cpu family", "model", "stepping", "CPU implementer", "CPU part", "CPU variant", "CPU revision")
    names = [cpu["model name"]] if "model name" in cpu else []
    names += [f"{key} {cpu[key]}" for key in detail if key in cpu]
    no_turbo = text_of("/sys/devices/system/cpu/intel_pstate/no_turbo")
    boost = text_of("/sys/devices/system/cpu/cpufreq/boost")
    memory = memory_bytes()
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "machine": platform.machine(),
        "cpu_model": ", ".join(names) or _mac_processor() or platform.processor() or None,
        "isa_flags": sorted(flags.split()),
        "cores": os.cpu_count(),
        "affinity": sorted(affinity(0)) if affinity else None,
        "cpu_quota": _cpu_quota(),
        "governor": text_of("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "turbo": no_turbo == "0" if no_turbo else (boost == "1" if boost else None),
        "memory_gib": round(memory / 2**30, 1) if memory else None,
        "system": platform.system(),
        "kernel": platform.release(),
        "onnxruntime": load_runtime().__version__,
        "provider": PROVIDERS[provider].name,
        "provider_options": PROVIDERS[provider].options_for(threads),
        "threads": threads,
        "optimization_level": "all",
        "allow_spinning": True,
    }


def _mac_processor() -> str | None:
    if platform.system() != "Darwin":
        return None
    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or None


def conditions() -> dict[str, Any]:
    """Return what changes from minute to minute: one-minute load average, highest temperature, fastest clock."""
    temperatures = [text_of(str(zone)) for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp")]
    clocks = [text_of(str(cpu)) for cpu in Path("/sys/devices/system/cpu").glob("cpu*/cpufreq/scaling_cur_freq")]
    millidegrees = [int(text) for text in temperatures if text and text.lstrip("-").isdigit()]
    kilohertz = [int(text) for text in clocks if text and text.isdigit()]
    return {
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "temperature_c": max(millidegrees) / 1000 if millidegrees else None,
        "clock_mhz": max(kilohertz) / 1000 if kilohertz else None,
        "time_unix_s": round(time.time(), 3),
    }


def memory_bytes() -> int | None:
    """Return the memory of the machine."""
    found = re.search(r"MemTotal:\s+(\d+) kB", text_of("/proc/meminfo") or "")
    return int(found.group(1)) * 1024 if found else None


def free_bytes() -> float | None:
    """Return how much memory there is to use: what the system calls available, within the container's limit."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", text_of("/proc/meminfo") or "")
    limit = text_of("/sys/fs/cgroup/memory.max") or text_of("/sys/fs/cgroup/memory/memory.limit_in_bytes") or ""
    amounts = [int(found.group(1)) * 1024] if found else []
    return min(amounts + ([int(limit)] if limit.isdigit() else []), default=None)


def footprint_bytes(path: Path, threads: int, provider: str = "cpu") -> int | None:
    """Return how much memory a process needs at most to load and run a model, beyond the runtime; None if not told.

    Where another process cannot be had or cannot run the model, say because memory is short, nothing is told.
    """
    # In a process of its own, since the highest mark of this one is passed; it finds this file where this one did.
    folder = Path(__file__).resolve().parents[__name__.count(".")]
    code = f"import sys; sys.path[0] = {str(folder)!r}; import {__name__} as runtime; runtime.print_footprint()"
    command = [sys.executable, "-c", code, str(path), str(threads), provider]
    try:
        done = subprocess.run(command, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    words = done.stdout.split()
    return int(words[-1]) if words and words[-1].isdigit() else None


def print_footprint() -> None:
    """Do what `footprint_bytes` wants of its process: its arguments are a model, threads and a provider."""
    path, threads, provider = sys.argv[1:]
    load_runtime()
    before = _highest_bytes()
    session = open_session(path, int(threads), provider)
    inputs = random_inputs(session, np.random.default_rng(0))
    for _ in range(3):
        session.run(None, inputs)
    after = _highest_bytes()
    if before and after and after > before:
        sys.stdout.write(str(after - before))


def _highest_bytes() -> int | None:
    found = re.search(r"VmHWM:\s+(\d+) kB", text_of("/proc/self/status") or "")
    return int(found.group(1)) * 1024 if found else None


def text_of(path: str) -> str | None:
    """Return the content of a small file of the system, None if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _cpu_quota() -> float | None:
    """Return how many cores' time the container may use: the tightest limit of its control group and those above."""
    quotas = []
    for line in (text_of("/proc/self/cgroup") or "").splitlines():
        _, controllers, group = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            own = Path("/sys/fs/cgroup", "cpu" if controllers else "", group.lstrip("/"))
            quotas += [_quota_of(folder) for folder in (own, *own.parents)]
    return min((quota for quota in quotas if quota), default=None)


def _quota_of(group: Path) -> float | None:
    both = text_of(str(group / "cpu.max"))
    if both is None:
        both = f"{text_of(str(group / 'cpu.cfs_quota_us'))} {text_of(str(group / 'cpu.cfs_period_us'))}"
    numbers = [int(word) for word in both.split() if word.isdigit()]
    return numbers[0] / numbers[1] if len(numbers) == 2 and numbers[1] else None


def probe_runtime() -> None:
    """Import the runtime in a process that may die: some builds hold instructions that a processor lacks."""
    os.environ[_NO_TELEMETRY] = "1"
    # Without the working directory, whose files would be imported in place of packages of the same names.
    command = [sys.executable, "-c", "import sys; sys.path.pop(0); import onnxruntime"]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().rpartition("\n")[2] or "it said nothing"
        ending = f"ended by signal {-done.returncode}" if done.returncode < 0 else words
        raise ImportError(f"onnxruntime cannot be imported here ({ending}); install another version or build of it")
