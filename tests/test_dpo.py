"""DPO: the tokens are ours, the loss is the paper's, the run is one like every other."""

import json
import math
import signal
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import assert_same_bits, metrics, recipe_of, run, weights
from tiny import write_rows
from transformers import AutoModelForCausalLM

from align import dpo
from align.config import to_yaml
from align.errors import UserError
from align.models.language import LanguageModel, token_logprobs
from align.text.encode import encode_conversation
from align.text.load import load
from align.text.rankings import encode_rankings
from align.text.records import Message
from align.text.tokenizer import load_tokenizer
from align.train.trainer import PreferenceTrainer


def pairs_and_trainer(world: Any, folder: Path, monkeypatch: Any, **changes: Any) -> tuple[list[dpo.Pair], Any]:
    """The pairs of a run and the trainer that it made."""
    made: list[Any] = []
    original = PreferenceTrainer.train
    monkeypatch.setattr(PreferenceTrainer, "train", lambda self: (made.append(self), original(self))[1])
    run(dpo, world, folder, **changes)
    recipe = recipe_of(dpo, world, folder, **changes)
    rankings = load(recipe.data, "rankings", recipe.seed).train
    return dpo.encode(recipe, load_tokenizer(world.base), rankings, "training"), made[0]


# -- tokens -----------------------------------------------------------------------------------------------------------


