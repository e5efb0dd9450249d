"""Our models in lm-eval, on tasks of this folder and without network: the same log-likelihoods as ours."""

from __future__ import annotations

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import peft
import pytest
import transformers
from asking import cross_entropy, hugging_face, text_model_of
from tiny import World

from align.config import build
from align.generation.sampling import Sampling
from align.tasks.choice import ask_choices, choice_rows
from align.tasks.questions import Question
from align.tasks.template import Template
from align.text.records import Message

pytestmark = pytest.mark.heavy

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install '.[lm-eval]'")

CHOICES = ["cat", "dog dog", "bird and sun"]
ROWS = [
    {"question": f"{word} and", "choices": CHOICES, "answer": i % 3} for i, word in enumerate(["red", "blue", "moon"])
]
TASK = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: {kind}
doc_to_text: "{text}"
doc_to_target: "{target}"
"""
CHOICE = "doc_to_choice: choices\nmetric_list: [{metric: acc}, {metric: acc_norm}]\n"
WORDS = 'generation_kwargs: {until: ["."], max_gen_toks: 8}\nmetric_list: [{metric: exact_match}]\n'
TEXT = "metric_list: [{metric: bits_per_byte}]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of three tasks."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for task, kind, text, target, more in (
        ("tiny_choice", "multiple_choice", "{{question}}", "{{answer}}", CHOICE),
        ("tiny_words", "generate_until", "{{question}}", "{{choices[0]}}", WORDS),
        ("tiny_text", "loglikelihood_rolling", "", "{{question * 40}}", TEXT),
    ):
        written = TASK.format(task=task, path=rows, kind=kind, text=text, target=target) + more
        (tmp_path / f"{task}.yaml").write_text(written)
    return tmp_path


def evaluated(path: str, folder: Path, task: str, **how: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from align.tasks.harness import AlignLM

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    found = simple_evaluate(AlignLM(path, batch_size=2), tasks=[task], task_manager=manager, **how)
    assert found is not None
    return found


def said(found: dict[str, Any], task: str) -> list[list[float]]:
    """The log-likelihood of each choice of each question."""
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    return [[float(value) for value, _ in sample["filtered_resps"]] for sample in samples]


QUESTIONS = [Question(row["question"], (), f"a:{i}", tuple(CHOICES), row["answer"]) for i, row in enumerate(ROWS)]
SPACED = build(Template, {"example": "{question} {answer}"}, "t.yaml")


def sums(text_model: Any, rows: list[Any]) -> list[float]:
    return [math.fsum(values) for values in text_model.logprobs(rows)]


def test_a_base_models_choices_are_as_likely_there(path, folder):
    found = evaluated(path, folder, "tiny_choice")
    text_model, (model, _) = text_model_of(path), hugging_face(path)
    n_right = 0
    for question, theirs in zip(QUESTIONS, said(found, "tiny_choice"), strict=True):
        (rows,) = choice_rows([question], [SPACED.ask(question, [], True)], SPACED, text_model)
        without_bos = [(given[1:], scored) for given, scored in rows]
        assert theirs == pytest.approx(sums(text_model, without_bos), abs=1e-4)
        assert theirs == pytest.approx([-cross_entropy(model, g + s, len(g)) for g, s in without_bos], abs=1e-4)
        n_right += theirs.index(max(theirs)) == question.right
    assert found["results"]["tiny_choice"]["acc,none"] == pytest.approx(n_right / 3)


def test_a_chat_models_choices_are_as_likely_there(path, folder):
    """Through the template: the harness leaves out the space that it writes before an answer, and we put it back."""
    found = evaluated(path, folder, "tiny_choice", apply_chat_template=True)
    text_model = text_model_of(path, plain=False)
    outcomes = ask_choices(QUESTIONS, [[] for _ in QUESTIONS], SPACED, text_model)
    for question, outcome, theirs in zip(QUESTIONS, outcomes, said(found, "tiny_choice"), strict=True):
        (rows,) = choice_rows([question], [SPACED.ask(question, [], False)], SPACED, text_model)
        assert theirs == pytest.approx(sums(text_model, rows), abs=1e-4)
        assert outcome.scores["raw"] == (theirs.index(max(theirs)) == question.right)
    n_right = sum(outcome.scores["raw"] for outcome in outcomes)
    assert found["results"]["tiny_choice"]["acc,none"] == pytest.approx(n_right / 3)


def test_solved_examples_as_turns(path, folder):
    found = evaluated(path, folder, "tiny_choice", apply_chat_template=True, fewshot_as_multiturn=True, num_fewshot=1)
    text = found["samples"]["tiny_choice"][0]["arguments"][0][0]
    assert text.count("<|assistant|>") == 2
    assert text.endswith("<|assistant|>")


def test_a_long_text_is_scored_whole(path, folder):
    """bits per byte of texts longer than the 64 positions, in windows of the harness's own kind."""
    found = evaluated(path, folder, "tiny_text")
    model, tokenizer = hugging_face(path)
    bits = n_bytes = 0.0
    for row in ROWS:
        text = row["question"] * 40
        ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
        for first in range(1, len(ids), 64):  # stretches of 64, each given one token before it, the last one more
            end = min(first + 64, len(ids))
            start = max(0, end - 65)
            bits += cross_entropy(model, ids[start:end], first - start) / math.log(2)
        n_bytes += len(text.encode())
    assert found["results"]["tiny_text"]["bits_per_byte,none"] == pytest.approx(bits / n_bytes, rel=1e-4)


