import itertools
import json
import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.lab.annotators import (
    ANNOTATORS,
    NOISE_RANGE,
    BrokenLine,
    agreement_with_gold,
    calibrate_noise,
    expected_agreement,
    main,
    rank,
    rank_file,
)
from align.lab.judge import judge
from align.lab.people import DEMONSTRATORS, WEB, write_answer
from align.lab.tasks import sample_tasks

SUM = "what is two plus three ?"
GOOD, PLAIN, WRONG = "sure ! five .", "five .", "six ."  # 1.5, 1.25, 0.25


def _answered(n, k=4):
    """Prompts with k different answers, from the best writers and the worst."""
    rng, rows = Random(5), []
    for task in sample_tasks("train", n, 5):
        answers: dict[str, None] = {}
        while len(answers) < k:
            answers[write_answer(task, (WEB, DEMONSTRATORS)[len(answers) % 2], rng)] = None
        rows.append((task.prompt, list(answers)))
    return rows


def _scores(rows):
    return [[judge(prompt, answer).score for answer in answers] for prompt, answers in rows]


# ----------------------------------------------------------------------------------------------------------- ranking


def test_without_noise_the_ranks_are_those_of_the_gold_scores():
    assert rank(SUM, [WRONG, GOOD, PLAIN], 0.0, Random(1)) == [3, 1, 2]
    assert rank(SUM, [WRONG, "seven .", PLAIN], 0.0, Random(1)) == [2, 2, 1]


def test_equal_texts_tie_and_the_next_rank_counts_all_above():
    for seed in range(20):
        ranks = rank(SUM, [WRONG, WRONG, GOOD], 0.3, Random(seed))
        assert ranks[0] == ranks[1]
        assert sorted(ranks) in ([1, 1, 3], [1, 2, 2])


def test_tie_margin_ties_with_the_best_of_the_group():
    # gold 1.5, 1.25, 1.0, 0.25: a margin of 0.3 joins the first two; the third is 0.5 below the first
    answers = [GOOD, PLAIN, "it was a long day . five .", WRONG]
    assert rank(SUM, answers, 0.0, Random(1), tie_margin=0.3) == [1, 1, 3, 4]
    assert rank(SUM, answers, 0.0, Random(1), tie_margin=9) == [1, 1, 1, 1]


def test_pairs_are_bradley_terry():
    noise, n = 0.5, 4000
    rng = Random(2)
    wins = sum(ranks[0] < ranks[1] for ranks in (rank(SUM, [GOOD, PLAIN, WRONG], noise, rng) for _ in range(n)))
    expected = 1 / (1 + math.exp(-(1.5 - 1.25) / noise))  # whatever the third answer is
    assert wins / n == pytest.approx(expected, abs=4 * 0.5 / n**0.5)


def test_ranking_is_pure():
    assert rank(SUM, [GOOD, WRONG], 1.0, Random(3)) == rank(SUM, [GOOD, WRONG], 1.0, Random(3))


# --------------------------------------------------------------------------------------------------------- agreement


def test_agreement_worked_out():
    # one pair at distance log(3) * noise: p = 3/4, p^2 + (1-p)^2 = 9/16 + 1/16
    assert expected_agreement([[math.log(3), 0.0]], 1.0) == pytest.approx(0.625)
    assert agreement_with_gold([[math.log(3), 0.0]], 1.0) == pytest.approx(0.75)
    # and a tied pair: one half, and none for gold; prompts without a pair count for nothing
    lists = [[0.0, 0.0], [2 * math.log(3), 0.0], [1.0], []]
    assert expected_agreement(lists, 2.0) == pytest.approx((0.5 + 0.625) / 2)
    assert agreement_with_gold(lists, 2.0) == pytest.approx(0.75)


def test_simulated_annotators_agree_as_expected_and_as_calibrated():
    rows = _answered(1500)
    scores = _scores(rows)
    noise = calibrate_noise(scores)
    assert expected_agreement(scores, noise) == pytest.approx(0.73, abs=1e-6)
    alice, bob = Random(1), Random(2)
    alike, with_gold = [], []
    for (prompt, answers), gold in zip(rows, scores, strict=True):
        a, b = rank(prompt, answers, noise, alice), rank(prompt, answers, noise, bob)
        for i, j in itertools.combinations(range(len(answers)), 2):
            alike.append((a[i] < a[j]) == (b[i] < b[j]))
            if gold[i] != gold[j]:
                with_gold.append((a[i] < a[j]) == (gold[i] > gold[j]))
    assert sum(alike) / len(alike) == pytest.approx(0.73, abs=0.015)
    assert sum(with_gold) / len(with_gold) == pytest.approx(agreement_with_gold(scores, noise), abs=0.015)