def test_what_is_trained_on_are_the_tokens_of_sft_and_rm(world, tmp_path, monkeypatch):
    """The rows that reach the model, padding taken off, are those that align.sft and align.rm would make."""
    seen: list[dict[str, Any]] = []
    original = PreferenceTrainer.compute_loss

    def watched(self, model, inputs, *args, **kwargs):
        if model.training:
            seen.append({name: value.clone() for name, value in inputs.items()})
        return original(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", watched)
    run(dpo, world, tmp_path / "run")
    tokenizer = load_tokenizer(world.base)
    recipe = recipe_of(dpo, world, tmp_path)
    rankings = load(recipe.data, "rankings", recipe.seed).train
    as_rm = {tuple(answer) for row in encode_rankings(tokenizer, rankings, 48, "drop")[0] for answer in row.answers}
    as_sft = {}
    for ranking in rankings:
        for response in ranking.responses:
            messages = [*ranking.prompt, Message("assistant", response)]
            encoded = encode_conversation(tokenizer, messages, 48)
            as_sft[tuple(encoded.ids)] = tuple(encoded.is_target)
    assert as_rm == as_sft.keys()
    rows = [row for batch in seen for row in unpadded(batch)]
    assert len(rows) == 6 * 4 * 2
    for ids, targets in rows:
        assert as_sft[ids] == targets  # and the same tokens are scored
        assert ids[-1] == tokenizer.eos_token_id
    padding = {int(i) for batch in seen for i in batch["input_ids"][batch["attention_mask"] == 0]}
    assert padding == {tokenizer.pad_token_id} != {tokenizer.eos_token_id}


def unpadded(batch: dict[str, Any]) -> list[tuple[tuple[int, ...], tuple[bool, ...]]]:
    columns = (batch["input_ids"], batch["completion_mask"], batch["attention_mask"])
    return [
        (tuple(ids[mask == 1].tolist()), tuple(bool(flag) for flag in targets[mask == 1]))
        for ids, targets, mask in zip(*columns, strict=True)
    ]


def test_trl_would_have_made_the_same_tokens_of_our_template(world, tmp_path):
    """So a plain DPOTrainer on this tokenizer trains on the same rows; a template without EOS is another matter."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    tokenizer = load_tokenizer(world.base)
    rows = [json.loads(line) for line in Path(world.rankings).read_text().splitlines()]
    written = [
        {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "chosen": [{"role": "assistant", "content": row["responses"][row["ranks"].index(1)]}],
            "rejected": [{"role": "assistant", "content": row["responses"][row["ranks"].index(2)]}],
        }
        for row in rows
    ]
    quiet = {"use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True, "max_length": None}
    model = AutoModelForCausalLM.from_pretrained(world.base)
    reference = AutoModelForCausalLM.from_pretrained(world.base)
    trainer = DPOTrainer(
        model,
        reference,
        DPOConfig(str(tmp_path), **quiet),
        train_dataset=Dataset.from_list(written),
        processing_class=tokenizer,
    )
    theirs = [
        tuple(map(tuple, (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]))) for row in trainer.train_dataset
    ]
    recipe = recipe_of(dpo, world, tmp_path, data__validation=0.0)
    ours = {
        tuple(map(tuple, pair)) for pair in dpo.encode(recipe, tokenizer, load(recipe.data, "rankings", 1).train, "")
    }
    assert set(theirs) <= ours


def test_every_two_answers_of_different_rank_are_a_pair(world, tmp_path, capsys):
    rows = [
        {"prompt": "say red", "responses": ["a", "b", "c", "d"], "ranks": [2, 1, 2, 3]},  # one tie: 5 pairs
        {"prompt": "say blue", "responses": ["a", "b"], "ranks": [1, 1]},  # nothing but a tie
        {"prompt": "say green", "responses": ["a", "a", "b"], "ranks": [1, 2, 3]},  # the same answer twice: 2
    ]
    changes = {"data__path": write_rows(tmp_path / "rows.jsonl", rows), "data__validation": 0.0}
    recipe = recipe_of(dpo, world, tmp_path, **changes)
    tokenizer = load_tokenizer(world.base)
    pairs = dpo.encode(recipe, tokenizer, load(recipe.data, "rankings", 1).train, "training")
    told = capsys.readouterr().out
    assert "training: 7 pairs of different rank from 2 rankings" in told
    assert "1 of 3 rankings all tied: left out" in told
    texts = [(tokenizer.decode(pair.chosen_ids[:-1]), tokenizer.decode(pair.rejected_ids[:-1])) for pair in pairs]
    expected = {(x, y) for x, y in combinations("bacd", 2) if {x, y} != {"a", "c"}}
    assert sorted((a.strip(), b.strip()) for a, b in texts) == sorted([*expected, ("a", "b"), ("a", "b")])


def test_long_answers_are_left_out_or_cut_before_eos(world, tmp_path):
    rows = [{"prompt": f"say {i}", "responses": ["red " * 80, "blue"], "ranks": [1, 2]} for i in range(4)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    tokenizer = load_tokenizer(world.base)
    cut = recipe_of(dpo, world, tmp_path, data__path=data, data__too_long="truncate", data__validation=0.0)
    pairs = dpo.encode(cut, tokenizer, load(cut.data, "rankings", 1).train, "training")
    assert [pair.longest for pair in pairs] == [48] * 4
    assert {pair.chosen_ids[-1] for pair in pairs} == {tokenizer.eos_token_id}
    with pytest.raises(UserError, match=r"none of 4 rankings is left: 4 are too long; raise data\.max_tokens"):
        run(dpo, world, tmp_path / "run", data__path=data, data__validation=0.0)


# -- the loss ---------------------------------------------------------------------------------------------------------


def answer_logprob(model: Any, prompt: list[int], answer: list[int]) -> torch.Tensor:
    is_answer = torch.tensor([[False] * len(prompt) + [True] * len(answer)])
    return token_logprobs(LanguageModel(model)(torch.tensor([prompt + answer]), is_answer), torch.tensor(answer)).sum()


@pytest.mark.parametrize("loss", ["sigmoid", "hinge", "ipo"])
def test_the_loss_is_the_paper_s(world, tmp_path, loss):
    """Three steps at a rate that moves the policy: each logged loss against the definition, by hand."""
    changes = {"dpo__loss": loss, "dpo__beta": 0.3, "train__steps": 3, "data__validation": 0.0}
    changes |= {"optim__schedule": "constant", "optim__batch_size": 4}
    found = [row["loss/train"] for row in metrics(run(dpo, world, tmp_path / "run", **changes))]
    recipe = recipe_of(dpo, world, tmp_path, **changes)
    from align.text.batches import rows_of_step
    from align.train.optim import build_optimizer

    pairs = dpo.encode(recipe, load_tokenizer(world.base), load(recipe.data, "rankings", 1).train, "training")
    policy, reference = (AutoModelForCausalLM.from_pretrained(world.base).eval() for _ in range(2))
    optimizer = build_optimizer(recipe.optim, policy)
    expected = []
    for step in (1, 2, 3):
        losses = []
        for i in rows_of_step(step, len(pairs), 4, recipe.seed):
            prompt, chosen, rejected = pairs[i]
            with torch.no_grad():
                before = [answer_logprob(reference, prompt, answer) for answer in (chosen, rejected)]
            ratios = [
                answer_logprob(policy, prompt, answer) - old
                for answer, old in zip((chosen, rejected), before, strict=True)
            ]
            margin = ratios[0] - ratios[1]
            by_token = ratios[0] / len(chosen) - ratios[1] / len(rejected)
            losses.append(
                {
                    "sigmoid": -torch.nn.functional.logsigmoid(0.3 * margin),
                    "hinge": torch.relu(1 - 0.3 * margin),
                    "ipo": (by_token - 1 / 0.6) ** 2,
                }[loss]
            )
        mean = torch.stack(losses).mean()
        expected.append(float(mean.detach()))
        mean.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    assert found[0] == pytest.approx(expected[0], abs=1e-5)
    assert found == pytest.approx(expected, abs=2e-4)
    assert abs(found[2] - found[0]) > 0.01  # the policy has moved


def test_policy_and_reference_are_the_same_at_the_first_step(world, tmp_path):
    for adapter in ("none", "lora"):
        row = metrics(run(dpo, world, tmp_path / adapter, model__adapter=adapter))[0]
        assert row["loss/train"] == pytest.approx(math.log(2), abs=1e-6)
        assert row["margin/train"] == pytest.approx(0, abs=1e-6)
        assert row["rewards/chosen"] == pytest.approx(0, abs=1e-6)


def test_micro_batches_change_no_result(world, tmp_path):
    changes = {"optim__batch_size": 6, "optim__eps": 1e-3, "train__steps": 3, "train__eval_rows": 13}
    whole = run(dpo, world, tmp_path / "whole", **changes, train__micro_batch_tokens=100_000)
    parts = run(dpo, world, tmp_path / "parts", **changes, train__micro_batch_tokens=100)
    ours, theirs = weights(whole), weights(parts)
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
    for row, other in zip(metrics(whole), metrics(parts), strict=True):
        assert row == pytest.approx(other, abs=1e-5, rel=1e-4)
    longest = dpo.Pair([1] * 10, [1] * 10, [1] * 5).longest
    for tokens, n_pairs in ((100_000, 8), (320, 8), (319, 4), (100, 2), (10, 1)):
        recipe = recipe_of(dpo, world, tmp_path, optim__batch_size=8, train__micro_batch_tokens=tokens)
        assert dpo.pairs_at_once(recipe, longest, 1) == n_pairs
    with pytest.raises(UserError, match=r"optim\.batch_size = 8: not divisible by 3 processes"):
        dpo.pairs_at_once(recipe, longest, 3)


def test_it_learns(world, tmp_path):
    rows = [{"prompt": f"say {i}", "responses": ["green", "red"], "ranks": [1, 2]} for i in range(20)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    folder = run(dpo, world, tmp_path / "run", data__path=data, train__steps=25, optim__learning_rate=0.003)
    rows = metrics(folder)
    assert rows[0]["loss/validation"] < math.log(2) + 0.1  # after the first step
    assert rows[-1]["loss/validation"] < 0.3
    assert rows[-1]["accuracy/validation"] == 1.0
    assert rows[-1]["margin/validation"] > 1


# -- the run ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_run_leaves_what_every_stage_leaves(world, tmp_path, adapter, capsys):
    folder = run(dpo, world, tmp_path / "run", model__adapter=adapter, train__steps=4, train__checkpoint_every=2)
    expected = {"recipe.yaml", "environment.json", "inputs.json", "metrics.jsonl", "result.json"}
    expected |= {"checkpoints", "model", "README.md"}
    assert {path.name for path in folder.iterdir()} == expected | ({"adapter"} if adapter == "lora" else set())
    assert [path for kind in ("*.pt", "*.pth", "*.bin", "*.pkl") for path in folder.rglob(kind)] == []
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000002"]
    card = (folder / "README.md").read_text()
    assert "Written by `align dpo`" in card
    assert (
        to_yaml(
            recipe_of(dpo, world, folder, model__adapter=adapter, train__steps=4, train__checkpoint_every=2)
        ).strip()
        in card
    )
    assert json.loads((folder / "result.json").read_text())["accuracy/validation"] >= 0
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    start = AutoModelForCausalLM.from_pretrained(world.base)
    assert model.num_parameters() == start.num_parameters()
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), start.parameters(), strict=True))
    told = capsys.readouterr()
    assert "{'loss'" not in told.out
    assert "dpo 4/4" in told.out
    if adapter == "lora":
        assert {path.name for path in (folder / "adapter").iterdir()} >= {"adapter_model.safetensors"}
        assert not (folder / "adapter" / "ref").exists()


def test_the_figures_have_the_names_that_the_other_stages_use(world, tmp_path):
    rows = metrics(run(dpo, world, tmp_path / "run", train__log_every=3, train__eval_every=5))
    assert [row["step"] for row in rows] == [1, 3, 5, 6]
    assert [row["step"] for row in rows if "loss/validation" in row] == [1, 5, 6]
    training = {"loss/train", "accuracy/train", "margin/train", "rewards/chosen", "rewards/rejected", "logps/chosen"}
    training |= {"logps/rejected", "grad_norm", "lr", "step"}
    validation = {"loss/validation", "accuracy/validation", "margin/validation"}
    assert rows[0].keys() == training | validation
    assert rows[1].keys() == training


def test_the_learning_rate_is_that_of_the_recipe(world, tmp_path):
    changes = {"optim__schedule": "linear", "optim__warmup_steps": 2, "optim__final_ratio": 0.0}
    rows = metrics(run(dpo, world, tmp_path / "run", **changes))
    assert [row["lr"] for row in rows] == pytest.approx([0.005, 0.01, 0.01, 0.0075, 0.005, 0.0025])


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_an_interrupted_run_resumes_to_the_same_bits(world, tmp_path, monkeypatch, adapter, capsys):
    changes = {"model__adapter": adapter, "train__steps": 6}
    whole = run(dpo, world, tmp_path / "whole", **changes)
    original = PreferenceTrainer.training_step
    n_calls = []

    def interrupted(self, *args, **kwargs):
        n_calls.append(1)
        if len(n_calls) == 4:
            signal.raise_signal(signal.SIGINT)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(PreferenceTrainer, "training_step", interrupted)
    with pytest.raises(SystemExit) as stopped:
        run(dpo, world, tmp_path / "parts", **changes)
    assert stopped.value.code == 130
    assert "stopped at step 4 of 6; checkpoint saved" in capsys.readouterr().out
    assert not (tmp_path / "parts" / "result.json").exists()
    with pytest.raises(UserError, match="has an interrupted run; continue it with resume=true"):
        run(dpo, world, tmp_path / "parts", **changes)
    with pytest.raises(UserError, match=r"this recipe differs .* dpo.beta \(0.1 then, 0.2 now\)"):
        run(dpo, world, tmp_path / "parts", **changes, resume=True, dpo__beta=0.2)
    resumed = run(dpo, world, tmp_path / "parts", **changes, resume=True)
    assert_same_bits(resumed, whole)


def test_a_finished_run_is_not_touched(world, tmp_path):
    run(dpo, world, tmp_path / "run", train__steps=1)
    with pytest.raises(UserError, match="has a finished run"):
        run(dpo, world, tmp_path / "run", train__steps=1)
    run(dpo, world, tmp_path / "run", train__steps=2, overwrite=True)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["stage"] == "dpo"


def test_a_dry_run_tells_and_writes_nothing(world, tmp_path, capsys):
    recipe = recipe_of(dpo, world, tmp_path / "run")
    dpo.run(recipe, dry_run=True)
    told = capsys.readouterr().out
    assert to_yaml(recipe) in told
    assert "pairs of different rank from" in told
    assert "estimated memory" in told
    assert "reference" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes", [{"train__precision": "bf16"}, {"train__gradient_checkpointing": True}, {"optim__name": "adamw8bit"}]
)
def test_the_other_ways_to_train_work_too(world, tmp_path, changes):
    row = metrics(run(dpo, world, tmp_path / "run", train__steps=2, **changes))[-1]
    assert 0 < row["loss/train"] < 2


def test_nothing_is_sent_and_nothing_is_saved_by_trl(world, tmp_path, monkeypatch):
    import trl.trainer.base_trainer as base

    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base, "send_telemetry", lambda *args, **kwargs: pytest.fail("told the hub"))
    monkeypatch.setattr(PreferenceTrainer, "_save_checkpoint", lambda *args, **kwargs: pytest.fail("saved"))
    run(dpo, world, tmp_path / "run", train__steps=2)


def test_adapters_alone_are_trained_and_the_reference_is_the_base(world, tmp_path, monkeypatch):
    _, trainer = pairs_and_trainer(world, tmp_path / "run", monkeypatch, model__adapter="lora")
    trained = {name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".default." in name for name in trained)
    assert list(trainer.model.peft_config) == ["default"]
    assert trainer.ref_model is None


def test_a_loss_that_is_no_number_stops_the_run(world, tmp_path):
    with pytest.raises(
        UserError, match=r"loss/(train|validation) is (nan|inf): the run has diverged\. Lower optim\.learning_rate"
    ):
        run(dpo, world, tmp_path / "run", optim__learning_rate=1e30, optim__max_grad_norm=1e30)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"model__adapter": "lora", "model__lora__dropout": 0.1}, r"model.lora.dropout has no effect: TRL's DPO"),
        ({"dpo__label_smoothing": 0.1}, r"dpo.label_smoothing = 0.1 has no effect with dpo.loss: sigmoid; remove it"),
        ({"dpo__loss": "exo_pair"}, r"exo_pair needs a dpo.label_smoothing above 0"),
        ({"dpo__loss": "sigmoyd"}, r"dpo.loss = 'sigmoyd'"),
        ({"dpo__beta": 0}, r"dpo.beta = 0"),
        ({"dpo__reference_free": True}, r"dpo.reference_free = True: unknown key"),
    ],
)
def test_what_cannot_work_is_told(world, tmp_path, changes, told):
    with pytest.raises(UserError, match=told):
        run(dpo, world, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("loss", dpo.Loss.__args__)  # type: ignore[attr-defined]
def test_every_loss_runs(world, tmp_path, loss):
    changes = {"dpo__label_smoothing": 0.001} if loss in dpo.SMOOTHED else {}
    changes |= {"data__path": marked_rows(tmp_path)} if loss in dpo.UNPAIRED else {}
    rows = metrics(run(dpo, world, tmp_path / "run", dpo__loss=loss, train__steps=2, **changes))
    assert all(math.isfinite(row["loss/train"]) for row in rows)


# -- answers that are not paired --------------------------------------------------------------------------------------


def marked_rows(folder: Path, n: int = 12) -> str:
    rows = [{"prompt": f"say {i}", "completion": "red " * (1 + i % 3), "label": i % 3 == 0} for i in range(n)]
    return str(write_rows(folder / "marked.jsonl", rows))


@pytest.mark.parametrize("loss", dpo.UNPAIRED)
def test_the_unpaired_losses_are_the_papers(world, tmp_path, loss):
    """Three steps: each logged loss against equation 8 of 2402.01306, its KL over the step's mismatched answers."""
    from align.text.batches import rows_of_step
    from align.train.optim import build_optimizer

    changes = {"data__path": marked_rows(tmp_path), "dpo__loss": loss, "dpo__beta": 0.3, "train__steps": 3}
    changes |= {"optim__schedule": "constant", "optim__batch_size": 4, "data__validation": 0.0}
    changes |= {"dpo__desirable_weight": 1.5, "dpo__undesirable_weight": 0.5}
    logged = metrics(run(dpo, world, tmp_path / "run", **changes))
    recipe = recipe_of(dpo, world, tmp_path, **changes)
    rows, _ = dpo.read(recipe, load_tokenizer(world.base))
    policy, reference = (AutoModelForCausalLM.from_pretrained(world.base).eval() for _ in range(2))
    optimizer = build_optimizer(recipe.optim, policy)

    def ratio(prompt: list[int], answer: list[int]) -> torch.Tensor:
        with torch.no_grad():
            before = answer_logprob(reference, prompt, answer)
        return answer_logprob(policy, prompt, answer) - before

    for step in (1, 2, 3):
        taken = [rows[i] for i in rows_of_step(step, len(rows), 4, recipe.seed)]
        others = [taken[-1], *taken[:-1]]
        with torch.no_grad():
            both = zip(taken, others, strict=True)
            kl = torch.stack([ratio(row.prompt_ids, other.completion_ids) for row, other in both]).mean().clamp(min=0)
        kl = kl if loss == "kto" else torch.zeros(())
        losses = []
        for row in taken:
            gain = 0.3 * (ratio(row.prompt_ids, row.completion_ids) - kl)
            losses.append(1.5 * torch.sigmoid(-gain) if row.label else 0.5 * torch.sigmoid(gain))
        mean = torch.stack(losses).mean()
        assert logged[step - 1]["loss/train"] == pytest.approx(float(mean.detach()), abs=2e-4)
        assert logged[step - 1]["kl/train"] == pytest.approx(float(kl), abs=2e-3)
        mean.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), recipe.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
    assert abs(logged[2]["loss/train"] - logged[0]["loss/train"]) > 0.01  # the policy has moved


