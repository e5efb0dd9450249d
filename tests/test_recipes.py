"""Every recipe of the project: its keys are right, its schema says what the code says, and its chain of stages runs.

What a recipe reads from the hub is given here as small stand-ins under the same names, for a local folder comes before
the hub: tiny random models of the real class with the real number of positions, and rows with the real columns.
"""

from __future__ import annotations

import json
import re
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic_core import to_jsonable_python
from tiny import WORDS, sentences, write_rows

from align.commands import shown
from align.config import Section, build, keys, parse_command, read_yaml
from align.schema import RECIPES as COMMANDS
from align.schema import main, recipe_class, schema_of, write_schemas

ROOT = Path(__file__).parents[1] / "recipes"
RECIPES = {str(path.relative_to(ROOT)): path for path in sorted(ROOT.rglob("*.yaml"))}
FIRST_LINE = re.compile(r"# yaml-language-server: \$schema=(?P<schema>\S+/(?P<command>\w+)\.json)")
each_recipe = pytest.mark.parametrize("path", RECIPES.values(), ids=RECIPES)


def command_of(path: Path) -> str:
    """The command that a recipe is for, by its first line."""
    named = FIRST_LINE.fullmatch(path.read_text(encoding="utf-8").splitlines()[0])
    assert named, f"{path}: the first line does not name a schema"
    assert (path.parent / named["schema"]).resolve() == ROOT / "schema" / f"{named['command']}.json"
    return named["command"]


# ------------------------------------------------------------------------------------------------------- every recipe


def test_there_are_recipes():
    stages = ("prepare", "pretrain", "sft", "generate", "rm", "score", "serve_rm", "ppo", "dpo")
    assert {f"{stage}.yaml" for stage in stages} <= RECIPES.keys()


@each_recipe
def test_its_keys_are_right(path):
    build(recipe_class(command_of(path)), read_yaml(path), path.name)


@each_recipe
def test_its_schema_accepts_it(path):
    schema = json.loads((ROOT / "schema" / f"{command_of(path)}.json").read_text())
    assert [error.message for error in Draft202012Validator(schema).iter_errors(read_yaml(path))] == []


