"""Somebody else's reward model: every score is the one that its own class and tokenizer give the answer alone."""

from __future__ import annotations

import json
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
import transformers as hf
from helpers import metrics, recipe_of, run
from safetensors.torch import load_file
from tiny import WORDS, special_ids
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from align import ppo, rm, score, sections, serve_rm
from align.config import build
from align.errors import RewardError, UserError
from align.evals.cache import Cache
from align.judges.reward_accuracy import measure_accuracy
from align.judges.scoring import RewardModelJudge
from align.models.foreign import Reader, has_linear_score
from align.models.load import load_config
from align.models.scalar import load_scalar_model, score_all
from align.rewards.model import ModelReward
from align.rl.roles import load_roles
from align.text.load import load
from align.text.records import Message
from align.text.tokenizer import load_tokenizer, train_tokenizer
from align.train.machine import accelerator

SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
SHAPE |= {"max_position_embeddings": 64, "num_labels": 1}
TURNS = (Message("user", "what is it"), Message("assistant", "a cat"), Message("user", "and the dog ?"))
PROMPTS = [(Message("user", "say red and blue"),), TURNS, (Message("user", "sun"),)]
TEXTS = ["red and blue and one two three river bread", "dog", ""]


def config_of(family: str, tokenizer: Any, **changes: Any) -> Any:
    ids = special_ids(tokenizer) | {key: value for key, value in changes.items() if key == "pad_token_id"}
    common: dict[str, Any] = {"vocab_size": len(tokenizer), "initializer_range": 0.3, **ids}
    if family == "gpt2":
        return hf.GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=2, num_labels=1, **common)
    if family == "xlnet":
        return hf.XLNetConfig(d_model=32, n_layer=2, n_head=2, d_inner=64, num_labels=1, **common)
    return {"llama": hf.LlamaConfig, "deberta": hf.DebertaV2Config}[family](**SHAPE | common | changes)


def write(folder: Path, config: Any, tokenizer: Any) -> str:
    torch.manual_seed(4)
    hf.AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def plain_scores(path: str, prompts: Any = PROMPTS, texts: Any = TEXTS) -> list[float]:
    """As a model card says: one answer, no padding."""
    model = hf.AutoModelForSequenceClassification.from_pretrained(path).eval()
    tokenizer = hf.AutoTokenizer.from_pretrained(path)
    scores = []
    for prompt, text in zip(prompts, texts, strict=True):
        turns = [*({"role": t.role, "content": t.content} for t in prompt), {"role": "assistant", "content": text}]
        inputs = tokenizer.apply_chat_template(turns, return_tensors="pt", return_dict=True)
        with torch.no_grad():
            scores.append(model(**inputs).logits[0, 0].item())
    return scores


@pytest.fixture(scope="module")
def llama(tokenizer, tmp_path_factory) -> str:
    """With the policy's tokenizer."""
    return write(tmp_path_factory.mktemp("llama"), config_of("llama", tokenizer), tokenizer)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> str:
    """With a tokenizer of its own."""
    words = train_tokenizer([" ".join(WORDS)] * 3, 290)
    return write(tmp_path_factory.mktemp("other"), config_of("gpt2", words), words)


@pytest.mark.parametrize(
    ("family", "pad", "side"),
    [
        ("llama", "own", "right"),
        ("llama", "eos", "right"),  # its class then reads the token before EOS
        ("llama", "none", None),  # its class takes one row at a time
        ("gpt2", "own", "right"),  # on the left its positions would be others
        ("xlnet", "own", "left"),  # its class reads the last position
        ("deberta", "own", "right"),
    ],
)
def test_scores_are_those_of_the_class_alone(family, pad, side, tokenizer, tmp_path):
    pads = {"own": tokenizer.pad_token_id, "eos": tokenizer.eos_token_id, "none": None}
    path = write(tmp_path, config_of(family, tokenizer, pad_token_id=pads[pad]), tokenizer)
    reward = ModelReward(path, tokenizer, "cpu", 8192)
    assert reward.score(PROMPTS, TEXTS, []) == pytest.approx(plain_scores(path), abs=1e-5)
    assert reward.model.padding == side
    assert load_tokenizer(path).get_vocab() == tokenizer.get_vocab()


def test_a_pad_token_that_cannot_be_is_never_read(tokenizer, tmp_path):
    path = write(tmp_path, config_of("llama", tokenizer, pad_token_id=-1), tokenizer)
    assert ModelReward(path, tokenizer, "cpu", 8192).score(PROMPTS, TEXTS, []) == pytest.approx(
        plain_scores(path), abs=1e-5
    )


