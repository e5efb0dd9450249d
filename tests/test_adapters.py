"""LoRA and frozen bases in 8 and 4 bits: what trains, what stays, what is saved."""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import metrics, recipe_of, run
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from peft.tuners.lora import Linear
from safetensors.torch import load_file, save_file
from tiny import tiny_gpt, tiny_gpt2, tiny_reward_model
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from align import ppo, rm, sections, sft
from align.errors import UserError
from align.models.adapters import save_adapter, trained_parameters
from align.models.load import is_adapter, load_causal_lm, load_trunk
from align.models.scalar import load_scalar_model, score_all
from align.rl.roles import load_roles
from align.text.tokenizer import load_tokenizer
from align.train.machine import accelerator as make_accelerator

LORA = {"model__adapter": "lora", "train__steps": 3}
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16]])


@pytest.fixture(params=["base", "gpt2"])
def start(request, world) -> str:
    return getattr(world, request.param)


@pytest.fixture(scope="module")
def wide(tokenizer, world, tmp_path_factory) -> Any:
    """The same models twice as wide: 4-bit weights come in blocks of 64, which a row must fill on a CPU."""
    folder = tmp_path_factory.mktemp("wide")
    models = {"base": tiny_gpt(tokenizer, n_embd=64), "gpt2": tiny_gpt2(tokenizer, n_embd=64)}
    for name, model in models.items():
        model.save_pretrained(folder / name)
    tiny_reward_model(tokenizer, n_embd=64).save(folder / "reward")
    for name in ("base", "gpt2", "reward"):
        tokenizer.save_pretrained(folder / name)
    return world._replace(**{name: str(folder / name) for name in ("base", "gpt2", "reward")})


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found = model.eval()(input_ids=IDS)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def saved(folder: Path, auto_class: Any, name: str, start: str) -> tuple[Any, Any, Any]:
    """The merged model of a run, the adapter on its base, and the base alone."""
    merged = auto_class.from_pretrained(folder / name)
    adapter = folder / ("adapter" if name == "model" else f"{name}_adapter")
    if json.loads((adapter / "adapter_config.json").read_text())["task_type"] != "CAUSAL_LM":
        base = auto_class.from_pretrained(start)
        alone = logits(base)
        return merged, PeftModel.from_pretrained(base, str(adapter)), alone
    whole = AutoModelForCausalLM.from_pretrained(start)  # a critic's adapter may stand on the policy's base
    base = whole.base_model if auto_class is AutoModel else whole
    alone = logits(base)
    adapted = PeftModel.from_pretrained(whole, str(adapter))
    return merged, base if auto_class is AutoModel else adapted, alone


@pytest.mark.parametrize(
    ("stage", "auto_class", "name"),
    [
        (sft, AutoModelForCausalLM, "model"),
        (rm, AutoModel, "model"),
        (ppo, AutoModelForCausalLM, "model"),
        (ppo, AutoModel, "critic"),
    ],
)
def test_an_adapter_trains_and_is_saved_alone_and_merged(stage, auto_class, name, start, world, tmp_path):
    changes = LORA | {"model__path": start} | ({"ppo__critic": start, "reward__path": ...} if stage is ppo else {})
    changes |= {"reward__function": "helpers:brevity"} if stage is ppo else {}
    folder = run(stage, world, tmp_path / "run", **changes)
    merged, adapted, alone = saved(folder, auto_class, name, start)
    found = logits(merged) - logits(adapted)
    if stage is rm:  # the bias of its last LayerNorm has taken in the shift: one vector, the same at every token
        found -= found[:1, :1].clone()
    torch.testing.assert_close(found, torch.zeros_like(found), atol=1e-4, rtol=0)
    assert float((logits(adapted) - alone).abs().max()) > 1e-3
    trained = {key.rsplit(".", 2)[-2] for key in load_file(next(folder.glob("*adapter/*.safetensors")))}
    assert trained <= {"lora_A", "lora_B"}