@each_recipe
def test_its_first_comment_says_what_it_is_and_gives_the_command(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = list(takewhile(lambda line: line.startswith("#"), lines))
    assert len(comment) >= 2
    command = command_of(path)
    runs_itself = f"align {shown(command)} recipes/{path.relative_to(ROOT)}"
    by_hand = {"lab": "align lab ", "rank": "align rank "}
    by_hand["label"] = f"align label serve recipes/{path.relative_to(ROOT)}"
    assert by_hand.get(command, runs_itself) in "\n".join(comment)


@each_recipe
def test_it_reads_and_writes_inside_the_project(path):
    strings = re.findall(r"[^\s\[\]{},]+", path.read_text(encoding="utf-8").split("\n", 1)[1])
    assert [word for word in strings if word.startswith(("/", "..", "~"))] == []
    written = {"serve_rm": None, "compare": None, "label": "database"}.get(command_of(path), "output")  # None: nothing
    if written:
        assert read_yaml(path)[written].startswith("runs/")


@each_recipe
def test_its_lines_are_short(path):
    assert [line for line in path.read_text(encoding="utf-8").splitlines() if len(line) > 130] == []


def test_the_page_about_the_recipes_names_each():
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    outside_folders = {name for name in RECIPES if "/" not in name}
    folders = {name.split("/")[0] + "/" for name in RECIPES if "/" in name}
    assert [name for name in outside_folders | folders if f"`{name}`" not in page] == []


# ------------------------------------------------------------------------------------------------------------ schemas


def test_the_schemas_are_those_of_the_code(tmp_path):
    fresh = {path.name: path.read_text() for path in write_schemas(tmp_path)}
    committed = {path.name: path.read_text() for path in (ROOT / "schema").glob("*.json")}
    assert committed.keys() == fresh.keys(), "run python -m align.schema"
    assert [name for name in fresh if committed[name] != fresh[name]] == [], "run python -m align.schema"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_schema_is_well_formed(command):
    Draft202012Validator.check_schema(schema_of(command))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_schema_shows_the_stage_s_own_defaults_and_meanings(command):
    schema = schema_of(command)
    for key, field, default in keys(recipe_class(command)):
        shown = found(schema, key)
        assert shown.get("description") == field.description, key
        if "default" in shown:
            assert shown["default"] == to_jsonable_python(default), key
        else:
            assert field.is_required() or field.default_factory is not None, key


def found(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """What a schema says of a dotted key."""
    definitions = schema.get("$defs", {})
    for part in key.split("."):
        if "anyOf" in schema:  # a section that may be left out
            schema = definitions[schema["anyOf"][0]["$ref"].rsplit("/", 1)[-1]]
        schema = schema["properties"][part]
    return schema


def test_defaults_of_shared_sections_differ_by_stage():
    shown = {stage: schema_of(stage) for stage in ("sft", "rm", "ppo")}
    assert [found(schema, "optim.learning_rate")["default"] for schema in shown.values()] == [9.65e-6, 9e-6, 3e-6]
    assert [found(schema, "data.too_long")["default"] for schema in shown.values()] == ["truncate", "drop", "drop"]
    assert [found(schema, "train.log_every")["default"] for schema in shown.values()] == [10, 10, 1]


def test_only_what_has_no_default_is_required():
    schema = schema_of("ppo")
    assert schema["required"] == ["output", "model", "data", "reward"]
    assert schema["properties"]["data"]["required"] == ["path"]
    assert "required" not in schema["properties"]["optim"]
    assert schema_of("rank")["required"] == ["answers", "output"]


MINIMAL: dict[str, Any] = {"model": {"path": "m"}, "data": {"path": "d"}, "output": "o", "train": {"steps": 1}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"optim": {"learning_rate": 1e-3, "betas": [0.9, 0.99]}}, None),
        ({"data": {"path": ["a", {"path": "b", "weight": 2}]}}, None),
        ({"optim": {"learning_rte": 1e-3}}, "'learning_rte' was unexpected"),
        ({"optim": {"schedule": "cosin"}}, "'cosin' is not one of"),
        ({"optim": {"batch_size": 0}}, "0 is less than or equal to the minimum of 0"),
        ({"data": {"max_tokens": 8}}, "'path' is a required property"),
        ({"data": {"path": [{"path": "b", "wieght": 2}]}}, "is not valid under any of the given schemas"),
    ],
)
def test_a_schema_marks_what_the_command_refuses(change, told):
    given = MINIMAL | change
    errors = [error.message for error in Draft202012Validator(schema_of("sft")).iter_errors(given)]
    assert bool(errors) == (told is not None)
    assert told is None or told in errors[0]


def test_the_schema_command_writes_where_it_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["schema", str(tmp_path / "new" / "folder")])
    main()
    written = sorted(path.stem for path in (tmp_path / "new" / "folder").iterdir())
    assert written == sorted(COMMANDS)
    assert capsys.readouterr().out.count("wrote ") == len(COMMANDS)


# ------------------------------------------------------------------------------------------- the chains, on stand-ins

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

# One step of few rows and short answers; with a recipe's own number of passes, a test would take as long as the run.
SHORT = ["train.epochs=null", "train.steps=1", "train.micro_batch_tokens=1024", "optim.batch_size=8"]
SHORT_PPO = ["rollout.max_tokens=4"]
LAB = [
    "--documents",
    "300",
    "--demonstrations",
    "20",
    "--prompts",
    "12",
    "--ppo-prompts",
    "12",
    "--heldout-prompts",
    "8",
]


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder to run in, so that the relative paths of recipes are in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain_tokenizer(special: list[str]) -> Any:
    """Byte-level BPE as the hub's models have it: EOS, no pad token, and no chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=["<|endoftext|>", *special], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(sentences(40), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|endoftext|>")


def gpt2(folder: Path) -> None:
    """openai-community/gpt2: 1024 learned positions."""
    from transformers import GPT2Config, GPT2LMHeadModel

    tokenizer = plain_tokenizer([])
    shape = {"n_positions": 1024, "n_embd": 32, "n_layer": 2, "n_head": 2}
    save(GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), eos_token_id=0, bos_token_id=0, **shape)), folder)
    tokenizer.save_pretrained(folder)


def pythia(folder: Path) -> None:
    """EleutherAI/pythia-1b-deduped: 2048 positions, more rows in the embedding than tokens."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    tokenizer = plain_tokenizer([])
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {"vocab_size": len(tokenizer) + 28, "eos_token_id": 0, "bos_token_id": 0}
    save(GPTNeoXForCausalLM(GPTNeoXConfig(max_position_embeddings=2048, **ids, **shape)), folder)
    tokenizer.save_pretrained(folder)