def pairs_tokenizer(model_max_length: int = 12) -> Any:
    """BERT's: no chat template, two texts between separators, numbered."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "say", "and"]
    found = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    found.pre_tokenizer = pre_tokenizers.Whitespace()
    marks: Any = [("[CLS]", 2), ("[SEP]", 3)]
    pair = "[CLS] $A [SEP] $B:1 [SEP]:1"
    found.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair=pair, special_tokens=marks)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=found,
        **{"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"},
        model_max_length=model_max_length,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )


def test_an_encoder_reads_a_question_and_its_answer(tmp_path):
    tokenizer = pairs_tokenizer()
    path = write(tmp_path, hf.BertConfig(**SHAPE, vocab_size=len(tokenizer), initializer_range=0.3), tokenizer)
    reward = ModelReward(path, None, "cpu", 8192)
    prompts = [(Message("user", words),) for words in ("say red and blue", "say sun", "say [SEP] one")]
    answers = ["red and blue", "moon", "one and two"]
    model = hf.BertForSequenceClassification.from_pretrained(path).eval()
    with torch.no_grad():
        expected = [
            model(**tokenizer(prompt[0].content.replace("[SEP] ", ""), answer, return_tensors="pt")).logits.item()
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
    assert reward.score(prompts, answers, []) == pytest.approx(expected, abs=1e-5)
    assert reward.encode(prompts, answers)[1] == (tokenizer("say sun")["input_ids"], tokenizer("moon")["input_ids"][1:])
    with pytest.raises(RewardError, match="have 14 of its tokens; it has 12 positions"):
        reward.score(prompts[:1], ["red " * 7], [])


def test_what_gives_no_one_score_is_refused(tokenizer, tmp_path):
    path = write(tmp_path / "three", config_of("llama", tokenizer, num_labels=3), tokenizer)
    with pytest.raises(UserError, match=r"model\.path = .*three': this classifier gives 3 scores to an answer, but"):
        score.run(recipe_of_score(path, "rows.jsonl", tmp_path))
    with pytest.raises(UserError, match="this classifier gives 3 scores to an answer"):
        ModelReward(path, None, "cpu", 8192).score(PROMPTS, TEXTS, [])  # as with code of its own, which is asked
    tokenizer = load_tokenizer(path)
    tokenizer.chat_template = None
    bare = write(tmp_path / "bare", config_of("llama", tokenizer), tokenizer)
    with pytest.raises(UserError, match="neither a chat template nor a separator token"):
        ModelReward(bare, None, "cpu", 8192)


def recipe_of_score(path: Any, data: str, folder: Path) -> Any:
    keys = {"model": {"path": path}, "data": {"path": data, "max_tokens": 64}, "output": str(folder / "scores.jsonl")}
    return build(score.Recipe, keys, "recipe")


def test_it_scores_wherever_a_reward_model_does(world, llama, tmp_path):
    """score, an ensemble with one of ours, serve_rm, a judge, the exam on rankings."""
    from starlette.testclient import TestClient

    score.run(recipe_of_score([llama, world.reward], world.rankings, tmp_path))
    row = json.loads((tmp_path / "scores.jsonl").read_text().splitlines()[0])
    prompt, answer = (Message("user", row["prompt"]),), row["responses"][0]
    [expected] = plain_scores(llama, [prompt], [answer])
    assert row["member_scores"][0][0] == pytest.approx(expected, abs=1e-5)

    recipe = build(serve_rm.Recipe, {"model": {"path": llama}}, "recipe")
    with TestClient(serve_rm.build_app(recipe)) as client:
        said = client.post("/score", json={"prompts": [row["prompt"]], "responses": [answer]}).json()
    assert said["scores"] == [pytest.approx(expected, abs=1e-5)]

    assert RewardModelJudge(llama).score([prompt], [answer])[0].score == pytest.approx(expected, abs=1e-5)
    data = sections.Data(path=world.rankings, max_tokens=64, validation=0.0)
    block = measure_accuracy(llama, data, None, 1, Cache(tmp_path / "cache"))
    rankings = load(data, "rankings", 1).train
    right = []
    for ranking in rankings:
        scores = plain_scores(llama, [ranking.prompt] * len(ranking.responses), ranking.responses)
        pairs = list(combinations(zip(ranking.ranks, scores, strict=True), 2))
        right.append(sum((a[0] < b[0]) == (a[1] > b[1]) for a, b in pairs) / len(pairs))
    assert block["accuracy"]["mean"] == pytest.approx(fmean(right))


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_critic_starts_from_its_trunk_and_head_where_it_reads_the_policys_tokens(adapter, llama, world, tmp_path):
    recipe = recipe_of(ppo, world, tmp_path / "run", reward__path=llama, model__adapter=adapter)
    roles = load_roles(recipe, load_tokenizer(world.base), accelerator("fp32"))
    assert isinstance(roles.reward, ModelReward)
    weight = load_file(Path(llama) / "model.safetensors")["score.weight"]
    assert torch.equal(roles.critic.head.weight, weight)
    ids = [[5, 6, 7], [8, 9]]
    ours = score_all(roles.critic, ids, 64, "cpu")
    assert ours == pytest.approx(roles.reward.score_tokens(ids)[0], abs=1e-5)


def test_ppo_is_rewarded_by_it_and_the_critic_starts_from_the_policy(world, other, tmp_path, capsys):
    """Its tokenizer is another one: every answer is written anew for it, and for an encoder as a pair."""
    words = pairs_tokenizer(model_max_length=64)
    encoder = write(tmp_path / "encoder", config_of("deberta", words), words)
    sources = [{"path": other, "name": "theirs"}, {"path": encoder, "weight": 0.5, "name": "encoder"}]
    changes: dict[str, Any] = {"reward__path": ..., "reward__sources": sources, "train__steps": 1}
    changes |= {"optim__learning_rate": 1e-4, "reward__missing_eos": None}  # a sum of the two alone
    [row] = metrics(run(ppo, world, tmp_path / "run", **changes))
    assert f"the critic starts from {world.base}: no reward model has its tokenizer" in capsys.readouterr().out
    assert row["objective/scores"] == pytest.approx(
        row["objective/scores/theirs"] + 0.5 * row["objective/scores/encoder"], abs=1e-5
    )
    assert load_scalar_model(sections.Model(path=str(tmp_path / "run" / "critic"))).head.weight.shape == (1, 32)
    with pytest.raises(UserError, match=r"ppo\.critic: .* has another tokenizer than the policy"):
        run(ppo, world, tmp_path / "other", reward__path=other, ppo__critic=other)


def test_rm_trains_it_further(world, llama, tmp_path):
    still = {"model__path": llama, "optim__learning_rate": 1e-9, "train__steps": 1, "normalize": "none"}
    folder = run(rm, world, tmp_path / "run", **still)
    ids = [[5, 6, 7], [8, 9]]
    before, after = (
        score_all(load_scalar_model(sections.Model(path=path)), ids, 64, "cpu")
        for path in (llama, str(folder / "model"))
    )
    assert after == pytest.approx(before, abs=1e-5)


def test_only_a_matrix_can_become_a_value_head(tokenizer, tmp_path, llama):
    assert has_linear_score(load_config(sections.Model(path=llama)))
    path = write(tmp_path, config_of("deberta", tokenizer), tokenizer)
    assert not has_linear_score(load_config(sections.Model(path=path)))
    with pytest.raises(UserError, match="its score does not come from one linear head"):
        load_scalar_model(sections.Model(path=path))


TOOLS = [{"type": "function", "function": {"name": "sun"}}]
READS_TOOLS = (
    "{{ bos_token }}{% for tool in tools or [] %}<{{ tool.function.name }}>{% endfor %}{% for m in messages %}"
    "{{ m.role }} {{ m.reasoning_content | default('') }} {{ m.content }}"
    "{% for call in m.tool_calls or [] %}<{{ call.function.name }}>{% endfor %}{% endfor %}"
)


def test_it_is_given_tools_calls_and_thoughts_as_its_template_has_them(tokenizer, tmp_path):
    asking = deepcopy(tokenizer)
    asking.chat_template = READS_TOOLS
    asking.save_pretrained(tmp_path)
    turns = (
        Message("tools", json.dumps(TOOLS)),
        Message("user", "say red"),
        Message("assistant", "", "one two", json.dumps(TOOLS), learned=False),
        Message("tool", "moon", name="sun"),
    )
    odd = "<|endoftext|>"  # is taken out, wherever and however it is written
    escaped = json.dumps(TOOLS).replace("sun", "sun" + odd.replace("<", "\\u003c"))
    written = Reader(str(tmp_path)).encode([turns], ["blue"])
    told = (turns[0]._replace(content=escaped), *turns[1:2], turns[2]._replace(thoughts="one two" + odd, calls=escaped))
    assert Reader(str(tmp_path)).encode([(*told, turns[3])], ["blue"]) == written
    ((before, after),) = Reader(str(tmp_path)).encode([turns], ["blue"])
    said = [*(turn.as_dict() for turn in turns[1:]), {"role": "assistant", "content": "blue"}]
    assert asking.decode(before + after) == asking.apply_chat_template(said, tools=TOOLS, tokenize=False)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('no system turns') }}", "the chat template refuses these messages .*no system turns"),
        (
            "{% for m in messages[1:] %}{{ m.content }}{% endfor %}",
            r"does not write all of message 1 \(system\): 'be kind'",
        ),
    ],
)
def test_what_its_template_refuses_or_leaves_out_is_told(template, told, tokenizer, tmp_path):
    asking = deepcopy(tokenizer)
    asking.chat_template = template
    asking.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: .*{told}"):
        Reader(str(tmp_path)).encode([(Message("system", "be kind"), Message("user", "say red"))], ["blue"])
