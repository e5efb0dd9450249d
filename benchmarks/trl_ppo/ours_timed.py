"""Our side of the speed benchmark: PPO updates by our sampler and learner; prints JSON.

python benchmarks/trl_ppo/ours_timed.py --input runs/trl_ppo/small --time 4
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from ours import recipe_of
from rules import NONE
from work import Work, load_work, timed_case, timing

from align import ppo
from align.text.batches import rows_of_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--input", type=Path, required=True, help="folder that make_input.py wrote")
    parser.add_argument("--time", type=int, required=True, metavar="N", help="updates")
    parser.add_argument("--policy", default="ends", help="ends or never-ends (ends)")
    parser.add_argument("--micro-batch", type=int, help="longest answers that are trained on at once (the whole batch)")
    parser.add_argument("--cpu-time", action="store_true", help="seconds of the processor, not of the clock")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32", help="(fp32)")
    arguments = parser.parse_args()
    work = load_work(arguments.input)
    n_rows = arguments.micro_batch or work.batch_size
    recipe = timed_recipe(arguments.input, work, arguments.policy, arguments.precision, arguments.time, n_rows)
    sampler, learner, prompts = ppo.build(recipe)
    now = time.process_time if arguments.cpu_time else time.perf_counter
    laps, n_tokens = [], []
    for step in range(1, arguments.time + 1):
        rows = rows_of_step(step, len(prompts), work.batch_size, recipe.seed)
        asked = sampler.repeated([prompts[row] for row in rows])
        began, rollouts, sampled = now(), sampler.sample(asked, step), now()
        sampler.measure(asked, rollouts)
        measured, _, learned = now(), learner.step(rollouts), now()
        laps.append([began, sampled, measured, learned])
        n_tokens.append(float(rollouts.mask.sum(1).float().mean()))
    print(json.dumps(timing(laps, n_tokens)))


def timed_recipe(folder: Path, work: Work, policy: str, precision: str, n_updates: int, n_rows: int) -> ppo.Recipe:
    """The recipe of the comparison with the timed case's settings, without parts that only the comparison needs."""
    recipe = recipe_of(folder, work, timed_case(policy, work.batch_size), NONE)
    changes = {
        "model": recipe.model.model_copy(update={"path": str(folder / f"{policy}-policy")}),
        "ppo": recipe.ppo.model_copy(update={"entropy_coefficient": 0.0}),
        "train": recipe.train.model_copy(
            update={
                "precision": precision,
                "steps": n_updates,
                "micro_batch_tokens": n_rows * work.shape["n_positions"],
            }
        ),
    }
    return recipe.model_copy(update=changes)


if __name__ == "__main__":
    main()
