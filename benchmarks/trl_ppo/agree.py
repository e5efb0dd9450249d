"""Compare statistics of TRL's PPO and ours on TRL's rollouts and the same weights; list differences by rule.

    python benchmarks/trl_ppo/agree.py --trl PATH/TO/TRL/ENVIRONMENT/bin/python

Runs TRL unless its results exist, then our side: with our rules, with all of TRL's rules, and with --each-rule also
with all but one of them. Prints tables, and writes agreement.json.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from command import Setting
from ours import Found, read_theirs, run
from rules import NAMES, NONE, Rules
from safetensors.torch import load_file
from torch import Tensor
from work import load_work

AT_TOKENS, AT_STATES = ("logprobs", "ref_logprobs", "kl", "advantages"), ("values", "returns")
NOT_COMPARED = ("eps", "val/ratio_var", "val/num_eos_tokens", "episode", "epoch")
AGREES = 1e-4  # relative: fp32, after dozens of layers and steps

# Rules that can matter in a case. Each is left out once to measure its effect.
LEFT_OUT = {
    "equal": ["whitening_is_unbiased", "head_has_no_bias"],
    "natural": [name for name in NAMES if name != "eos_ends_nothing"],
    "default": ["eos_ends_nothing"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each-rule", action="store_true", help="also leave out each rule in turn, many runs of ours")
    setting = Setting(parser)
    folder = setting.folder
    for case in setting.work.cases:
        if not (folder / case / "last_weights.safetensors").exists():
            words = ("--input", folder, "--case", case, "--out", folder / case)
            setting.run(setting.arguments.trl, "theirs.py", *words)
    torch.set_num_threads(setting.arguments.threads)
    each_rule = setting.arguments.each_rule
    report = {case: compare(folder, case, LEFT_OUT[case] if each_rule else []) for case in setting.work.cases}
    (folder / "agreement.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print("\n".join(tables(report)))


def compare(folder: Path, name: str, left_out: list[str]) -> dict[str, Any]:
    """Both sides' statistics and our differences: with our rules, all of TRL's, and all but one of `left_out`."""
    work, theirs = load_work(folder), read_theirs(folder / name)
    start = weights_at_start(folder, work.cases[name].policy)

    def found(rules: Rules) -> Found:
        return run(folder, work, work.cases[name], rules, theirs)

    def off(ours: Found) -> list[dict[str, float]]:
        return differences(ours, theirs, start)

    ruled = found(Rules())
    return {
        "theirs": sizes(theirs, theirs),
        "ours": sizes(ruled, theirs),
        "as it is": off(found(NONE)),
        "all rules": off(ruled),
        "without": {rule: off(found(Rules().without(rule))) for rule in left_out},
    }


def weights_at_start(folder: Path, policy: str) -> dict[str, Tensor]:
    """Under TRL's names."""
    named = {"policy": f"{policy}-policy", "value_model": "critic"}
    return {
        f"{role}.{name}": tensor
        for role, path in named.items()
        for name, tensor in load_file(folder / path / "model.safetensors").items()
    }


def pairs(ours: Found, theirs: Found, number: int) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each statistic of an update (from 0): its name, our value and TRL's, if TRL has one."""
    mine, other = ours.updates[number], theirs.updates[number]
    for names, mask in ((AT_TOKENS, "padding_mask"), (AT_STATES, "padding_mask_p1")):
        there = ~other.tensors[mask]
        yield from ((name, mine.tensors[name][there], other.tensors[name][there]) for name in names)
    yield "scores", mine.tensors["scores"], other.tensors["scores"]
    for name in (name for name in other.figures if name not in NOT_COMPARED):
        yield name, torch.tensor(mine.figures[name]), torch.tensor(other.figures[name])


def differences(ours: Found, theirs: Found, start: dict[str, Tensor]) -> list[dict[str, float]]:
    """The largest difference of each statistic, update by update, over the largest of TRL's in any update.

    Gradients are compared by the norm of their difference; weights as well, over the distance that TRL's have moved
    from `start`. Both are left out where theirs are not there.
    """
    size = sizes(theirs, theirs)
    updates = [
        {
            name: ratio(float((mine - other).abs().max()), size[name])
            for name, mine, other in pairs(ours, theirs, number)
        }
        for number in range(len(theirs.updates))
    ]
    for role in ("policy", "value_model"):
        if theirs.first_gradients:
            mine, other = (flat(found.first_gradients, theirs.first_gradients, role) for found in (ours, theirs))
            updates[0][f"gradient of {role}"] = ratio(float((mine - other).norm()), float(other.norm()))
        if theirs.last_weights:
            mine, other = (flat(found.last_weights, theirs.last_weights, role) for found in (ours, theirs))
            moved = (other - flat(start, theirs.last_weights, role)).norm()
            updates[-1][f"weights of {role}"] = ratio(float((mine - other).norm()), float(moved))
    return updates


def sizes(found: Found, theirs: Found) -> dict[str, float]:
    """The largest absolute value of each statistic in any update."""
    most: dict[str, float] = {}
    for number in range(len(theirs.updates)):
        for name, mine, _ in pairs(found, theirs, number):
            most[name] = max(most.get(name, 0.0), float(mine.abs().max()))
    return most


def ratio(difference: float, size: float) -> float:
    """0 if there is no difference, whatever the size."""
    return difference / size if difference else 0.0


def flat(tensors: dict[str, Tensor], like: dict[str, Tensor], role: str) -> Tensor:
    """A role's tensors as one, in the order of `like`."""
    return torch.cat([tensors[name].flatten().double() for name in sorted(like) if name.startswith(f"{role}.")])


def tables(report: dict[str, Any]) -> Iterator[str]:
    """The report in Markdown."""
    for case, found in report.items():
        yield f"\n### {case}\n"
        yield "| statistic | TRL's | ours under its rules | off | off as we are |\n|---|---|---|---|---|"
        as_it_is, ruled = largest(found["as it is"]), largest(found["all rules"])
        for name, off in as_it_is.items():
            shown = [f"{found[side][name]:.6g}" if name in found["theirs"] else "" for side in ("theirs", "ours")]
            yield f"| {name} | {' | '.join(shown)} | {ruled[name]:.1e} | {off:.1e} |"
        if found["without"]:
            yield "\n| without the rule | what is then off |\n|---|---|"
        for rule, updates in found["without"].items():
            yield f"| {rule} | {', '.join(worst(updates)) or 'nothing'} |"


def largest(updates: list[dict[str, float]]) -> dict[str, float]:
    """Of each statistic, over all updates."""
    names = dict.fromkeys(name for update in updates for name in update)
    return {name: max(update.get(name, 0.0) for update in updates) for name in names}


def worst(updates: list[dict[str, float]], n_shown: int = 5) -> list[str]:
    """The different statistics in the first update with a difference; later updates have other weights."""
    for number, update in enumerate(updates, 1):
        off = sorted(((value, name) for name, value in update.items() if value > AGREES), reverse=True)
        if off:
            return [f"{name} {value:.1g}" for value, name in off[:n_shown]] + [f"(update {number})"] * (number > 1)
    return []


if __name__ == "__main__":
    main()
