import json
import os
import subprocess
import sys
from collections import Counter
from hashlib import blake2b
from random import Random

import pytest

from align.lab import world
from align.lab.__main__ import main
from align.lab.corpora import (
    FILES,
    SONGS_SHARE,
    STATEMENTS_SHARE,
    Sizes,
    demonstrations,
    song,
    statements,
    vocabulary,
    web_documents,
    write_world,
)
from align.lab.families import FAMILIES
from align.lab.people import WEB, write_answer
from align.lab.tasks import parse, sample_tasks

SMALL = Sizes(
    **{"documents": 400, "demonstrations": 60, "prompts": 50, "ppo_prompts": 50, "rm_heldout_prompts": 40},
    **{
        "heldout_prompts": 600,
        "heldout_choices": 30,
        "example_choices": 10,
        "heldout_questions": 20,
        "heldout_web": 25,
    },
)
SMALL_OPTIONS = ["--documents", "40", "--demonstrations", "9", "--prompts", "8", "--ppo-prompts", "7"]
SMALL_OPTIONS += ["--rm-heldout-prompts", "6", "--heldout-prompts", "5"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    assert write_world(out, seed=3, sizes=SMALL) == {
        "web.jsonl": 400,
        "demonstrations.jsonl": 60,
        "prompts.jsonl": 50,
        "ppo_prompts.jsonl": 50,
        "rm_heldout_prompts.jsonl": 40,
        "heldout_prompts.jsonl": 600,
        "heldout_choices.jsonl": 30,
        "example_choices.jsonl": 10,
        "heldout_questions.jsonl": 20,
        "heldout_web.jsonl": 25,
    }
    return out


def _rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _lines(text):
    return [line.strip() for line in text.split("\n")]


def _kind(text):
    """Of a web document."""
    lines = text.split("\n")
    return "facts" if len(lines) == 1 else "song" if len(set(lines)) == 1 else "question"


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_default_sizes():
    assert Sizes() == Sizes(120_000, 4_000, 3_000, 4_000, 300, 800, 600, 64, 400, 1_000)


def speaks_the_language(text):
    return all(world.kind(sentence) is not world.Kind.UNKNOWN for sentence in world.sentences(text))


def test_files_have_the_fields_they_should(small):
    assert {path.name for path in small.iterdir()} == {"README.md", *(file for file, _, _ in FILES.values())}
    for file, names, _ in FILES.values():
        assert all(list(row) == names.split(", ") for row in _rows(small / file))
    for row in _rows(small / "demonstrations.jsonl"):
        user, assistant = row["messages"]
        assert (user["role"], assistant["role"]) == ("user", "assistant")
        assert speaks_the_language(assistant["content"])


def test_training_files_hold_the_train_split_and_the_others_the_heldout_split(small):
    for file in ("prompts.jsonl", "ppo_prompts.jsonl"):
        assert {parse(row["prompt"]).split for row in _rows(small / file)} == {"train"}
    heldout = [
        [row["prompt"] for row in _rows(small / f"{name}.jsonl")] for name in ("heldout_prompts", "rm_heldout_prompts")
    ]
    prompts = heldout[0] + heldout[1]
    assert {parse(prompt).split for prompt in prompts} == {"heldout"}
    assert len(set(prompts)) == len(prompts) == 640  # all different, also across the two files
    assert {parse(prompt).family for prompt in heldout[0]} == set(FAMILIES)


def test_no_heldout_combination_is_in_any_training_text():
    for seed in (1, 2):
        asked = [_lines(text)[0] for text in web_documents(12_000, seed) if _kind(text) == "question"]
        asked += [row["messages"][0]["content"] for row in demonstrations(2000, seed)]
        assert len(asked) > 8000
        assert {parse(prompt).split for prompt in asked} == {"train"}


# Measured results rest on these files: what is added to the world must not change their bytes.
BEFORE = {
    "demonstrations.jsonl": "a1742ed8d1fb",
    "heldout_prompts.jsonl": "6f160e51d6a2",
    "ppo_prompts.jsonl": "15ad63290516",
    "prompts.jsonl": "7e347dd64da0",
    "rm_heldout_prompts.jsonl": "b1f1e481244f",
    "web.jsonl": "3ebd39768de8",
}


def test_the_files_that_results_rest_on_are_the_same_bytes(tmp_path):
    write_world(tmp_path, 1, SMALL)
    hashes = {path.name: blake2b(path.read_bytes(), digest_size=6).hexdigest() for path in tmp_path.glob("*.jsonl")}
    assert {name: hashes[name] for name in BEFORE} == BEFORE


def test_the_exams_are_held_out_and_their_web_text_is_new(small):
    for name, split in (("heldout_choices", "heldout"), ("example_choices", "train"), ("heldout_questions", "heldout")):
        assert {parse(row["question"]).split for row in _rows(small / f"{name}.jsonl")} == {split}
    trained = {row["text"] for row in _rows(small / "web.jsonl")}
    assert not trained & {row["text"] for row in _rows(small / "heldout_web.jsonl")}


def test_no_heldout_prompt_is_in_any_web_text_word_for_word(small):
    text = "\n".join(web_documents(12_000, 1))
    assert not [row["prompt"] for row in _rows(small / "heldout_prompts.jsonl") if f" {row['prompt']}\n" in text]


def test_web_text_is_answered_questions_and_true_statements_and_songs():
    facts, kinds = set(statements()), Counter()
    for text in web_documents(4000, 5):
        kind, lines = _kind(text), _lines(text)
        kinds[kind] += 1
        if kind == "question":
            question, answer = lines
            assert parse(question) is not None
            assert speaks_the_language(answer)
        elif kind == "facts":
            assert {f"{fact} ." for fact in lines[0].removesuffix(" .").split(" . ")} <= facts
    assert kinds["song"] / 4000 == pytest.approx(SONGS_SHARE, abs=0.02)
    assert kinds["facts"] / 4000 == pytest.approx(STATEMENTS_SHARE, abs=0.02)


def test_every_line_of_web_text_begins_with_one_space():
    lines = [line for text in web_documents(2000, 6) for line in text.split("\n")]
    assert all(line[0] == " " and line == f" {line.strip()}" for line in lines)


def test_only_web_text_begins_with_a_space(small):
    for file in ("demonstrations.jsonl", "prompts.jsonl", "ppo_prompts.jsonl", "heldout_prompts.jsonl"):
        for row in _rows(small / file):
            texts = [row["prompt"]] if "prompt" in row else [message["content"] for message in row["messages"]]
            assert texts == [text.strip() for text in texts]


def test_a_song_is_one_line_of_words_again_and_again():
    rng, shapes = Random(1), set()
    for _ in range(500):
        lines = song(rng).split("\n")
        assert len(set(lines)) == 1
        *words, end = lines[0].split()
        assert end == "."
        assert len(set(words)) == len(words)
        assert set(words) <= set(world.LIST_WORDS)
        shapes.add((len(words), len(lines)))
    assert shapes == {(n_words, n_times) for n_words in (2, 3, 4, 5) for n_times in (2, 3, 4)}
    assert song(Random(2)) == song(Random(2))


@pytest.mark.heavy
def test_statements_answer_every_fact_and_are_true():
    facts = set(statements())
    assert {"cat is a kind of animal .", "the cat is black .", "hot is the opposite of cold ."} <= facts
    assert {"ten comes after nine .", "five plus five is ten .", "ten minus ten is zero ."} <= facts
    forms = {
        "category": "{0} is a kind of {answer} .",
        "colour": "the {0} is {answer} .",
        "opposite": "{0} is the opposite of {answer} .",
        "next": "{answer} comes after {0} .",
        "sum": "{0} plus {1} is {answer} .",
        "difference": "{0} minus {1} is {answer} .",
    }
    assert set(forms) == {name for name, family in FAMILIES.items() if family.is_fact}
    asked = set()
    for task in [*sample_tasks("train", 60_000, 1), *sample_tasks("heldout", 6000, 1)]:
        if task.family in forms:
            asked.add(forms[task.family].format(*task.args, answer=task.answers[0]))
    assert asked == facts


def test_all_texts_are_of_the_vocabulary():
    known = vocabulary()
    assert 150 < len(known) < 200
    rng = Random(1)
    texts = list(web_documents(3000, 7))
    texts += [f"{task.prompt} {write_answer(task, WEB, rng)}" for task in sample_tasks("heldout", 1000, 7)]
    assert {word for text in texts for word in text.split()} == known  # and every word of it is used
    assert all(" ".join(world.words(text)) == " ".join(text.split()) for text in texts)  # marks stand apart


def test_texts_are_short():
    for task in sample_tasks("train", 2000, 3):
        assert 4 <= len(task.prompt.split()) <= 11
    assert max(len(text.split()) for text in web_documents(12_000, 3)) < 45


def test_the_card_tells_what_is_there(small):
    card = (small / "README.md").read_text(encoding="utf-8")
    for file, _, what in FILES.values():
        assert f"| `{file}` |" in card
        assert what in card
    assert "| 400 |" in card
    assert "--seed 3 --documents 400" in card
    assert "Apache-2.0" in card
    assert f"a few facts ({STATEMENTS_SHARE:.0%} of the" in card
    assert f"a song ({SONGS_SHARE:.0%})" in card
    assert "begins with a space" in card


# ------------------------------------------------------------------------------------------------------------ purity


@pytest.mark.heavy
def test_the_same_seed_writes_the_same_bytes_in_any_process(tmp_path):
    for hash_seed in ("0", "1"):
        command = [sys.executable, "-m", "align.lab", "--out", str(tmp_path / hash_seed), "--seed", "5", *SMALL_OPTIONS]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True)
    assert main(["--out", str(tmp_path / "here"), "--seed", "5", *SMALL_OPTIONS]) == 0
    assert _bytes(tmp_path / "0") == _bytes(tmp_path / "1") == _bytes(tmp_path / "here")


