"""Episodes a second of TRL's PPO and ours on the same work, each in a process of its own, by turns.

    python benchmarks/trl_ppo/speed.py --trl PATH/TO/TRL/ENVIRONMENT/bin/python

An episode is an answer: sampled, measured by policy, reference, critic and reward model, and learned from in four
passes. The first update of a run is not counted. Prints a table, and writes speed.json. Nothing else may run on the
machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from statistics import fmean, median
from typing import Any

from command import Setting

POLICIES, PRECISIONS = ("never-ends", "ends"), ("fp32", "bf16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3, help="of each side (3)")
    parser.add_argument("--updates", type=int, default=4, help="in each run, the first not counted (4)")
    parser.add_argument("--policies", nargs="+", choices=POLICIES, default=POLICIES, help="(both)")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS, help="(both)")
    parser.add_argument("--trl-micro-batch", type=int, help="answers that TRL trains on at once (the whole batch)")
    setting = Setting(parser)
    if setting.arguments.updates < 2:
        parser.error(f"--updates {setting.arguments.updates}: the first is not counted; give 2 or more")
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
    words = ["--input", setting.folder, "--time", setting.arguments.updates, "--policy", policy]
    if side == "TRL":
        # Its own key bf16 changes nothing; this is what `accelerate launch --mixed_precision` sets.
        mixed = "bf16" if precision == "bf16" else "no"
        words += ["--micro-batch", setting.arguments.trl_micro_batch or setting.work.batch_size]
        printed = setting.run(setting.arguments.trl, "theirs.py", *words, ACCELERATE_MIXED_PRECISION=mixed)
    else:
        printed = setting.run(sys.executable, "ours_timed.py", *words, "--precision", precision)
    found: dict[str, Any] = json.loads(printed.strip().splitlines()[-1])
    print(f"{side}, {policy}, {precision}: {[round(s, 2) for s in found['seconds']]} s", file=sys.stderr)
    return found


def table(rows: list[dict[str, Any]], batch_size: int) -> str:
    """Medians over runs, in Markdown."""
    lines = ["| answers | precision | side | tokens an answer | episodes/s, median (all) | ratio | peak MB |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows:
        rates = {
            side: sorted(batch_size * (len(run["seconds"]) - 1) / sum(run["seconds"][1:]) for run in runs)
            for side, runs in row["runs"].items()
        }
        for side, runs in row["runs"].items():
            tokens = fmean(n for run in runs for n in run["tokens"][1:])
            every = ", ".join(f"{rate:.2f}" for rate in rates[side])
            times = median(rates[side]) / median(rates["TRL"])
            peak = max(run["peak_mb"] for run in runs)
            lines.append(
                f"| {row['policy']} | {row['precision']} | {side} | {tokens:.1f} | {median(rates[side]):.2f} ({every}) "
                f"| {times:.1f} | {peak:,.0f} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