@given(st.lists(st.lists(st.floats(-1, 2), min_size=2, max_size=5), min_size=1, max_size=5), st.floats(0.55, 0.95))
def test_calibration_reaches_the_agreement_or_the_smallest_noise(score_lists, agreement):
    noise = calibrate_noise(score_lists, agreement)
    reached = expected_agreement(score_lists, noise)
    assert reached == pytest.approx(agreement, abs=1e-6) or (noise == NOISE_RANGE[0] and reached <= agreement)


def test_more_noise_is_less_agreement():
    scores = _scores(_answered(50))
    agreements = [expected_agreement(scores, noise) for noise in (0.01, 0.1, 0.3, 1.0, 100.0)]
    assert agreements == sorted(agreements, reverse=True)
    assert agreements[-1] == pytest.approx(0.5, abs=0.001)


def test_out_of_reach_is_logged(caplog):
    assert calibrate_noise([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0]]) == NOISE_RANGE[0]
    assert "out of reach" in caplog.text
    assert "0.667" in caplog.text  # (1/2 + 1 + 1/2) / 3


@pytest.mark.parametrize("agreement", [0.5, 1.0, 73.0])
def test_impossible_agreement(agreement):
    with pytest.raises(ValueError, match="agreement = "):
        calibrate_noise([[0.0, 1.0]], agreement)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match="no pairs to compare"):
        calibrate_noise([[1.0], [2.0]])
    with pytest.raises(ValueError, match="there is nothing to rank"):
        agreement_with_gold([[1.0, 1.0]], 0.3)


# -------------------------------------------------------------------------------------------------------------- files


def _write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_rank_file_writes_rankings_and_sums_up(tmp_path):
    rows = [{"prompt": prompt, "responses": answers, "model": "x"} for prompt, answers in _answered(300)]
    rows[1]["prompt"] = [{"role": "system", "content": "be good"}, {"role": "user", "content": rows[1]["prompt"]}]
    answers = _write(tmp_path / "answers.jsonl", rows)
    summary = rank_file(answers, tmp_path / "new" / "rankings.jsonl", seed=1, agreement=0.73)
    rankings = _read(tmp_path / "new" / "rankings.jsonl")
    assert summary["n"] == len(rankings) == 300
    assert summary["annotator_agreement"] == pytest.approx(0.73, abs=1e-6)
    assert 0.8 < summary["gold_agreement"] < 0.9
    assert {ranking["annotator"] for ranking in rankings} == set(ANNOTATORS)
    for row, ranking in zip(rows, rankings, strict=True):
        assert list(ranking) == ["prompt", "responses", "ranks", "annotator"]
        assert (ranking["prompt"], ranking["responses"]) == (row["prompt"], row["responses"])
        assert sorted(ranking["ranks"]) == [1, 2, 3, 4]


def test_rank_file_is_pure_and_depends_on_the_seed(tmp_path):
    answers = _write(tmp_path / "a.jsonl", [{"prompt": p, "responses": a} for p, a in _answered(50)])
    for name, seed in (("one", 1), ("again", 1), ("two", 2)):
        rank_file(answers, tmp_path / name, seed)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "again").read_bytes() != (tmp_path / "two").read_bytes()


def test_the_last_user_turn_is_judged(tmp_path):
    turns = [("user", "what is one plus one ?"), ("assistant", "two ."), ("user", SUM)]
    prompt: list[dict[str, object]] = [{"role": role, "content": content} for role, content in turns]
    prompt += [{"role": "tool", "content": "3", "name": "sum"}]  # what a tool says is no question
    prompt[1] |= {"reasoning_content": "one and one", "weight": 0}
    rank_file(_write(tmp_path / "a", [{"prompt": prompt, "responses": [WRONG, GOOD]}]), tmp_path / "r", 1, 0.999)
    assert _read(tmp_path / "r")[0]["ranks"] == [2, 1]