def test_another_seed_writes_another_world(tmp_path):
    write_world(tmp_path / "1", 1, SMALL)
    write_world(tmp_path / "2", 2, SMALL)
    one, two = _bytes(tmp_path / "1"), _bytes(tmp_path / "2")
    assert all(one[name] != two[name] for name in one)


def test_more_web_text_begins_with_the_same(tmp_path):
    assert list(web_documents(50, 1)) == list(web_documents(80, 1))[:50]


# ------------------------------------------------------------------------------------------------------- command line


def test_a_folder_that_holds_something_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("years of work")
    command = ["--out", str(tmp_path), *SMALL_OPTIONS]
    assert main(command) == 2
    message = capsys.readouterr().err
    assert "the folder is not empty (it has thesis.tex)" in message
    assert "--overwrite" in message
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert main([*command, "--overwrite"]) == 0
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    assert len(_rows(tmp_path / "web.jsonl")) == 40


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "deep" / "world"), *SMALL_OPTIONS]) == 0
    said = capsys.readouterr().out
    assert f"40  {tmp_path / 'deep' / 'world' / 'web.jsonl'}" in said


def test_bad_options_are_messages(tmp_path, capsys):
    assert main(["--out", str(tmp_path / "w"), "--documents", "-1"]) == 2
    assert "documents is -1" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--out", str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        main([])
    assert stopped.value.code == 2