def test_the_head_of_a_reward_model_is_trained_beside_the_adapter_and_saved(world, tmp_path, monkeypatch):
    heads = []
    plain = rm.train

    def train(recipe: Any, model: Any, *rest: Any) -> Any:
        heads.append(model.head.weight.detach().clone())
        figures = plain(recipe, model, *rest)
        heads.append(model.head.weight.detach().clone())
        return figures

    monkeypatch.setattr(rm, "train", train)
    folder = run(rm, world, tmp_path / "run", **LORA)
    again = load_scalar_model(sections.Model(path=str(folder / "model")))
    assert torch.equal(again.head.weight, heads[1])
    assert not torch.allclose(heads[0], heads[1], atol=1e-3)


def test_a_saved_reward_model_scores_as_the_trained_one(world, tmp_path, monkeypatch):
    scores = []

    def save(model: Any, *rest: Any) -> str:
        scores.append(score_all(model, IDS.tolist(), 8192, "cpu"))
        return plain(model, *rest)

    from align.models import save as module

    plain = module.save_reward_model
    monkeypatch.setattr(module, "save_reward_model", save)
    folder = run(rm, world, tmp_path / "run", **LORA)
    again = load_scalar_model(sections.Model(path=str(folder / "model")))
    assert score_all(again, IDS.tolist(), 8192, "cpu") == pytest.approx(scores[0], abs=1e-4)


@pytest.mark.parametrize("family", ["base", "gpt2"])
@pytest.mark.parametrize("bits", ["8bit", "4bit"])
@pytest.mark.parametrize("stage", [sft, rm, ppo])
def test_a_base_in_few_bits_stays_as_it_is_while_the_adapter_trains(stage, bits, family, wide, tmp_path, monkeypatch):
    changes = {**LORA, "model__path": getattr(wide, family), "model__quantization": bits, "train__steps": 2}
    changes |= {"ppo__n_epochs": 1} if stage is ppo else {}
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}
    plain = stage.train

    def train(recipe: Any, model: Any, *rest: Any) -> Any:
        modules = [model.policy, model.critic] if stage is ppo else [model]
        before.update(frozen(modules))
        figures = plain(recipe, model, *rest)
        after.update(frozen(modules))
        return figures

    monkeypatch.setattr(stage, "train", train)
    folder = run(stage, wide, tmp_path / "run", **changes)
    wanted = torch.int8 if bits == "8bit" else torch.uint8
    assert sum(tensor.dtype == wanted for tensor in before.values()) >= 8  # four matrices in each of two blocks
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    for row in metrics(folder):
        assert all(torch.isfinite(torch.tensor(float(value))) for value in row.values()), row
    adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
    assert max(float(value.abs().max()) for name, value in adapter.items() if "lora_B" in name) > 1e-3


def frozen(modules: list[Any]) -> dict[str, torch.Tensor]:
    found = [(f"{i}.{name}", p) for i, module in enumerate(modules) for name, p in module.named_parameters()]
    return {name: p.detach().clone() for name, p in found if not p.requires_grad}


@pytest.mark.parametrize("family", ["base", "gpt2"])
@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
def test_ppo_with_an_adapter_begins_at_its_reference(quantization, family, wide, tmp_path):
    changes = {"model__path": getattr(wide, family), "model__adapter": "lora", "model__quantization": quantization}
    changes |= {"train__steps": 2, "ppo__n_epochs": 1, "ppo__n_minibatches": 1}
    first, second = metrics(run(ppo, wide, tmp_path / "run", **changes))
    assert first["objective/kl"] == 0.0
    assert abs(second["objective/kl"]) > 1e-4
    for row in (first, second):  # sampling, recomputing and training see the same weights
        assert row["val/ratio"] == pytest.approx(1.0, abs=1e-4)
        assert row["policy/approxkl_avg"] < 1e-8