def test_pairs_are_a_good_and_a_bad_answer(world, tmp_path, capsys):
    rows = [{"prompt": f"say {i}", "chosen": "red", "rejected": "blue"} for i in range(4)]
    data = {"data__path": write_rows(tmp_path / "pairs.jsonl", rows), "data__validation": 0.0}
    tokenizer = load_tokenizer(world.base)
    found, _ = dpo.read(recipe_of(dpo, world, tmp_path, dpo__loss="kto", **data), tokenizer)
    assert [(tokenizer.decode(row.completion_ids[:-1]).strip(), row.label) for row in found[:2]] == [
        ("red", True),
        ("blue", False),
    ]
    assert "training: 4 good and 4 bad answers" in capsys.readouterr().out


def test_answers_that_are_not_to_be_learned_are_left_out(world, tmp_path, capsys):
    rows = [{"prompt": f"say {i}", "completion": "red", "label": True, "weight": i % 2} for i in range(4)]
    data = {"data__path": write_rows(tmp_path / "marked.jsonl", rows), "data__validation": 0.0}
    found, _ = dpo.read(recipe_of(dpo, world, tmp_path, dpo__loss="kto", **data), load_tokenizer(world.base))
    assert len(found) == 2
    assert "2 of 4 training rows left out: marked as not to be learned" in capsys.readouterr().out