def test_overlapping_annotators_are_different_and_agree_as_calibrated(tmp_path):
    rows = [{"prompt": prompt, "responses": answers} for prompt, answers in _answered(1500)]
    summary = rank_file(_write(tmp_path / "answers.jsonl", rows), tmp_path / "rankings.jsonl", seed=2, overlap=2)
    rankings = _read(tmp_path / "rankings.jsonl")
    assert summary["n"] == len(rankings) == 2 * 1500
    alike = []
    for row, one, two in zip(rows, rankings[::2], rankings[1::2], strict=True):
        assert one["annotator"] != two["annotator"]
        assert [one["prompt"], one["responses"]] == [two["prompt"], two["responses"]] == list(row.values())
        a, b = one["ranks"], two["ranks"]
        alike += [(a[i] < a[j]) == (b[i] < b[j]) for i, j in itertools.combinations(range(4), 2)]
    assert sum(alike) / len(alike) == pytest.approx(0.73, abs=0.015)


def test_all_annotators_may_rank_a_row(tmp_path):
    answers = _write(tmp_path / "a", [{"prompt": SUM, "responses": [WRONG, GOOD]}])
    rank_file(answers, tmp_path / "r", 1, overlap=len(ANNOTATORS))
    assert sorted(ranking["annotator"] for ranking in _read(tmp_path / "r")) == sorted(ANNOTATORS)


@pytest.mark.parametrize("overlap", [0, -1, 9])
def test_an_overlap_without_annotators_is_a_message_and_nothing_is_written(tmp_path, capsys, overlap):
    answers = _write(tmp_path / "a", [{"prompt": SUM, "responses": [WRONG, GOOD]}])
    assert main([str(answers), "--out", str(tmp_path / "r"), "--overlap", str(overlap)]) == 2
    assert f"overlap = {overlap}: 1 to 8 annotators" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


FINE = json.dumps({"prompt": SUM, "responses": [GOOD, WRONG]})


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not JSON"),
        ("[1, 2]", "must be an object with prompt and responses, not list"),
        ('{"prompt": "x"}', "no \"responses\"; found ['prompt']"),
        ('{"responses": ["a", "b"]}', 'no "prompt"'),
        ('{"prompt": "x", "responses": "ab"}', "responses must be a list of strings"),
        ('{"prompt": "x", "responses": ["a", 1]}', "responses must be a list of strings"),
        ('{"prompt": "x", "responses": ["a"]}', "1 responses; a ranking needs at least two"),
        ('{"prompt": 3, "responses": ["a", "b"]}', "prompt must be a string or a list"),
        ('{"prompt": [{"role": "user"}], "responses": ["a", "b"]}', "prompt must be a string or a list"),
        ('{"prompt": [], "responses": ["a", "b"]}', "no user message"),
        ('{"prompt": "who are you", "responses": ["a", "b"]}', "not an instruction of the lab's world: 'who are you'"),
    ],
)
def test_a_broken_line_is_named_and_nothing_is_written(tmp_path, capsys, line, reason):
    answers = tmp_path / "answers.jsonl"
    answers.write_text(f"{FINE}\n\n{line}\n", encoding="utf-8")
    with pytest.raises(BrokenLine):
        rank_file(answers, tmp_path / "out.jsonl", 1)
    assert main([str(answers), "--out", str(tmp_path / "out.jsonl")]) == 2
    message = capsys.readouterr().err
    assert f"{answers}:3: " in message
    assert reason in message
    assert not (tmp_path / "out.jsonl").exists()


def test_other_errors_of_a_user_are_messages(tmp_path, capsys):
    assert main([str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "out")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
    (tmp_path / "latin").write_bytes(b"{\xe9}\n")
    assert main([str(tmp_path / "latin"), "--out", str(tmp_path / "out")]) == 2
    assert "latin:1: not UTF-8 text" in capsys.readouterr().err
    (tmp_path / "empty").write_text("")
    assert main([str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "no pairs to compare" in capsys.readouterr().err
    same = _write(tmp_path / "same", [{"prompt": SUM, "responses": [WRONG, "seven ."]}])
    assert main([str(same), "--out", str(tmp_path / "out")]) == 2
    assert "same gold score" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_command_line(tmp_path, capsys):
    answers = _write(tmp_path / "answers.jsonl", [{"prompt": p, "responses": a} for p, a in _answered(60)])
    assert main([str(answers), "--out", str(tmp_path / "r.jsonl"), "--seed", "4"]) == 0
    assert "60 rankings; noise 0." in capsys.readouterr().out
    assert len(_read(tmp_path / "r.jsonl")) == 60
    assert main([str(answers), "--out", str(tmp_path / "r.jsonl"), "--overlap", "2"]) == 0
    assert "120 rankings; noise 0." in capsys.readouterr().out
    assert len(_read(tmp_path / "r.jsonl")) == 120