def test_the_reference_of_an_adapted_policy_is_the_model_it_began_from(world, tmp_path):
    """After training, the policy with its adapter off still says what the untouched model says."""
    recipe = recipe_of(ppo, world, tmp_path / "run", **LORA)
    tokenizer, accelerator = load_tokenizer(world.base), make_accelerator("fp32")
    roles = load_roles(recipe, tokenizer, accelerator)
    with torch.no_grad():
        for name, parameter in roles.policy.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.1)
    with roles.reference.active():
        off = logits(roles.reference.model)
    assert torch.equal(off, logits(load_causal_lm(sections.Model(path=world.base))))
    assert not torch.allclose(logits(roles.policy.model), off, atol=1e-2)


@pytest.fixture
def sft_adapter(world, tmp_path) -> Path:
    """The adapter folder that an SFT run with LoRA left, and the run's merged model beside it."""
    return run(sft, world, tmp_path / "sft", **LORA) / "adapter"


def test_an_adapter_can_be_started_from_and_is_merged_first(sft_adapter):
    assert is_adapter(sft_adapter)
    merged = AutoModelForCausalLM.from_pretrained(sft_adapter.parent / "model")
    whole = load_causal_lm(sections.Model(path=str(sft_adapter)))
    torch.testing.assert_close(logits(whole), logits(merged), atol=1e-5, rtol=0)
    fresh = load_causal_lm(sections.Model(path=str(sft_adapter), adapter="lora"))
    torch.testing.assert_close(logits(fresh), logits(merged), atol=1e-5, rtol=0)
    with fresh.disable_adapter():
        torch.testing.assert_close(logits(fresh), logits(merged), atol=1e-5, rtol=0)
    trunk = load_trunk(sections.Model(path=str(sft_adapter)))
    expected = logits(AutoModel.from_pretrained(sft_adapter.parent / "model"))
    torch.testing.assert_close(logits(trunk), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("stage", [sft, rm, ppo])
def test_every_stage_starts_from_an_adapter_folder(stage, adapter, sft_adapter, world, tmp_path):
    """The model that it leaves is the one that it trained: base, first adapter and what was learned since."""
    changes = {"model__path": str(sft_adapter), "model__adapter": adapter, "train__steps": 2}
    from_adapter = run(stage, world, tmp_path / "a", **changes)
    changes["model__path"] = str(sft_adapter.parent / "model")
    from_whole = run(stage, world, tmp_path / "b", **changes)
    found, expected = (metrics(folder) for folder in (from_adapter, from_whole))
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, abs=1e-3, rel=1e-3)
    auto_class = AutoModel if stage is rm else AutoModelForCausalLM
    models = [auto_class.from_pretrained(folder / "model") for folder in (from_adapter, from_whole)]
    torch.testing.assert_close(logits(models[0]), logits(models[1]), atol=1e-3, rtol=0)


def test_an_adapter_that_does_not_say_what_it_is_for_is_one_of_what_is_wanted(sft_adapter, tmp_path):
    silent = tmp_path / "silent"
    shutil.copytree(sft_adapter, silent)
    settings = json.loads((silent / "adapter_config.json").read_text())
    assert settings["task_type"] == "CAUSAL_LM"
    (silent / "adapter_config.json").write_text(json.dumps(settings | {"task_type": None}))
    ids = torch.tensor([[5, 6, 7]])
    one, other = (load_causal_lm(sections.Model(path=str(path))).eval() for path in (sft_adapter, silent))
    assert torch.equal(one(ids).logits, other(ids).logits)


