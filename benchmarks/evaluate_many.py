"""Benchmark of an evaluation with many prompts: time per prompt, and growth of memory.

    python benchmarks/evaluate_many.py --demo runs/demo [--prompts 1000 10000] [--out FILE.json]

Base, SFT and PPO of a finished demo answer different prompts of the lab. The gold judge and the reward model score the
answers. Each number of prompts has its own process, first with an empty cache, then with a full one. Memory is the
resident set of that process (psutil), sampled four times a second: its peak, and the growth of the peak from the first
to the second half of the time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from align.lab.tasks import sample_tasks

MB = 2**20


def main() -> None:
    """Prints a line for each number of prompts, and writes the rows to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, default=Path("runs/demo"), help="the folder of a finished demo")
    parser.add_argument("--prompts", type=int, nargs="+", default=[1000, 10000])
    parser.add_argument("--out", type=Path, help="a JSON file to write")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for n in given.prompts:
            for again in (False, True):
                rows.append(measure(given.demo, n, Path(folder)) | {"prompts": n, "cached": again})
                print(summary(rows[-1]), flush=True)
    if given.out:
        given.out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def measure(demo: Path, n: int, folder: Path) -> dict[str, Any]:
    """One evaluation in its own process."""
    prompts = folder / f"{n}.jsonl"
    if not prompts.exists():
        tasks = sample_tasks("train", n, "evaluate many", distinct=True)
        prompts.write_text("".join(json.dumps({"prompt": task.prompt}) + "\n" for task in tasks), encoding="utf-8")
    models = {name: {"path": str(demo / name / "model")} for name in ("base", "sft", "ppo")}
    models["base"] |= {"asked": "plain"}
    recipe = {
        "models": models,
        "data": {"path": str(prompts), "max_tokens": 64},
        "judge": "align.lab.judge:judge",
        "reward": str(demo / "rm" / "model"),
        "sampling": {"max_tokens": 40},
        "output": str(folder / f"out-{n}"),
    }
    (folder / "evaluate.yaml").write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML too
    started = time.monotonic()
    command = [sys.executable, "-m", "align.evaluate", str(folder / "evaluate.yaml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        samples = list(resident(process))
    if process.returncode:
        raise SystemExit(f"the evaluation ended with status {process.returncode}")
    report = json.loads((folder / f"out-{n}" / "report.json").read_text(encoding="utf-8"))
    half = len(samples) // 2
    return {
        "seconds": time.monotonic() - started,
        "evaluate_s": report["stages"]["evaluate"]["seconds"],
        "peak_mb": max(samples) / MB,
        "growth_mb": (max(samples[half:]) - max(samples[:half])) / MB,
    }


def resident(process: subprocess.Popen[bytes]) -> Any:
    """The process's resident set in bytes, four times a second until it ends."""
    seen = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            yield seen.memory_info().rss
        except psutil.NoSuchProcess:
            return
        time.sleep(0.25)


def summary(row: dict[str, Any]) -> str:
    """A line of output for one evaluation."""
    per_prompt = row["evaluate_s"] / row["prompts"] * 1000
    return (
        f"{row['prompts']:>7,} prompts x 3 models{', from the cache' if row['cached'] else '':<16}  "
        f"{row['seconds']:6.1f} s in all, {per_prompt:6.1f} ms a prompt, peak {row['peak_mb']:6.0f} MB, "
        f"{row['growth_mb']:+5.0f} MB in the second half"
    )


if __name__ == "__main__":
    main()
