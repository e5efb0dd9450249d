"""Speed of TRL's PPO and ours: episodes per second on the same work, in alternating separate processes.

    python benchmarks/trl_ppo/speed.py --trl PATH/TO/TRL/ENVIRONMENT/bin/python

An episode is an answer: sampled, measured by policy, reference, critic and reward model, and learned from in four
passes. The first of several updates is not counted. Prints a table, and writes speed.json. A ratio is of
two runs one after the other. On a machine that has other work to do, --cpu-time --threads 1 counts what the processor
spent on each side, which other work lengthens little.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from statistics import fmean, median
from typing import Any

from command import Setting
from work import PHASES

POLICIES, PRECISIONS = ("never-ends", "ends"), ("fp32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each side (3)")
    parser.add_argument("--updates", type=int, default=4, help="in each run (4)")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="(both)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="(both)")
    parser.add_argument("--cpu-time", action="store_true", help="count seconds of the processor, not of the clock")
    parser.add_argument("--micro-batch", type=int, default=8, help="answers that are trained on at once (8, TRL's)")
    setting = Setting(parser)
    if setting.arguments.updates < 1:
        parser.error(f"--updates {setting.arguments.updates}: there is nothing to time; give 1 or more")
    rows = []
    for policy in setting.arguments.policies:
        for precision in setting.arguments.precisions:
            runs: dict[str, list[dict[str, Any]]] = {"TRL": [], "align": []}
            for _ in range(setting.arguments.runs):
                for side, found in runs.items():
                    found.append(timed(setting, side, policy, precision))
            rows.append({"policy": policy, "precision": precision, "runs": runs})
    (setting.folder / "speed.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(table(rows, setting.work.batch_size))


def timed(setting: Setting, side: str, policy: str, precision: str) -> dict[str, Any]:
    """One run of one side, as `work.timing` has it."""
    began = time.perf_counter()
    words = ["--input", setting.folder, "--time", setting.arguments.updates, "--policy", policy]
    words += ["--micro-batch", setting.arguments.micro_batch, *["--cpu-time"] * setting.arguments.cpu_time]
    if side == "TRL":
        # TRL's own key bf16 has no effect; `accelerate launch --mixed_precision` sets this.
        mixed = "bf16" if precision == "bf16" else "no"
        printed = setting.run(setting.arguments.trl, "theirs.py", *words, ACCELERATE_MIXED_PRECISION=mixed)
    else:
        printed = setting.run(sys.executable, "ours_timed.py", *words, "--precision", precision)
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    found["process_s"] = time.perf_counter() - began
    print(f"{side}, {policy}, {precision}: {json.dumps(found)}", file=sys.stderr)
    return found


def table(rows: list[dict[str, Any]], batch_size: int) -> str:
    """Medians over runs, in Markdown; all runs' figures in brackets."""
    names = ["answers", "precision", "side", "tokens an answer", "episodes/s", "times TRL's"]
    names += [f"{phase} s" for phase in PHASES] + ["process s", "peak MB"]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for row in rows:
        rates = {side: [rate(run, batch_size) for run in runs] for side, runs in row["runs"].items()}
        for side, runs in row["runs"].items():
            pairs = [mine / other for mine, other in zip(rates[side], rates["TRL"], strict=True)]
            cells = [row["policy"], row["precision"], side]
            cells += [
                f"{fmean(n for run in runs for n in counted(run['tokens'])):.1f}",
                spread(rates[side]),
                spread(pairs),
            ]
            for number in range(len(PHASES)):
                cells.append(f"{median(lap[number] for run in runs for lap in counted(run['phases'])):.2f}")
            cells += [spread([run["process_s"] for run in runs]), f"{max(run['peak_mb'] for run in runs):,.0f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def rate(run: dict[str, Any], batch_size: int) -> float:
    """Episodes a second."""
    seconds = counted(run["seconds"])
    return batch_size * len(seconds) / float(sum(seconds))


def counted(updates: list[Any]) -> list[Any]:
    """All but the first, if there are more."""
    return updates[1:] or updates


def spread(values: list[float]) -> str:
    """The median, and all values."""
    return f"{median(values):.2f} ({', '.join(f'{value:.2f}' for value in sorted(values))})"


if __name__ == "__main__":
    main()