def test_a_new_adapter_on_a_merged_one_names_a_base_that_exists(sft_adapter, world, tmp_path):
    folder = run(sft, world, tmp_path / "again", **{**LORA, "model__path": str(sft_adapter)})
    named = json.loads((folder / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(named).exists()


@pytest.mark.parametrize(("adapter", "pad"), [("none", "eos"), ("lora", "eos"), ("lora", "none")])
def test_a_tokenizer_without_a_pad_token_stays_so_and_no_vocabulary_grows(adapter, pad, tokenizer, world, tmp_path):
    """As SmolLM2's, whose pad is its EOS, and GPT-2's. Only a sequence classifier needs a pad token, and its row."""
    start = tmp_path / "start"
    tiny_gpt2(tokenizer, pad_token_id=None).save_pretrained(start)
    tokenizer.save_pretrained(start)
    drop_pad_token(start, "<|endoftext|>" if pad == "eos" else None)
    changes = {"model__path": str(start), "model__adapter": adapter, "train__steps": 2}
    folder = run(sft, world, tmp_path / "run", **changes)
    model, words = plain(folder / "model")
    assert (model.config.vocab_size, words.get_vocab()) == (len(tokenizer), load_tokenizer(start).get_vocab())
    assert model.config.pad_token_id == model.generation_config.pad_token_id == words.pad_token_id
    assert model.generate(IDS, max_new_tokens=3, do_sample=False, pad_token_id=0).shape[1] == IDS.shape[1] + 3
    if adapter == "lora":
        on_start = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(start), folder / "adapter")
        torch.testing.assert_close(logits(on_start), logits(model), atol=1e-4, rtol=0)
    following = {"model__path": str(folder / "model"), "model__adapter": adapter, "train__steps": 1}
    reward = run(rm, world, tmp_path / "rm", **following)
    scorer, words = plain(reward / "model", AutoModelForSequenceClassification)
    assert scorer.config.pad_token_id == words.pad_token_id == len(tokenizer) != words.eos_token_id
    assert scorer.config.vocab_size == len(tokenizer) + 1
    policy = run(ppo, world, tmp_path / "ppo", reward__path=str(reward / "model"), **following)
    assert plain(policy / "model")[0].config.vocab_size == len(tokenizer)


def plain(folder: Path, auto_class: Any = AutoModelForCausalLM) -> tuple[Any, Any]:
    return auto_class.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def drop_pad_token(folder: Path, other: str | None) -> None:
    """Renames the pad token into an ordinary one; `other` pads, or none."""
    for name in ("tokenizer.json", "tokenizer_config.json"):
        text = (folder / name).read_text().replace("<|pad|>", "<|other|>")
        settings = json.loads(text)
        settings.pop("pad_token", None)
        settings |= {"pad_token": other} if other and name == "tokenizer_config.json" else {}
        (folder / name).write_text(json.dumps(settings))


def test_target_modules_that_do_not_exist_are_named(world, tmp_path):
    with pytest.raises(UserError, match=r"model\.lora\.target_modules = \['q_proj'\]"):
        run(sft, world, tmp_path / "run", **LORA, model__lora__target_modules=["q_proj"])


def test_chosen_target_modules_alone_are_adapted(world, tmp_path):
    folder = run(sft, world, tmp_path / "run", **LORA, model__lora__target_modules=["c_attn"])
    assert {name.split(".")[-3] for name in load_file(folder / "adapter" / "adapter_model.safetensors")} == {"c_attn"}


@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("family", ["base", "gpt2"])
def test_four_roles_stand_on_one_base(family, quantization, wide, tmp_path):
    """The reward's adapter was trained on the model that the policy starts from."""
    base = {"model__path": getattr(wide, family), "model__adapter": "lora", "model__quantization": quantization}
    reward = run(rm, wide, tmp_path / "rm", **base, train__steps=2) / "adapter"
    base |= {"reward__path": str(reward), "train__steps": 2, "optim__learning_rate": 0.001}
    recipe = recipe_of(ppo, wide, tmp_path / "run", **base)
    tokenizer, accelerator = load_tokenizer(wide.base), make_accelerator("fp32")
    roles = load_roles(recipe, tokenizer, accelerator)
    pointers = [base_pointers(role) for role in (roles.policy, roles.reference, roles.critic, roles.reward.model)]
    assert pointers[0] == pointers[1]
    assert pointers[2] == pointers[3]
    assert pointers[2] <= pointers[0]  # the trunk: all but a head that is not tied
    rows = IDS.tolist()
    expected = score_all(load_scalar_model(sections.Model(path=str(reward))), rows, 8192, "cpu")
    found = score_all(roles.reward.model, rows, 8192, "cpu")
    assert found == pytest.approx(expected, abs=1e-5 if quantization == "none" else 0.3)  # the other is not rounded
    assert score_all(roles.critic, rows, 8192, "cpu") == found  # it starts as a copy
    before = logits_of(roles.policy), found
    with torch.no_grad():
        for name, parameter in trained_parameters(roles.critic).items():
            parameter.add_(0.1)
            assert "value" in name or name.startswith("head")
    assert torch.equal(logits_of(roles.policy), before[0])
    assert score_all(roles.reward.model, rows, 8192, "cpu") == before[1]
    assert score_all(roles.critic, rows, 8192, "cpu") != before[1]
    ppo.run(recipe)
    first, _ = metrics(tmp_path / "run")
    assert first["objective/kl"] == 0.0


def base_pointers(role: Any) -> set[int]:
    return {p.data_ptr() for name, p in role.named_parameters() if "lora_" not in name and not name.startswith("head")}


@torch.no_grad()
def logits_of(role: Any) -> torch.Tensor:
    with role.active():
        return logits(role.model)


def test_another_reward_model_shares_its_base_with_the_critic(world, tmp_path):
    recipe = recipe_of(ppo, world, tmp_path / "run", **LORA)
    roles = load_roles(recipe, load_tokenizer(world.base), make_accelerator("fp32"))
    assert base_pointers(roles.critic) == base_pointers(roles.reward.model)
    alone = score_all(load_scalar_model(sections.Model(path=world.reward)), IDS.tolist(), 8192, "cpu")
    assert score_all(roles.reward.model, IDS.tolist(), 8192, "cpu") == pytest.approx(alone, abs=1e-6)
    ppo.run(recipe)


def test_an_adapter_for_another_base_is_refused(world, wide, tmp_path):
    reward = run(rm, world, tmp_path / "rm", **LORA) / "adapter"
    config = json.loads((reward / "adapter_config.json").read_text())
    (reward / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": wide.base}))
    recipe = recipe_of(ppo, wide, tmp_path / "run", model__adapter="lora", reward__path=str(reward))
    with pytest.raises(UserError, match="does not fit its base model"):
        ppo.run(recipe)


FOREIGN: dict[str, dict[str, Any]] = {
    "dora": {"target_modules": ["c_attn"], "use_dora": True},
    "rslora": {"target_modules": ["c_attn"], "use_rslora": True, "rank_pattern": {"c_attn": 2}},
    "biases": {"target_modules": ["c_attn"], "bias": "all"},
    "embedding": {"target_modules": ["c_attn", "wte"]},
    "tied head": {"target_modules": ["c_attn", "lm_head"]},
    "whole embedding": {"target_modules": ["c_attn"], "modules_to_save": ["wte"]},
    "some tokens": {"target_modules": ["c_attn"], "trainable_token_indices": [5, 6, 7]},
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_adapters_that_others_made_are_merged_to_what_they_are_beside_their_base(kind, world, tmp_path):
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, fan_in_fan_out=True, **FOREIGN[kind])
    adapted = get_peft_model(AutoModelForCausalLM.from_pretrained(world.gpt2), config)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and "lora_" not in name:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    base = AutoModelForCausalLM.from_pretrained(world.gpt2)
    alone = logits(base)
    expected = logits(PeftModel.from_pretrained(base, str(tmp_path / "adapter")))
    model = load_causal_lm(sections.Model(path=str(tmp_path / "adapter")))
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    assert (expected - alone).abs().max() > 0.1
    model.save_pretrained(tmp_path / "whole")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(again), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (LoraConfig(target_modules=["lm_head"], lora_bias=True, init_lora_weights=False), "cannot be merged"),
        (PromptTuningConfig(num_virtual_tokens=2), "an adapter of type PROMPT_TUNING cannot be merged into a model"),
    ],
)
def test_an_adapter_that_cannot_be_merged_is_refused_in_words(config, words, world, tmp_path):
    config.task_type = "CAUSAL_LM"
    get_peft_model(AutoModelForCausalLM.from_pretrained(world.gpt2), config).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match=words):
        load_causal_lm(sections.Model(path=str(tmp_path / "adapter")))


