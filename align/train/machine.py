"""The machine: devices and precision (through `accelerate`), versions, free and peak memory."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from align.errors import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

PACKAGES = ("align", "torch", "transformers", "tokenizers", "accelerate", "peft", "datasets", "bitsandbytes", "trl")


def accelerator(precision: Literal["auto", "fp32", "bf16"], device: str = "auto") -> Accelerator:
    """The `Accelerator` for a recipe's precision, for one process or for one of many under `accelerate launch`."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()  # a pipeline runs stages with different precisions in one process
    chosen = resolve_precision(precision)
    return Accelerator(mixed_precision="bf16" if chosen == "bf16" else "no", cpu=device == "cpu")


def resolve_precision(precision: Literal["auto", "fp32", "bf16"]) -> Literal["fp32", "bf16"]:
    """Resolves `auto`: bf16 if the hardware multiplies it natively. Raises `UserError` for bf16 on a GPU without it."""
    if torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        if precision == "bf16" and not native:
            raise UserError(f"train.precision: {torch.cuda.get_device_name()} does not support bf16; set fp32")
    else:
        native = torch.ops.mkldnn._is_mkldnn_bf16_supported() and _cpu_multiplies_bf16()
    if precision == "auto":
        return "bf16" if native else "fp32"
    return precision


def _cpu_multiplies_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def environment() -> dict[str, Any]:
    """The environment of a run, for repeating it: versions, machine, commit and command."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        **_software(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


@cache
def _software() -> dict[str, Any]:
    """The part that does not change in this process. Cached, because git and package versions take time."""
    return {
        "git_commit": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cpu": _cpu_name(),
    }


def git_commit() -> str | None:
    """The commit of this checkout, with `+` if files were changed; None if this is not a checkout."""
    here = Path(__file__).parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commit = _git(here, "rev-parse", "HEAD")
        return commit + "+" * bool(_git(here, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, check=True).stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()} x {os.cpu_count()}"


def resident_memory() -> int:
    """The resident memory of this process, in bytes."""
    import psutil

    return psutil.Process().memory_info().rss


def free_memory(proc: Path = Path("/proc/meminfo"), group: Path = Path("/sys/fs/cgroup")) -> float:
    """Free memory in bytes: Linux's MemAvailable, or what a container's limit leaves if that is less.

    Cached pages of files count as free, because they can be read again.
    """
    import psutil

    try:
        fields = dict(line.split(":", 1) for line in proc.read_text().splitlines())
        free = 1024.0 * int(fields["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        free = float(psutil.virtual_memory().available)
    try:
        statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text()) - int(statistics.get("inactive_file", 0))
        return min(free, int((group / "memory.max").read_text()) - used)
    except (OSError, ValueError):  # no control group, or one without a limit ("max")
        return free


class PeakMemory:
    """Measures the peak resident memory of this process within the block, in MB, sampled 20 times a second.

    On a GPU also the peak of PyTorch's allocations.
    """

    def __enter__(self) -> PeakMemory:
        import psutil

        self._process = psutil.Process()
        self._peak = self._process.memory_info().rss
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, *exception: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            self._peak = max(self._peak, self._process.memory_info().rss)

    @property
    def megabytes(self) -> float:
        """Peak so far, in MB (10^6 bytes)."""
        self._peak = max(self._peak, self._process.memory_info().rss)
        return round(self._peak / 1e6, 1)

    @property
    def gpu_megabytes(self) -> float | None:
        """Peak on the GPU so far, in MB; None without one."""
        return round(torch.cuda.max_memory_allocated() / 1e6, 1) if torch.cuda.is_available() else None
