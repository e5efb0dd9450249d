"""Every stage from its recipe to its folder, and what it says to inputs that cannot work."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import metrics, recipe_of, run
from safetensors.torch import load_file
from tiny import WORDS, conversation, tiny_gpt, tiny_gpt2, tiny_reward_model, write_rows
from transformers import AutoModelForCausalLM, AutoTokenizer

from align import generate, ppo, prepare, pretrain, rm, sft
from align.config import build, to_yaml
from align.errors import UserError
from align.models.language import LanguageModel
from align.text.encode import encode_conversation
from align.text.records import Message
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator

TRAINING = [pretrain, sft, rm, ppo]
FROM_A_MODEL = [sft, rm, ppo]


def refusal(stage: Any, world: Any, folder: Path, **changes: Any) -> str:
    """What a stage says to a recipe that it refuses. It leaves no finished run."""
    with pytest.raises(UserError) as refused:
        run(stage, world, folder / "run", **changes)
    assert not (folder / "run" / "result.json").exists()
    return str(refused.value)


@pytest.mark.parametrize("stage", TRAINING)
def test_a_run_leaves_a_model_a_card_and_its_records(stage, world, tmp_path):
    folder = run(stage, world, tmp_path / "run", train__steps=4)
    expected = {"recipe.yaml", "environment.json", "inputs.json", "metrics.jsonl", "result.json"}
    expected |= {"checkpoints", "model", "README.md"}
    assert expected <= {path.name for path in folder.iterdir()}
    assert [row["step"] for row in metrics(folder)] == [1, 2, 3, 4]
    card = (folder / "README.md").read_text()
    assert f"Written by `align {stage.__name__.split('.')[-1]}`" in card
    assert to_yaml(recipe_of(stage, world, folder, train__steps=4)).strip() in card
    assert not list(folder.rglob("*.bin")) or stage is pretrain  # safetensors only; tokens are numbers in a .bin
    assert not [path for kind in ("*.pt", "*.pkl", "*.pth") for path in folder.rglob(kind)]


@pytest.mark.parametrize("stage", [pretrain, sft, ppo])
def test_the_model_opens_in_transformers_and_speaks(stage, world, tmp_path):
    folder = run(stage, world, tmp_path / "run", train__steps=2)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert tokenizer.chat_template
    ids = tokenizer("red blue", return_tensors="pt")["input_ids"]
    said = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    assert said.shape[1] > ids.shape[1]
    assert all(value.dtype == torch.float32 for value in load_file(folder / "model" / "model.safetensors").values())


@pytest.mark.parametrize("stage", TRAINING)
def test_a_dry_run_tells_recipe_data_and_cost_and_writes_nothing(stage, world, tmp_path, capsys):
    recipe = recipe_of(stage, world, tmp_path / "run")
    stage.run(recipe, dry_run=True)
    told = capsys.readouterr().out
    assert to_yaml(recipe) in told
    assert "estimated memory" in told
    assert "tokens" in told
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("stage", [sft, rm])
def test_learning_lowers_the_loss_on_held_out_rows(stage, world, tmp_path):
    """Twenty rows in which the better answer, or the only one, is always the same word."""
    chance = random.Random(1)
    rows = [conversation(chance) | {"completion": "green"} for _ in range(20)]
    if stage is rm:
        rows = [{"prompt": row["prompt"], "responses": ["green", "red"], "ranks": [1, 2]} for row in rows]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    rows = metrics(run(stage, world, tmp_path / "run", data__path=data, train__steps=25, optim__learning_rate=0.003))
    assert rows[-1]["loss/validation"] < 0.5 * rows[0]["loss/validation"]
    assert rows[-1]["accuracy/validation"] > 0.9


def test_ppo_raises_the_reward(world, tmp_path):
    """Short answers are better, and a critic that begins at 0."""
    changes = {"reward__path": ..., "reward__function": "helpers:brevity", "ppo__critic": world.base}
    changes |= {"optim__batch_size": 32, "optim__learning_rate": 0.003, "train__steps": 15, "kl__coefficient": 0.01}
    rows = metrics(run(ppo, world, tmp_path / "run", **changes))
    first, last = (sum(row["objective/scores"] for row in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last > first + 1.0
    assert last > -0.3  # 0 is the best there is
    assert rows[-1]["val/response_length"] < rows[0]["val/response_length"]
    assert rows[-1]["objective/kl"] > 0.1


def test_ppo_logs_what_its_scores_were_made_of(world, tokenizer, tmp_path):
    tiny_reward_model(tokenizer, seed=8).save(tmp_path / "second")
    tokenizer.save_pretrained(tmp_path / "second")
    sources = [{"path": [world.reward, str(tmp_path / "second")], "name": "models"}]
    sources += [{"function": "helpers:brevity", "weight": 0.1}]
    changes = {"reward__path": ..., "reward__sources": sources, "reward__ensemble": "mean_minus_std"}
    changes |= {"reward__normalize": "running", "reward__clip": 2.0, "reward__length_penalty": 0.1}
    changes |= {"reward__length_free": 3, "reward__min_tokens": 2, "train__steps": 2, "optim__learning_rate": 0.002}
    first, _ = metrics(run(ppo, world, tmp_path / "run", **changes))
    raw = first["objective/scores/models"] + 0.1 * first["objective/scores/brevity"]
    assert first["objective/raw_scores"] == pytest.approx(raw, abs=1e-5)
    assert first["objective/ensemble_std/models"] > 0
    assert abs(first["objective/scores"] - raw) > 1e-3


def test_answers_cut_at_a_token_are_scored_as_if_they_had_ended_there(world, tmp_path):
    """With a token that nobody says, every answer gets the penalty; with EOS, it is as without the key."""
    tokenizer = load_tokenizer(world.base)
    changes = {"train__steps": 1, "optim__learning_rate": 0.002}
    plain = metrics(run(ppo, world, tmp_path / "plain", **changes))
    at_eos = metrics(run(ppo, world, tmp_path / "eos", reward__truncate_token=tokenizer.eos_token, **changes))
    assert at_eos == plain
    pad = metrics(run(ppo, world, tmp_path / "pad", reward__truncate_token=tokenizer.pad_token_id, **changes))
    assert pad[0]["objective/scores"] == -1.0


def test_pretraining_learns_the_order_of_words(world, tmp_path):
    text = " ".join(WORDS) + " ."
    data = write_rows(tmp_path / "rows.jsonl", [{"text": f"{i} {text}"} for i in range(40)])
    changes = {"data__path": data, "train__steps": 60, "optim__learning_rate": 0.02, "optim__warmup_steps": 5}
    rows = metrics(run(pretrain, world, tmp_path / "run", **changes, train__log_every=20))
    assert rows[-1]["loss/validation"] < 0.5 * rows[0]["loss/validation"]
    assert rows[-1]["bits_per_byte"] == pytest.approx(
        rows[0]["bits_per_byte"] * rows[-1]["loss/validation"] / rows[0]["loss/validation"]
    )


def test_a_gold_judge_is_logged_and_changes_nothing_else(world, tmp_path):
    plain = metrics(run(ppo, world, tmp_path / "plain", train__steps=2))
    judged = metrics(run(ppo, world, tmp_path / "judged", train__steps=2, gold="helpers:brevity"))
    assert all(row.pop("objective/gold") <= 0 for row in judged)
    assert judged == plain


def test_epochs_and_steps_are_two_ways_to_say_the_same(world, tmp_path):
    by_steps = run(sft, world, tmp_path / "steps", train__steps=5)
    n_rows = 4 * 5  # 24 conversations, a fifth held out: 19 or 20
    assert n_rows >= 19
    by_epochs = run(sft, world, tmp_path / "epochs", train__steps=..., train__epochs=1)
    assert [row["step"] for row in metrics(by_epochs)] == [row["step"] for row in metrics(by_steps)]


def test_dropout_is_on_in_training_and_off_in_validation(world, tokenizer, tmp_path):
    rows = []
    for rate in (0.0, 0.5):
        start, rates = tmp_path / f"start {rate}", {"resid_pdrop": rate, "embd_pdrop": rate, "attn_pdrop": rate}
        tiny_gpt2(tokenizer, **rates).save_pretrained(start)
        tokenizer.save_pretrained(start)
        changes = {"model__path": str(start), "train__steps": 1, "optim__learning_rate": 1e-9}
        rows += metrics(run(sft, world, tmp_path / f"run {rate}", **changes))
    assert rows[1]["loss/train"] != pytest.approx(rows[0]["loss/train"], abs=1e-2)
    assert rows[1]["loss/validation"] == pytest.approx(rows[0]["loss/validation"], abs=1e-5)


def test_only_the_last_turn_is_learned_if_asked_for(world, tmp_path):
    turns = [("user", "say red"), ("assistant", "red"), ("user", "say blue"), ("assistant", "blue")]
    rows = [{"messages": [{"role": role, "content": f"{text} {i}"} for role, text in turns]} for i in range(8)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    every, last = (
        metrics(run(sft, world, tmp_path / targets, data__path=data, targets=targets, train__steps=1))[0]
        for targets in ("assistant", "last")
    )
    assert every["loss/train"] != pytest.approx(last["loss/train"], abs=1e-3)


def test_loss_is_the_mean_over_target_tokens_not_over_rows(world, tmp_path):
    """One row with a long answer and one with a short one, against the definition."""
    rows = [{"prompt": "say", "completion": "red"}, {"prompt": "say", "completion": " ".join(WORDS)}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    changes = {"data__path": data, "data__validation": 0.0, "optim__batch_size": 2, "train__steps": 1}
    found = metrics(run(sft, world, tmp_path / "run", **changes))[0]["loss/train"]
    tokenizer, model = load_tokenizer(world.base), AutoModelForCausalLM.from_pretrained(world.base)
    nll, n_targets = 0.0, 0
    for row in rows:
        messages = [Message("user", row["prompt"]), Message("assistant", row["completion"])]
        encoded = encode_conversation(tokenizer, messages, 48)
        is_target = torch.tensor([encoded.is_target])
        with torch.no_grad():
            logits = LanguageModel(model)(torch.tensor([encoded.ids]), is_target)
        targets = torch.tensor([encoded.ids])[is_target]
        nll += float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum"))
        n_targets += len(targets)
    assert found == pytest.approx(nll / n_targets, abs=1e-5)


def test_an_empty_file_is_told(world, tmp_path):
    path = write_rows(tmp_path / "empty.jsonl", [])
    for stage in TRAINING:
        assert "empty.jsonl" in refusal(stage, world, tmp_path, data__path=path)


@pytest.mark.parametrize("stage", [sft, rm])
def test_one_row_cannot_be_parted_into_training_and_validation(stage, world, tmp_path):
    source = {sft: world.conversations, rm: world.rankings}[stage]
    (tmp_path / "one.jsonl").write_text(Path(source).read_text().splitlines()[0])
    told = refusal(stage, world, tmp_path, data__path=str(tmp_path / "one.jsonl"))
    assert "data.validation=0.2: cannot split 1 row" in told
    assert "set data.validation=0" in told


@pytest.mark.parametrize("stage", FROM_A_MODEL)
def test_one_row_is_enough_without_validation(stage, world, tmp_path):
    source = {sft: world.conversations, rm: world.rankings, ppo: world.prompts}[stage]
    (tmp_path / "one.jsonl").write_text(Path(source).read_text().splitlines()[0])
    changes = {"data__path": str(tmp_path / "one.jsonl"), "data__validation": 0.0, "train__steps": 2}
    if stage is ppo:  # the answers of one prompt move the policy far at the rate of the others
        changes["optim__learning_rate"] = 1e-3
    rows = metrics(run(stage, world, tmp_path / "run", **changes))
    assert [row["step"] for row in rows] == [1, 2]
    assert not any("validation" in name for row in rows for name in row)


@pytest.mark.parametrize("stage", FROM_A_MODEL)
def test_a_missing_model_is_told_before_the_data_is_read(stage, world, tmp_path):
    told = refusal(stage, world, tmp_path, model__path=str(tmp_path / "nowhere"), data__path="also nowhere")
    assert str(tmp_path / "nowhere") in told
    assert "also" not in told


def test_a_folder_with_a_tokenizer_but_no_model_is_told(world, tmp_path):
    load_tokenizer(world.base).save_pretrained(tmp_path / "half")
    told = refusal(sft, world, tmp_path, model__path=str(tmp_path / "half"))
    assert told.startswith(f"model.path = '{tmp_path / 'half'}': cannot load a model from it")
    assert "Give a folder with config.json and model.safetensors" in told


def test_a_reward_model_with_fewer_positions_than_the_policy_is_refused(world, tokenizer, tmp_path):
    """Otherwise its position embedding is read out of bounds in the middle of a run."""
    tiny_reward_model(tokenizer, n_positions=20).save(tmp_path / "reward")
    tokenizer.save_pretrained(tmp_path / "reward")
    told = refusal(ppo, world, tmp_path, reward__path=str(tmp_path / "reward"), ppo__critic=world.base)
    assert "reward.path" in told
    assert "20 positions" in told


def test_a_critic_with_fewer_positions_than_the_policy_is_refused(world, tokenizer, tmp_path):
    tiny_reward_model(tokenizer, n_positions=20).save(tmp_path / "critic")
    tokenizer.save_pretrained(tmp_path / "critic")
    told = refusal(ppo, world, tmp_path, ppo__critic=str(tmp_path / "critic"))
    assert "ppo.critic" in told
    assert "20 positions" in told


def test_a_language_model_is_no_reward_model(world, tmp_path):
    told = refusal(ppo, world, tmp_path, reward__path=world.base)
    assert "this is not a reward model; train one with `align rm`" in told


def test_a_critic_with_another_tokenizer_is_refused_with_the_remedy(world, tmp_path, capsys):
    """Without ppo.critic it starts from the policy."""
    from align.text.tokenizer import train_tokenizer

    other = train_tokenizer(["red blue green"] * 3, 270)
    tiny_reward_model(other).save(tmp_path / "reward")
    other.save_pretrained(tmp_path / "reward")
    changes = {"reward__path": str(tmp_path / "reward"), "train__steps": 1}
    told = refusal(ppo, world, tmp_path, **changes, ppo__critic=str(tmp_path / "reward"))
    assert f"has another tokenizer than the policy; set ppo.critic={world.base}" in told
    assert len(metrics(run(ppo, world, tmp_path / "run2", **changes))) == 1
    assert f"the critic starts from {world.base}: no reward model has its tokenizer" in capsys.readouterr().out


def test_prompts_without_room_for_an_answer_are_left_out_and_counted(world, tmp_path, capsys):
    long = [{"prompt": "red " * 60}, {"prompt": "blue " * 60}]
    data = write_rows(tmp_path / "rows.jsonl", [*long, {"prompt": "say red"}])
    run(ppo, world, tmp_path / "run", data__path=data, train__steps=1)
    assert "2 of 3 prompts left out: longer than 40 tokens, which is data.max_tokens=48 less rollout.max_tokens=8" in (
        capsys.readouterr().out
    )
    told = refusal(ppo, world, tmp_path / "b", data__path=write_rows(tmp_path / "long.jsonl", long))
    assert told == "data.path: all prompts are too long; raise data.max_tokens or lower rollout.max_tokens"


def test_prompts_are_never_cut(world, tmp_path):
    with pytest.raises(UserError, match="a cut prompt would lose its end; ppo only takes drop"):
        recipe_of(ppo, world, tmp_path, data__too_long="truncate")


def test_conversations_that_are_all_too_long_are_told(world, tmp_path):
    rows = [{"prompt": f"say {i}", "completion": "red " * 80} for i in range(4)]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    told = refusal(sft, world, tmp_path, data__path=data, data__too_long="drop")
    assert "no conversation is left" in told
    assert "raise data.max_tokens" in told


def test_rankings_too_long_are_left_out_or_cut_before_eos(world, tmp_path):
    rows = [{"prompt": f"say {i}", "responses": ["red " * 80, "blue"], "ranks": [1, 2]} for i in range(4)]
    rows += [{"prompt": f"say {i}", "responses": ["red", "blue"], "ranks": [1, 2]} for i in range(4, 8)]
    recipe = recipe_of(rm, world, tmp_path, data__path=write_rows(tmp_path / "rows.jsonl", rows))
    tokenizer = load_tokenizer(world.base)
    from align.text.load import load

    rankings = load(recipe.data, "rankings", 1)
    dropped = rm.encode(recipe, tokenizer, rankings.train + rankings.validation)
    assert len(dropped) == 4
    cut = recipe_of(rm, world, tmp_path, data__path=recipe.data.path, data__too_long="truncate")
    kept = rm.encode(cut, tokenizer, rankings.train + rankings.validation)
    assert len(kept) == 8
    assert max(len(answer) for row in kept for answer in row.answers) == 48
    assert {answer[-1] for row in kept for answer in row.answers} == {tokenizer.eos_token_id}


def test_rankings_that_are_all_ties_are_told(world, tmp_path):
    rows = [{"prompt": f"say {i}", "responses": ["red", "blue"], "ranks": [1, 1]} for i in range(4)]
    told = refusal(rm, world, tmp_path, data__path=write_rows(tmp_path / "rows.jsonl", rows))
    assert "none of" in told


def test_a_broken_row_is_named_by_file_and_line(world, tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": "a", "completion": 5}\n')
    assert "rows.jsonl:2" in refusal(sft, world, tmp_path, data__path=str(tmp_path / "rows.jsonl"))


def test_documents_too_few_for_a_row_are_told(world, tmp_path):
    data = write_rows(tmp_path / "rows.jsonl", [{"text": "a"}, {"text": "b"}])
    told = refusal(pretrain, world, tmp_path, data__path=data)
    assert "do not fill one row of 16; give more text" in told


def test_sizes_that_do_not_go_together_are_told(world, tmp_path):
    told = refusal(pretrain, world, tmp_path, model__n_embd=17)
    assert "n_embd = 17 is not a multiple of n_head = 2" in told


def test_documents_can_be_prepared_once_and_pretrained_on_many_times(world, tmp_path, monkeypatch, capsys):
    recipe = {"data": {"path": world.documents, "validation": 0.1}, "tokenizer": {"vocab_size": 300}}
    (tmp_path / "prepare.yaml").write_text(json.dumps(recipe | {"output": str(tmp_path / "tokens")}))
    monkeypatch.setattr(sys, "argv", ["prepare", str(tmp_path / "prepare.yaml")])
    prepare.main()
    assert "training tokens" in capsys.readouterr().out
    index = json.loads((tmp_path / "tokens" / "tokens.json").read_text())
    shards = prepare.read_shards(tmp_path / "tokens")
    assert (len(shards.train), len(shards.validation)) == (index["train_tokens"], index["validation_tokens"])
    tokenizer = load_tokenizer(shards.tokenizer_path)
    ends = int((shards.train[:] == tokenizer.eos_token_id).sum())
    assert ends == index["train_documents"]  # every document ends in one EOS
    documents = tokenizer.decode(shards.validation.tolist()).split(tokenizer.eos_token)
    assert sum(len(text.encode()) for text in documents) == shards.validation_bytes
    with pytest.raises(UserError, match="exists and is not empty"):
        prepare.main()

    on_the_fly = run(pretrain, world, tmp_path / "a")
    prepared = run(pretrain, world, tmp_path / "b", data__path=str(tmp_path / "tokens"))
    assert metrics(prepared) == metrics(on_the_fly)
    assert not (prepared / "tokens").exists()


def test_every_token_is_predicted_once_in_a_pass():
    import numpy as np

    tokens = np.arange(50, dtype="uint16")
    rows = pretrain.windows(tokens, range((50 - 1) // 7), 8)
    assert rows.shape == (7, 8)
    assert rows[:, 1:].flatten().tolist() == list(range(1, 50))  # the first token of all has nothing before it
    assert pretrain.all_but_first(rows).sum() == 49


def test_validation_in_pretraining_is_nats_a_token_and_bits_a_byte(world, tmp_path, tokenizer):
    import numpy as np

    tokens = np.array([5, 6, 7, 8, 9, 10, 11, 12], dtype="uint16")
    shards = prepare.Shards(tmp_path, tokens, tokens, validation_bytes=20)
    model = tiny_gpt(tokenizer)
    figures = pretrain.validate(LanguageModel(model), shards, 4, 1, 10, make_accelerator("fp32"))
    with torch.no_grad():
        rows = [model(torch.tensor([row])).logits[0, :-1].log_softmax(-1) for row in ([5, 6, 7, 8], [8, 9, 10, 11])]
    said = [
        [float(row[i, token]) for i, token in enumerate(t)]
        for row, t in zip(rows, ([6, 7, 8], [9, 10, 11]), strict=True)
    ]
    nats = -sum(map(sum, said)) / 6
    assert figures["loss/validation"] == pytest.approx(nats, abs=1e-5)
    assert figures["bits_per_byte"] == pytest.approx(nats / 0.693147 * 8 / 20, abs=1e-5)


def test_a_model_of_ours_can_be_pretrained_further(world, tmp_path):
    first = run(pretrain, world, tmp_path / "a", train__steps=2)
    shards = str(first / "tokens")
    changes = {
        "data__path": shards,
        "model__path": str(first / "model"),
        "train__steps": 1,
        "optim__learning_rate": 1e-9,
    }
    again = run(pretrain, world, tmp_path / "b", **changes)
    before, after = (load_file(folder / "model" / "model.safetensors") for folder in (first, again))
    assert all(torch.allclose(before[name], after[name], atol=1e-6) for name in before)


def answered(world: Any, path: Path, **changes: Any) -> list[dict[str, Any]]:
    keys = {"model": {"path": world.base}, "data": {"path": world.prompts, "max_tokens": 48}, "output": str(path)}
    keys["sampling"] = {"max_tokens": 8, **changes.pop("sampling", {})}
    generate.run(build(generate.Recipe, keys | changes, "recipe"))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_generate_writes_several_answers_to_each_prompt_in_order(world, tmp_path):
    rows = answered(world, tmp_path / "answers.jsonl", sampling={"n": 3, "temperature": 1.0}, seed=7)
    prompts = [json.loads(line)["prompt"] for line in Path(world.prompts).read_text().splitlines()]
    assert [row["prompt"] for row in rows] == prompts
    assert {len(row["responses"]) for row in rows} == {3}
    assert len({response for row in rows for response in row["responses"]}) > 20
    assert {(row["model"], row["temperature"], row["seed"]) for row in rows} == {(world.base, 1.0, 7)}
    again = answered(world, tmp_path / "again.jsonl", sampling={"n": 3, "temperature": 1.0}, seed=7)
    assert again == rows
    assert answered(world, tmp_path / "other.jsonl", sampling={"n": 3, "temperature": 1.0}, seed=8) != rows


def test_a_prompt_that_the_template_refuses_is_named_before_any_is_answered(world, tmp_path):
    refused = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "red"}]
    asked = write_rows(tmp_path / "asked.jsonl", [{"prompt": "red"}, {"prompt": refused}])
    (tmp_path / "strict.jinja").write_text(
        "{% for m in messages %}{{ raise_exception('no system') if m.role == 'system' }}{{ m.content }}{% endfor %}"
    )
    data = {"path": asked, "max_tokens": 48, "validation": 0.0, "template": str(tmp_path / "strict.jinja")}
    with pytest.raises(UserError, match=r"asked\.jsonl:2: .* no system; try data\.system"):
        answered(world, tmp_path / "answers.jsonl", data=data)
    with pytest.raises(UserError, match=r"asked\.jsonl:2: .* no system; try data\.system"):
        run(ppo, world, tmp_path / "ppo", data=data)


def test_generate_replaces_a_file_only_if_asked_for(world, tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text("mine")
    with pytest.raises(
        UserError, match=r"answers\.jsonl exists; choose another output, or replace it with overwrite=true"
    ):
        answered(world, path)
    assert path.read_text() == "mine"
    assert len(answered(world, path, overwrite=True)) == 20


def test_generate_names_a_prompt_that_leaves_no_room(world, tmp_path):
    data = {"path": write_rows(tmp_path / "rows.jsonl", [{"prompt": "red " * 60}]), "max_tokens": 48}
    with pytest.raises(UserError, match=r"there is room for 40 before an answer of 8.*lower sampling\.max_tokens"):
        answered(world, tmp_path / "answers.jsonl", data=data)
    assert not (tmp_path / "answers.jsonl").exists()


def test_a_ranking_of_generated_answers_trains_a_reward_model(world, tmp_path):
    """What generate writes, with ranks added, is what rm reads."""
    rows = answered(world, tmp_path / "answers.jsonl", sampling={"n": 3})
    ranked = write_rows(tmp_path / "ranked.jsonl", [{**row, "ranks": [2, 1, 3]} for row in rows])
    assert metrics(run(rm, world, tmp_path / "run", data__path=ranked, train__steps=2))