def test_unpaired_runs_with_adapters_begin_at_a_half(world, tmp_path):
    changes = {"data__path": marked_rows(tmp_path), "dpo__loss": "kto", "model__adapter": "lora", "train__steps": 2}
    rows = metrics(run(dpo, world, tmp_path / "run", **changes))
    assert rows[0]["loss/train"] == pytest.approx(0.5, abs=1e-6)  # policy and reference are the same
    assert math.isfinite(rows[-1]["loss/validation"])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, r":1: the row does not say whether its answers are good. This loss reads {prompt, completion, label}"),
        ({"train__micro_batch_tokens": 20}, r"train.micro_batch_tokens = 20: kto estimates its KL as a mean over"),
        ({"optim__batch_size": 1}, r"optim.batch_size: kto estimates its KL as a mean over .* give 2 or more"),
        ({"dpo__loss": "ipo", "dpo__desirable_weight": 2.0}, r"dpo.desirable_weight has no effect with dpo.loss: ipo"),
    ],
)
def test_what_unpaired_losses_cannot_do_is_told(world, tmp_path, changes, told):
    data = {"data__path": marked_rows(tmp_path)} if changes else {}
    with pytest.raises(UserError, match=told):
        run(dpo, world, tmp_path / "run", **{"dpo__loss": "kto"} | data | changes)


def test_a_class_whose_log_probabilities_trl_does_not_compute_is_refused(world, tmp_path):
    """A RoBERTa's head is more than one matrix, and TRL multiplies with the last one alone."""
    from transformers import RobertaConfig, RobertaForCausalLM

    tokenizer = load_tokenizer(world.base)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = RobertaConfig(**shape, vocab_size=len(tokenizer), is_decoder=True, initializer_range=0.3)
    RobertaForCausalLM(config).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    with pytest.raises(UserError, match="TRL cannot compute the log probabilities of a RobertaForCausalLM"):
        run(dpo, world, tmp_path / "run", model__path=str(tmp_path / "base"))