def qwen(folder: Path) -> None:
    """Qwen/Qwen2.5-0.5B: 32768 positions, a chat template, and a pad token that is EOS."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    tokenizer = plain_tokenizer(["<|im_start|>", "<|im_end|>"])
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.chat_template = CHATML
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_hidden_layers": 2}
    shape = {"hidden_size": 64, "intermediate_size": 128, "max_position_embeddings": 32768, "tie_word_embeddings": True}
    ids = {"vocab_size": len(tokenizer) + 28, "eos_token_id": 0, "bos_token_id": 0}
    save(Qwen2ForCausalLM(Qwen2Config(**ids, **heads, **shape)), folder)
    tokenizer.save_pretrained(folder)


def save(model: Any, folder: Path) -> None:
    folder.mkdir(parents=True)
    model.save_pretrained(folder)


def says(number: int, n_words: int = 6) -> str:
    """Some words; others for another number."""
    return " ".join(WORDS[(number * 5 + place * (number % 3 + 1)) % len(WORDS)] for place in range(n_words))


def hh_rows(n: int) -> list[dict[str, str]]:
    shared = [f"\n\nHuman: say {says(i)}\n\nAssistant: {says(i + 1)}\n\nHuman: and {i}\n\nAssistant:" for i in range(n)]
    return [{"chosen": f"{p} {says(i)}", "rejected": f"{p} {says(i + 2)} no"} for i, p in enumerate(shared)]


def tldr_prompt(number: int) -> str:
    return f"SUBREDDIT: r/{WORDS[number % 14]}\n\nTITLE: {says(number)}\n\nPOST: {says(number, 30)} {number}\n\nTL;DR:"


def alpaca_rows(n: int) -> list[dict[str, str]]:
    return [{"instruction": f"say {says(i)}", "input": str(i) * (i % 2), "output": says(i + 1)} for i in range(n)]


def hub(folder: Path) -> None:
    """The hub's data sets, with their columns and under the names that recipes give them."""
    tldr = [{"prompt": tldr_prompt(i), "completion": f" {says(i)}"} for i in range(16)]
    pairs = [{"prompt": tldr_prompt(i), "chosen": f" {says(i)}", "rejected": f" {says(i + 1)}"} for i in range(16)]
    alpaca = [row | {"text": f"Below is an instruction. {row['output']}"} for row in alpaca_rows(16)]
    for name, rows in {
        "Anthropic/hh-rlhf/train": hh_rows(16),
        "Anthropic/hh-rlhf@test/test": hh_rows(20)[16:],
        "trl-lib/tldr/train": tldr,
        "trl-lib/tldr@validation/validation": tldr[:2],
        "trl-lib/tldr-preference/train": pairs,
        "tatsu-lab/alpaca/train": alpaca,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_rows(folder / f"{name}.jsonl", rows)
    gpt2(folder / "openai-community/gpt2")
    pythia(folder / "EleutherAI/pythia-1b-deduped")
    qwen(folder / "Qwen/Qwen2.5-0.5B")


def published_files(folder: Path) -> None:
    """Files named and laid out as those that recipes/real-small reads."""
    import gzip

    (folder / "data").mkdir()
    articles = [f" = {says(i, 2)} = \n \n" + " \n".join(f" {says(i + j, 12)} ." for j in range(20)) for i in range(30)]
    with gzip.open(folder / "data/wikitext2-valid.txt.gz", "wt", encoding="utf-8") as file:
        file.write(" \n" + " \n \n".join(articles))
    (folder / "data/alpaca-en.json").write_text(json.dumps(alpaca_rows(40)), encoding="utf-8")
    with gzip.open(folder / "data/hh-harmless-base.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in hh_rows(20))


def run_recipe(name: str, capsys: pytest.CaptureFixture[str]) -> Section:
    """A dry run of a recipe, which must leave nothing behind, and then one step of it. Returns the recipe."""
    command = command_of(ROOT / name)
    module = __import__(f"align.{command}", fromlist=[command])
    trains = command in ("pretrain", "sft", "rm", "ppo", "dpo")
    words = [*SHORT * trains, *SHORT_PPO * (command == "ppo")]
    recipe, _ = parse_command(module.Recipe, command, [str(ROOT / name), *words])
    whole = build(module.Recipe, read_yaml(ROOT / name), name)
    capsys.readouterr()
    module.run(whole, dry_run=True)
    told = capsys.readouterr().out
    assert ("estimated memory:" in told) == trains
    assert not Path(whole.output).exists()
    module.run(recipe)
    assert Path(recipe.output).exists()
    return recipe


@pytest.mark.heavy
@pytest.mark.parametrize(
    "folder", ["gpt2-hh", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tldr", "qwen-alpaca", "qwen-hh"))]
)
def test_the_recipes_for_the_hub_run_one_after_the_other(folder, elsewhere, capsys):
    hub(elsewhere)
    stages = [stage for stage in ("sft", "rm", "ppo") if f"{folder}/{stage}.yaml" in RECIPES]
    for stage in stages:
        run_recipe(f"{folder}/{stage}.yaml", capsys)
        assert (elsewhere / "runs" / folder / stage / "model" / "config.json").is_file()
    assert stages[0] == "sft"


def test_a_4_bit_base_still_has_gradients_after_a_validation(tmp_path):
    """On some CPUs bitsandbytes repacks weights in a forward without gradients, for a kernel that has no backward."""
    import torch

    from align import sections
    from align.models.load import load_causal_lm

    qwen(tmp_path / "qwen")
    settings = sections.Model(path=str(tmp_path / "qwen"), adapter="lora", quantization="4bit")
    model = load_causal_lm(settings, torch.bfloat16)
    ids = torch.arange(20).reshape(2, 10)
    before = gradients(model, ids)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    assert gradients(model, ids) == before
    assert sum(norm > 0 for norm in before.values()) == 2 * 7  # B of every projection of two layers; A's wait for B


def gradients(model: Any, ids: Any) -> dict[str, float]:
    """The norm of each trained weight's gradient."""
    model.zero_grad()
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    return {name: float(weight.grad.norm()) for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.mark.slow
def test_the_recipes_for_real_text_run_one_after_the_other(elsewhere, capsys):
    published_files(elsewhere)
    for stage in ("pretrain", "sft", "rm", "ppo"):
        recipe = run_recipe(f"real-small/{stage}.yaml", capsys)
        assert (Path(recipe.output) / "model" / "config.json").is_file()


def rank_somehow(answers, rankings):
    """An untrained model's answers are all worth the same, so the lab's annotators would have nothing to order."""
    rows = [json.loads(line) for line in Path(answers).read_text().splitlines()]
    ranked = [{**row, "ranks": list(range(1, len(row["responses"]) + 1))} for row in rows]
    Path(rankings).write_text("\n".join(json.dumps(row) for row in ranked))


@pytest.mark.slow
def test_the_general_recipes_run_one_after_the_other(elsewhere, capsys, monkeypatch):
    from align.lab.__main__ import main as write_lab
    from align.prepare import main as prepare

    write_lab(["--out", "data/lab", *LAB])
    monkeypatch.setattr("sys.argv", ["prepare", str(ROOT / "prepare.yaml"), "tokenizer.vocab_size=400"])
    prepare()
    for stage in ("pretrain", "sft", "generate", "rm", "score", "ppo", "dpo", "evaluate"):
        if stage == "rm":
            rank_somehow("runs/answers.jsonl", "runs/rankings.jsonl")
        run_recipe(f"{stage}.yaml", capsys)
    assert (elsewhere / "runs/evaluation/report.html").is_file()


def test_recipes_are_yaml_that_every_reader_understands_alike():
    """`1e-5` is a string to YAML 1.1, which Python reads, and a number to YAML 1.2, which editors read."""
    strings = [
        f"{name}: {value}" for name, path in RECIPES.items() for value in leaves(yaml.safe_load(path.read_text()))
    ]
    assert [text for text in strings if re.search(r": [-+]?\d[\d.]*[eE][-+]?\d+$", text)] == []


def leaves(tree: Any) -> list[Any]:
    """The strings in a tree of mappings and lists."""
    below = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else []
    return [tree] if isinstance(tree, str) else [leaf for item in below for leaf in leaves(item)]