@pytest.mark.parametrize("modules", [["lm_head"], ["wte", "c_fc"]])
def test_a_vocabulary_that_is_adapted_is_saved_as_it_was_trained(modules, world, tmp_path):
    """Head and embedding are one matrix in the base; in model/ they are two."""
    changes = LORA | {"model__path": world.gpt2, "model__lora__target_modules": modules}
    folder = run(sft, world, tmp_path / "run", **changes)
    merged, adapted, alone = saved(folder, AutoModelForCausalLM, "model", world.gpt2)
    torch.testing.assert_close(logits(merged), logits(adapted), atol=1e-4, rtol=1e-4)
    assert (logits(merged) - alone).abs().max() > 1e-3


@pytest.mark.parametrize("stage", [sft, rm])
@pytest.mark.parametrize("fault", ["merged twice", "another base", "written wrong"])
def test_a_model_that_is_not_what_was_trained_is_an_error_that_keeps_the_adapter(
    fault, stage, world, tmp_path, monkeypatch
):
    if fault == "merged twice":
        plain = Linear.get_delta_weight
        monkeypatch.setattr(Linear, "get_delta_weight", lambda layer, adapter: 2 * plain(layer, adapter))
    elif fault == "another base":
        monkeypatch.setattr("align.models.save.merge_adapter", partial(on_another_base, world))
    else:
        monkeypatch.setattr("align.models.save.save_adapter", save_all_but_one)
    words = (
        "the saved adapter is not the one that was trained"
        if fault == "written wrong"
        else "the merged model's outputs differ"
    )
    with pytest.raises(UserError, match=words):
        run(stage, world, tmp_path / "run", **LORA)
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "result.json").exists()


