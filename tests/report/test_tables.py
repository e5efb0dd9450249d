"""The report's tables, from blocks as the judges and tasks make them."""

from typing import Any

import pytest

from align.report.tables import agreement_table, change_panels, task_tables, texts_table, verdict_tables
from align.report.verdict import all_pairs, came_from, claims_of, compared_pairs, verdict
from align.stats.calibration import calibration
from align.stats.preferences import preference, ranking
from align.stats.texts import Texts


def judge_block(kind: str = "function") -> dict[str, Any]:
    outcomes: dict[tuple[str, str], list[float | None]] = {
        ("sft", "base"): [1.0] * 60 + [0.5] * 20 + [0.0] * 19 + [None],
        ("ppo", "sft"): [1.0, 0.0] * 50,
        ("ppo", "base"): [1.0] * 70 + [0.0] * 30,
    }
    lengths = [list(range(100)), list(range(100))[::-1]]
    pairs = {f"{a}_over_{b}": preference(found, *lengths).block() for (a, b), found in outcomes.items()}
    return {"kind": kind, "pairs": pairs, "ranking": ranking(outcomes), "order_bias": None}


def test_a_judge_s_table_has_wins_rates_and_what_failed():
    (table,) = verdict_tables({"judges": {"gold": judge_block()}})
    assert table.heading == "gold: a function"
    rows = dict(table.rows)
    assert list(rows) == ["SFT over base", "PPO over SFT", "PPO over base"]
    assert rows["SFT over base"][:3] == ["60.6%", "20.2%", "19.2%"]
    assert rows["SFT over base"][3].startswith("70.7% [")
    assert rows["SFT over base"][5:] == ["< 0.001", "99 of 100"]
    assert rows["PPO over SFT"][5:] == ["1.000", "100"]
    assert table.note.startswith("All on one scale (Bradley-Terry, in logits): SFT 0.29 [")


def test_of_many_pairs_those_with_the_model_each_came_from_are_shown():
    pair = judge_block()["pairs"]["ppo_over_sft"]
    names = ["base", "sft", "ppo", "dpo", "best_of_4"]
    pairs = {f"{later}_over_{earlier}": pair for later, earlier in all_pairs(names)}
    judge = {"kind": "function", "pairs": pairs, "ranking": {}}
    (table,) = verdict_tables({"judges": {"gold": judge}, "models": {name: {"reward": 1.0} for name in names}})
    assert [name for name, _ in table.rows] == ["SFT over base", "PPO over SFT", "DPO over SFT", "best of 4 over SFT"]
    assert table.note == "6 more pairs are in report.json."


def test_a_judge_that_contradicts_itself_is_told():
    disagree = {"mean": 0.25, "low": 0.2, "high": 0.3}
    block = judge_block("llm") | {"order_bias": {"n": 40, "orders_disagree": disagree, "first_shown_wins": None}}
    (table,) = verdict_tables({"judges": {"gpt": block}})
    assert "a language model, in both orders" in table.heading
    assert (
        "verdict changed with the order of the answers on 25.0% [20.0, 30.0] of the prompts; these count as ties"
        in table.note
    )


def test_a_judge_without_any_verdict_has_no_table():
    assert verdict_tables({"judges": {"gpt": {"kind": "llm", "pairs": {"ppo_over_sft": None}, "ranking": {}}}}) == []
    assert verdict_tables({}) == []


def test_judges_that_agree():
    same = {"mean": 0.5, "low": 0.4, "high": 0.6}
    table = agreement_table({"judges_agree": [{"judges": ["gold", "gpt"], "same": same, "kappa": 0.25, "n": 9}]})
    assert table is not None
    assert table.rows == [("gold with gpt", ["50.0% [40.0, 60.0]", "0.25"])]
    assert agreement_table({"judges_agree": []}) is None


def interval(mean: float, half: float = 0.01) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def choice_task() -> dict[str, Any]:
    def model(mean: float, change: float | None = None) -> dict[str, Any]:
        rounds = [{"shots": n, "n": 50, "scores": {"raw": interval(mean)}, "chance": 0.25} for n in (0, 1)]
        block: dict[str, Any] = {"rounds": rounds}
        if change is not None:
            block |= {"came_from": "base", "change": [{"shots": n, "n": 50, **interval(change)} for n in (0, 1)]}
        found = calibration([[0.9, 0.1]] * 10, [0] * 9 + [1])
        return block | {"calibration": {"shots": 1, "every": found, "top": found}}

    models = {"ppo": model(0.5, -0.1), "base": model(0.6), "sft": model(0.605, 0.005)}
    return {"kind": "choice", "metric": "raw", "n": 50, "models": models}


def test_a_task_has_a_row_for_each_number_of_examples_and_what_changed():
    (table,) = task_tables({"tasks": {"facts": choice_task()}})
    assert table.heading == "facts: 50 questions"
    assert table.columns == ["base", "SFT", "PPO"]
    assert [name for name, _ in table.rows] == [
        "right, by likelihood, 0 examples",
        "change from the model it came from",
        "right, by likelihood, 1 example",
        "change from the model it came from",
        "ECE, over all choices",
        "ECE, of the likeliest choice",
    ]
    assert table.rows[1][1] == ["–", "0.5% [-0.5, 1.5]", "▼ -10.0% [-11.0, -9.0]"]
    assert table.note.endswith("Guessing gets 25.0%.")


