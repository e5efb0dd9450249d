"""The machine: precision is chosen by what the hardware does, and what is needed to repeat a run is told."""

import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from align.train import machine
from align.train.machine import PeakMemory, environment, resolve_precision


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks what a CPU does")
@pytest.mark.parametrize(
    ("flags", "supported", "expected"),
    [
        ("flags : sse avx512_bf16", True, "bf16"),
        ("flags : sse amx_bf16", True, "bf16"),
        ("flags : sse avx2", True, "fp32"),  # emulated, and slower than fp32
        ("flags : sse avx512_bf16", False, "fp32"),
    ],
)
def test_auto_is_bf16_where_the_cpu_multiplies_it(monkeypatch, flags, supported, expected):
    monkeypatch.setattr(Path, "read_text", lambda self, *given, **keys: flags)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    assert resolve_precision("auto") == expected


def test_a_chosen_precision_is_kept():
    assert resolve_precision("fp32") == "fp32"
    if not torch.cuda.is_available():
        assert resolve_precision("bf16") == "bf16"


def test_the_environment_says_what_is_needed_to_repeat_a_run(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/sft.py", "sft.yaml", "seed=2"])
    told = environment()
    assert (
        told["packages"]["torch"] == torch.__version__.split("+")[0] or told["packages"]["torch"] == torch.__version__
    )
    assert told["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert told["threads"] == torch.get_num_threads()
    assert told["command"] == ["sft.py", "sft.yaml", "seed=2"]


def test_a_changed_checkout_is_marked(monkeypatch):
    answers = {"rev-parse": "abc123", "status": " M align/sft.py"}
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(machine, "_git", lambda here, word, *rest: answers[word])
    assert machine.git_commit() == "abc123+"
    answers["status"] = ""
    assert machine.git_commit() == "abc123"


def test_no_checkout_has_no_commit(monkeypatch):
    def fails(*given):
        raise subprocess.CalledProcessError(128, "git")

    monkeypatch.setattr(machine, "_git", fails)
    assert machine.git_commit() is None


def test_peak_memory_sees_what_was_there_and_is_gone():
    gc.collect()  # else what other tests left may be freed in between
    with PeakMemory() as memory:
        before = memory.megabytes
        block = torch.ones(25_000_000)  # 100 MB
        during = memory.megabytes
        del block
    assert during > before + 80
    assert memory.megabytes >= during