def on_another_base(world: Any, auto_class: Any, adapter: Path, base: Any, n_tokens: int) -> Any:
    """As if the base's folder had been written anew during the run."""
    other = auto_class.from_pretrained(world.base)
    with torch.no_grad():
        other.get_input_embeddings().weight.mul_(1.5)
    return other.eval()


def save_all_but_one(model: Any, name: str, folder: Path) -> None:
    """As if PEFT had not written a tensor as it is."""
    save_adapter(model, name, folder)
    tensors = load_file(folder / "adapter_model.safetensors")
    first = next(key for key in tensors if "lora_B" in key)
    save_file(tensors | {first: torch.zeros_like(tensors[first])}, folder / "adapter_model.safetensors")


@pytest.mark.parametrize("stage", [sft, rm])
def test_what_the_adapter_reaches_is_said_at_the_start_and_on_the_card(stage, world, tmp_path, capsys):
    recipe = recipe_of(stage, world, tmp_path / "run", **LORA)
    stage.run(recipe, dry_run=True)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("of ")]
    assert len(lines) == 1
    assert "have an adapter (" in lines[0]
    stage.run(recipe)
    assert lines[0] in capsys.readouterr().out.splitlines()
    assert lines[0] in (tmp_path / "run" / "README.md").read_text().splitlines()


def test_a_reward_models_adapter_scores_what_its_model_does(world, tmp_path):
    """Though in `model/` a constant stands in the trunk's last LayerNorm, which the adapter's base has not."""
    folder = run(rm, world, tmp_path / "rm", **LORA)
    rows = [[5, 6, 7, 8], [9, 10, 11]]
    scores = [
        score_all(load_scalar_model(sections.Model(path=str(folder / name))).eval(), rows, 64, "cpu")
        for name in ("model", "adapter")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("{", "cannot be read"),
        ('{"base_model_name_or_path": null}', "set it to the model"),
        ("{}", "set it to the model"),
    ],
)
def test_an_adapter_that_does_not_say_its_base_is_told_in_words(world, tmp_path, settings, told):
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(settings)
    with pytest.raises(UserError, match=f"adapter_config.json: .*{told}"):
        load_causal_lm(sections.Model(path=str(tmp_path / "adapter")))