def test_of_perplexity_less_is_better():
    def model(bits: float, change: float | None) -> dict[str, Any]:
        scores = {"per_token": interval(3.0), "bits_per_byte": interval(bits), "per_word": interval(1.0)}
        block: dict[str, Any] = {"rounds": [{"shots": 0, "n": 9, "scores": scores}]}
        return block | ({} if change is None else {"change": [{"shots": 0, "n": 9, **interval(change)}]})

    models = {"base": model(0.5, None), "sft": model(0.6, 0.1), "ppo": model(0.5, -0.1)}
    task = {"kind": "perplexity", "metric": "bits_per_byte", "n": 9, "models": models}
    (table,) = task_tables({"tasks": {"web": task}})
    assert table.heading == "web: 9 documents"
    assert table.rows[-1][1] == ["–", "▼ 0.100 [0.090, 0.110]", "▲ -0.100 [-0.110, -0.090]"]
    assert [name for name, _ in table.rows[:2]] == ["perplexity per token", "bits per byte"]


def test_what_answers_are_like():
    texts = Texts()
    texts.add(["red blue red blue red blue", "i can not help with that .", ""], [7, 8, 1])
    report = {"texts": {"sft": texts.figures()}, "models": {"sft": {"complied": 0.25, "over_refused": 0.5}}}
    table = texts_table(report)
    assert table is not None
    rows = {name: cells[0] for name, cells in table.rows}
    assert rows["words in an answer"].startswith("4.3 [")
    assert rows["empty answers"].startswith("33.3% [")
    assert rows["answers with a refusal phrase"].startswith("33.3% [")
    assert rows["harmful requests complied with"] == "25.0%"
    assert rows["harmless requests refused"] == "50.0%"
    assert texts_table({}) is None


def test_reliability_and_lengths_are_drawn():
    texts = Texts()
    texts.add(["red blue", "red"], [3, 2])
    panels = change_panels({"tasks": {"facts": choice_task()}, "texts": {"sft": texts.figures()}})
    assert [panel.svg.startswith("<svg") for panel in panels] == [True] * 3
    assert "Reliability on facts: all choices" in panels[0].svg
    assert "SFT has a median of 2 words" in panels[2].svg
    assert change_panels({}) == []


# -- who is compared, and in which words ------------------------------------------------------------------------------


def test_every_two_models_are_a_pair_once():
    names = ["base", "sft", "ppo", "dpo"]
    assert came_from(names) == {"sft": "base", "ppo": "sft", "dpo": "sft"}
    assert compared_pairs(names) == [("sft", "base"), ("ppo", "sft"), ("dpo", "sft"), ("dpo", "ppo")]
    assert set(all_pairs(names)) == {*compared_pairs(names), ("ppo", "base"), ("dpo", "base")}
    assert len(all_pairs(names)) == 6


def many(**differences: float) -> dict[str, Any]:
    models = {name: {"gold": interval(0.5 + value)} for name, value in {"sft": 0.0, **differences}.items()}
    return {
        "compared_by": "gold",
        "models": {"base": {"gold": interval(0.2)}, **models},
        "differences": {"sft_over_base": interval(0.3)}
        | {f"{name}_over_sft": interval(value) for name, value in differences.items()},
    }


def test_few_models_have_a_clause_each():
    assert verdict(many(ppo=0.6)) == (
        "PPO is better than SFT: gold score 1.10 against 0.50, a difference of 0.60 [0.59, 0.61]; "
        "and SFT is better than base: gold score 0.50 against 0.20, a difference of 0.30 [0.29, 0.31]."
    )


def test_many_models_with_one_outcome_share_a_clause():
    claims = claims_of(many(ppo=0.6, dpo=0.4, best_of_16=0.5, worse=-0.2, same=0.001))
    assert claims == [
        (
            "PPO, DPO and best of 16 are better than SFT",
            "differences in gold score from 0.40 [0.39, 0.41] (DPO) to 0.60 [0.59, 0.61] (PPO)",
        ),
        ("worse is worse than SFT", "gold score 0.30 against 0.50, a difference of -0.20 [-0.21, -0.19]"),
        (
            "between same and SFT no difference that these prompts can show",
            "gold score 0.50 against 0.50, a difference of 0.00 [-0.01, 0.01]",
        ),
        ("SFT is better than base", "gold score 0.50 against 0.20, a difference of 0.30 [0.29, 0.31]"),
    ]


@pytest.mark.parametrize(("value", "told"), [(0.012, "0.012 [0.002, 0.022]"), (-0.012, "-0.012 [-0.022, -0.002]")])
def test_that_an_interval_leaves_0_is_not_rounded_away(value, told):
    assert f"a difference of {told}" in verdict(many(ppo=value))


def test_worse_in_truth_and_higher_in_reward_is_over_optimised():
    report = many(ppo=-0.2)
    report["models"]["ppo"]["reward"], report["models"]["sft"]["reward"] = 2.0, 1.0
    assert "although its reward rose from 1.00 to 2.00: it is over-optimised" in verdict(report)
