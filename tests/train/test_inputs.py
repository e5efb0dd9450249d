"""What a run stands on is compared when it goes on: data and models by their contents, under the recipe's keys."""

import json
import shutil
from pathlib import Path

import pytest
from helpers import recipe_of, run

from align import ppo, rm, sft
from align.errors import UserError
from align.text.encode import encode_prompt
from align.text.records import Message
from align.train.inputs import inputs, tokenizer_of


def interrupted(stage, world, folder: Path, **changes) -> None:
    """A run that was killed after its second checkpoint."""
    run(stage, world, folder, **changes)
    (folder / "result.json").unlink()


def changed(path: Path, old: bytes, new: bytes) -> None:
    """A file of the same length with other contents."""
    content = path.read_bytes()
    assert content.replace(old, new) != content
    path.write_bytes(content.replace(old, new))


def test_other_data_of_the_same_size_are_refused_and_the_same_ones_gone_on_with(world, tmp_path):
    data = Path(shutil.copy(world.conversations, tmp_path / "rows.jsonl"))
    folder = tmp_path / "run"
    interrupted(sft, world, folder, data__path=str(data))
    finished = json.loads((folder / "inputs.json").read_text())
    assert set(finished) == {"data.path", "model.path", "date"}
    whole = data.read_bytes()
    changed(data, b"a", b"e")
    with pytest.raises(UserError, match=r"other contents of data.path \(rows.jsonl has changed\)"):
        run(sft, world, folder, data__path=str(data), resume=True)
    data.write_bytes(whole)  # at another time
    run(sft, world, folder, data__path=str(data), resume=True)
    assert (folder / "result.json").exists()


def test_another_base_under_an_adapter_is_refused(world, tmp_path):
    base = Path(shutil.copytree(world.base, tmp_path / "base"))
    keys = {"model__path": str(base), "model__adapter": "lora"}
    interrupted(sft, world, tmp_path / "run", **keys)
    weights = base / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\x80\x3f")
    with pytest.raises(UserError, match=r"other contents of model.path \(base has changed\)"):
        run(sft, world, tmp_path / "run", resume=True, **keys)


def test_a_folder_of_before_goes_on_and_says_that_nothing_is_compared(world, tmp_path, capsys):
    interrupted(sft, world, tmp_path / "run")
    (tmp_path / "run" / "inputs.json").unlink()
    run(sft, world, tmp_path / "run", resume=True)
    assert "has no inputs.json, so its data and models are not compared" in capsys.readouterr().out
    assert (tmp_path / "run" / "inputs.json").exists()  # from now on they are


def test_every_key_that_names_data_or_a_model_counts(world, tmp_path):
    names = {
        "data__path": [{"path": world.prompts, "weight": 2.0}, world.conversations],
        "data__validation": world.prompts,
        "ptx__path": world.documents,
        "reward__path": [world.reward],
        "ppo__critic": world.gpt2,
    }
    found = inputs(recipe_of(ppo, world, tmp_path, **names))
    assert set(found) == {"model.path", "data.path", "data.validation", "ptx.path", "reward.path", "ppo.critic"}
    assert set(found["data.path"]) == {"prompts.jsonl", "conversations.jsonl"}
    assert found["data.validation"] == {"prompts.jsonl": found["data.path"]["prompts.jsonl"]}
    assert "ppo.critic" not in inputs(recipe_of(ppo, world, tmp_path, ppo__critic="trunk"))
    assert "demonstrations" in inputs(recipe_of(rm, world, tmp_path, demonstrations=world.conversations))


def test_of_a_folder_the_files_that_are_read_count(world, tmp_path):
    for name in ("train.jsonl", "test.jsonl", "notes.md"):
        shutil.copy(world.conversations, tmp_path / name)
    recipe = recipe_of(sft, world, tmp_path / "run", data__path=str(tmp_path), data__validation=0.0)
    assert set(inputs(recipe)["data.path"]) == {f"{tmp_path.name}/train.jsonl"}


def test_two_sources_whose_files_bear_one_name_both_count(world, tmp_path):
    for name, file in (("a", world.conversations), ("b", world.documents)):
        (tmp_path / name).mkdir()
        shutil.copy(file, tmp_path / name / "rows.jsonl")
    paths = [str(tmp_path / name / "rows.jsonl") for name in ("a", "b")]
    found = inputs(recipe_of(sft, world, tmp_path / "run", data__path=paths))["data.path"]
    assert len(set(found.values())) == 2


def test_a_run_that_goes_on_writes_the_date_of_its_beginning_by_the_template_that_it_had(world, tmp_path):
    template = tmp_path / "dated.jinja"
    template.write_text(
        "{{ strftime_now('%Y') }}{% for message in messages %}{{ message['content'] }}{% endfor %}"
        "{% if not add_generation_prompt %}{{ eos_token }}{% endif %}"
    )
    folder, changes = tmp_path / "run", {"data__template": str(template)}
    interrupted(sft, world, folder, **changes)
    begun = json.loads((folder / "inputs.json").read_text())
    (folder / "inputs.json").write_text(json.dumps(begun | {"date": {"date": "1999-12-31"}}))
    for resume, year in ((True, "1999"), (False, begun["date"]["date"][:4])):
        tokenizer = tokenizer_of(recipe_of(sft, world, folder, resume=resume, **changes))
        assert tokenizer.decode(encode_prompt(tokenizer, [Message("user", "a")])).replace(" ", "") == f"{year}a"
    run(sft, world, folder, resume=True, **changes)
    assert json.loads((folder / "inputs.json").read_text())["date"] == {"date": "1999-12-31"}
    (folder / "result.json").unlink()
    changed(template, b"%Y", b"%y")
    with pytest.raises(UserError, match=r"other contents of data.template \(dated.jinja has changed\)"):
        run(sft, world, folder, resume=True, **changes)