def test_words_are_generated(path, folder):
    found = evaluated(path, folder, "tiny_words", apply_chat_template=True)
    text_model = text_model_of(path, plain=False)
    asked = [[Message("user", row["question"])] for row in ROWS]
    ours = [reply.text for reply in text_model.answer(asked, Sampling(8, 0.0), 1, ".") if reply is not None]
    samples = sorted(found["samples"]["tiny_words"], key=lambda sample: sample["doc_id"])
    theirs = [sample["filtered_resps"][0].strip() for sample in samples]
    assert theirs == ours


def test_an_answer_ends_there_with_its_turn(world: World, tmp_path: Path, tokenizer: Any) -> None:
    from align.tasks.harness import AlignLM

    transformers.AutoModelForCausalLM.from_pretrained(world.gpt2).save_pretrained(tmp_path)
    closing = copy.deepcopy(tokenizer)
    closing.chat_template = tokenizer.chat_template.replace("eos_token", "'<|system|>'")
    closing.save_pretrained(tmp_path)
    lm = AlignLM(str(tmp_path), batch_size=2)
    turn = closing.convert_tokens_to_ids("<|system|>")
    assert lm.model.generation_config.eos_token_id == [turn, closing.eos_token_id]
    assert lm.eot_token_id == turn


def test_an_adapter_speaks_there(world: World, folder: Path, tokenizer: Any) -> None:
    base = transformers.AutoModelForCausalLM.from_pretrained(world.gpt2)
    lora = peft.LoraConfig(task_type="CAUSAL_LM", r=2, fan_in_fan_out=True, init_lora_weights=False)
    adapted = peft.get_peft_model(base, lora)
    adapted.save_pretrained(folder / "adapter")
    tokenizer.save_pretrained(folder / "adapter")
    paths = (world.gpt2, str(folder / "adapter"))
    plain, tuned = (said(evaluated(path, folder, "tiny_choice"), "tiny_choice") for path in paths)
    assert plain[0] != pytest.approx(tuned[0], abs=1e-2)
    text_model = text_model_of(str(folder / "adapter"))
    (rows,) = choice_rows(QUESTIONS[:1], [SPACED.ask(QUESTIONS[0], [], True)], SPACED, text_model)
    assert tuned[0] == pytest.approx(sums(text_model, [(given[1:], scored) for given, scored in rows]), abs=1e-4)


@pytest.mark.slow
def test_the_command(world, folder, monkeypatch, capsys):
    from align.tasks import harness

    words = ["run", "--model", "align", "--model_args", f"path={world.base}", "--tasks", "tiny_choice"]
    words += ["--include_path", str(folder), "--apply_chat_template", "--output_path", str(folder / "out")]
    monkeypatch.setattr(sys, "argv", ["harness", *words])
    harness.cli_evaluate()
    assert "tiny_choice" in capsys.readouterr().out
    (results,) = (folder / "out").rglob("results_*.json")
    assert "acc,none" in json.loads(results.read_text())["results"]["tiny_choice"]
