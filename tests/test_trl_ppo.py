"""The benchmark beside TRL's PPO, without TRL: its results on a small work are stored in tests/trl_ppo.

They were written by `benchmarks/trl_ppo/agree.py --work tiny` with TRL 1.12.0; README.md there tells the rules.
"""

import json
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BENCHMARK = HERE.parent / "benchmarks/trl_ppo"
STORED = HERE / "trl_ppo"
sys.path.insert(0, str(BENCHMARK))

import agree  # noqa: E402
import make_input  # noqa: E402
import ours  # noqa: E402
import ours_timed  # noqa: E402
import speed  # noqa: E402
from rules import NAMES, NONE, RuledLearner, Rules  # noqa: E402
from work import WORKS  # noqa: E402

WORK = WORKS["tiny"]

# A case in which each rule makes a difference, and the statistic in which it is seen first.
SEEN_IN = {
    "eos_ends_nothing": ("default", "objective/entropy"),
    "pad_has_probability": ("natural", "logprobs"),
    "penalty_is_subtracted": ("natural", "scores"),
    "state_after_the_end": ("natural", "returns"),
    "whitening_is_unbiased": ("equal", "advantages"),
    "micro_batches_count_alike": ("natural", "loss/policy_avg"),
    "one_step_a_pass": ("natural", "n_steps"),
    "more_steps_in_the_last_batch": ("natural", "n_steps"),
    "critic_is_scaled": ("default", "val/clipfrac_avg"),
    "gradients_are_not_clipped": ("natural", "values"),
    "head_has_no_bias": ("natural", "val/clipfrac_avg"),
    "figures_count_padding": ("natural", "policy/approxkl_avg"),
    "figures_count_empty_places": ("natural", "val/ratio"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trl_ppo")
    make_input.make(WORK, path)
    return path


def off(folder, case, rules):
    """How far we are from what TRL found, of each statistic the most over the updates."""
    theirs = ours.read_theirs(STORED / case)
    return agree.largest(agree.differences(ours.run(folder, WORK, WORK.cases[case], rules, theirs), theirs, {}))


@pytest.mark.parametrize("case", WORK.cases)
def test_under_trls_rules_our_numbers_are_trls(folder, case):
    found = off(folder, case, Rules())
    assert len(found) > 20
    assert {name: value for name, value in found.items() if value > agree.AGREES} == {}


def test_with_equal_lengths_only_whitening_and_the_bias_differ(folder):
    found = off(folder, "equal", NONE)
    assert {name for name, value in found.items() if value > 1e-2} == set()
    assert {"logprobs", "ref_logprobs", "kl", "scores", "objective/kl", "objective/scores", "lr", "n_steps"} <= {
        name for name, value in found.items() if value <= agree.AGREES
    }


@pytest.mark.parametrize("rule", NAMES)
def test_each_rule_makes_a_difference(folder, rule):
    case, statistic = SEEN_IN[rule]
    assert off(folder, case, Rules().without(rule))[statistic] > 10 * agree.AGREES


def test_without_rules_the_ruled_learner_is_ours(folder, monkeypatch):
    """Or its numbers would say nothing of ours. One mini-batch in a pass: the order of rows does not matter."""
    as_it_is = off(folder, "equal", NONE)
    monkeypatch.setattr(ours, "Learner", RuledLearner)
    assert off(folder, "equal", NONE) == pytest.approx(as_it_is, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("script", [agree, speed, make_input, ours_timed])
def test_help(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.__name__, "--help"])
    with pytest.raises(SystemExit) as ending:
        script.main()
    assert ending.value.code == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize("script", [agree, speed])
def test_an_environment_without_trl_1_12_is_refused_with_the_remedy(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.__name__, "--trl", "no/such/python"])
    with pytest.raises(SystemExit) as ending:
        script.main()
    assert ending.value.code == 2
    assert "no/such/python: it has no TRL" in capsys.readouterr().err


def test_updates_are_timed(folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ours_timed", "--input", str(folder), "--time", "2"])
    ours_timed.main()
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert len(found["seconds"]) == len(found["tokens"]) == 2
    assert [sum(phases) for phases in found["phases"]] == pytest.approx(found["seconds"])
    assert 1 < found["tokens"][0] < WORK.n_tokens
    twice_as_fast = found | {"seconds": [seconds / 2 for seconds in found["seconds"]]}
    runs = {"TRL": [found | {"process_s": 9.0}], "align": [twice_as_fast | {"process_s": 7.0}]}
    table = speed.table([{"policy": "ends", "precision": "fp32", "runs": runs}], WORK.batch_size)
    last = table.splitlines()[-1]
    assert last.startswith("| ends | fp32 | align |")
    assert "| 2.00 (2.00) |" in last
    assert "| 7.00 (7.00) |" in last
