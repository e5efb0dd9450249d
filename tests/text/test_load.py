"""A data section as records: sources and weights, what is held out, what is counted and what is refused."""

from __future__ import annotations

import subprocess
import sys

import pytest

from align.errors import UserError
from align.sections import Data, Source
from align.text.load import load, prompt_text


def qa(n: int, name: str = "q") -> list[dict[str, str]]:
    return [{"question": f"{name}{i}", "answer": f"a{i}"} for i in range(n)]


def data(path, **keys) -> Data:
    return Data(path=path, **({"validation": 0} | keys))


def asked(records) -> list[str]:
    return [record.messages[0].content for record in records]


def test_records_stand_in_the_order_of_the_file(write):
    path = write("a.jsonl", qa(5))
    loaded = load(data(path), "conversations", 1)
    assert asked(loaded.train) == ["q0", "q1", "q2", "q3", "q4"]
    assert loaded.validation == []
    assert loaded.train[4].source == f"{path}:5"
    assert loaded.report.lines() == [
        f"{path}: 5 of 5 rows, format question_answer",
        "5 conversations, none held out for validation",
    ]


def test_a_folder_of_several_file_formats(write, tmp_path):
    write("set/a.csv", "question,answer\nq0,a0\n")
    write("set/b.parquet", qa(2))
    write("set/c.json", {"data": qa(1)})
    assert len(load(data(str(tmp_path / "set")), "prompts", 1).train) == 4


class TestWeights:
    """A weight is how often a source is passed over in one epoch."""

    def sources(self, write, weight):
        return [write("a.jsonl", qa(4, "x")), Source(path=write("b.jsonl", qa(8)), weight=weight)]

    def test_whole_passes_and_a_random_part(self, write):
        records = asked(load(data(self.sources(write, 2.5)), "prompts", 1).train)
        assert records[:4] == ["x0", "x1", "x2", "x3"]
        assert records[4:20] == [f"q{i}" for i in range(8)] * 2
        part = records[20:]
        assert len(set(part)) == len(part) == 4
        assert part == sorted(part)

    def test_a_half_hangs_on_the_seed_alone(self, write):
        halves = [asked(load(data(self.sources(write, 0.5)), "prompts", seed).train)[4:] for seed in (1, 1, 2, 3, 4)]
        assert [len(half) for half in halves] == [4] * 5
        assert halves[0] == halves[1]
        assert len({tuple(half) for half in halves}) > 2

    def test_a_small_weight_takes_one_row_at_least(self, write):
        assert len(load(data(self.sources(write, 0.001)), "prompts", 1).train) == 5

    def test_validation_rows_are_never_repeated(self, write):
        loaded = load(data(self.sources(write, 3), validation=0.5), "prompts", 1)
        assert len(set(asked(loaded.validation))) == len(loaded.validation)
        assert not set(asked(loaded.validation)) & set(asked(loaded.train))
        assert len(loaded.train) > 12 - len(loaded.validation)


class TestLimit:
    def test_the_first_rows_are_taken_and_the_rest_not_even_read(self, write):
        path = write("a.jsonl", '{"prompt": "a"}\n{"prompt": "b"}\nbroken\n')
        assert asked(load(data(path, limit=2), "prompts", 1).train) == ["a", "b"]
        with pytest.raises(UserError, match=":3: not valid JSON"):
            load(data(path, limit=3), "prompts", 1)

    def test_sources_share_it_by_their_weights(self, write):
        sources = [write("a.jsonl", qa(9, "x")), Source(path=write("b.jsonl", qa(9)), weight=2)]
        assert sorted(set(asked(load(data(sources, limit=6), "prompts", 1).train))) == [
            "q0",
            "q1",
            "q2",
            "q3",
            "x0",
            "x1",
        ]

    def test_it_counts_what_is_held_out_too(self, write):
        loaded = load(data(write("a.jsonl", qa(50)), limit=10, validation=0.2), "prompts", 1)
        assert len(loaded.train) + len(loaded.validation) == 10


class TestValidation:
    """Rows with one prompt are on one side; which side hangs on the prompt, the seed and the fraction."""

    def test_by_prompt(self, write):
        rows = [{"prompt": f"p{i % 20}", "chosen": f"a{i}", "rejected": f"b{i}"} for i in range(100)]
        loaded = load(data(write("a.jsonl", rows), validation=0.2), "rankings", 1)
        train, held = ({ranking.prompt for ranking in side} for side in (loaded.train, loaded.validation))
        assert not train & held
        assert len(loaded.train) == 5 * len(train)
        assert len(loaded.validation) == 5 * len(held)
        assert len(held) >= 4
        assert loaded.report.n_shared_prompts == 0

    def test_the_same_seed_gives_the_same_and_another_another(self, write):
        path = write("a.jsonl", qa(40))
        held = [asked(load(data(path, validation=0.2), "prompts", seed).validation) for seed in (1, 1, 2, 3)]
        assert held[0] == held[1]
        assert len({tuple(side) for side in held}) > 1

    def test_the_share_is_at_least_the_fraction(self, write):
        for seed in range(5):
            loaded = load(data(write("a.jsonl", qa(100)), validation=0.1), "prompts", seed)
            assert 10 <= len(loaded.validation) <= 25

    def test_a_prompt_is_held_out_in_whatever_company(self, write):
        whole = set(asked(load(data(write("a.jsonl", qa(400)), validation=0.1), "prompts", 1).validation))
        part = set(asked(load(data(write("b.jsonl", qa(400)[::2]), validation=0.1), "prompts", 1).validation))
        assert len(part & whole) >= 0.8 * len(part)
        assert len(part) >= 20

    def test_one_at_least_on_either_side(self, write):
        path = write("a.jsonl", qa(2))
        for fraction in (0.001, 0.999):
            loaded = load(data(path, validation=fraction), "prompts", 1)
            assert (len(loaded.train), len(loaded.validation)) == (1, 1)

    def test_one_prompt_cannot_be_parted(self, write):
        path = write("a.jsonl", [{"prompt": "p", "chosen": c, "rejected": "x"} for c in "ab"])
        with pytest.raises(UserError, match=r"data.validation=0.05: .* 2 rows with one prompt; .*data.validation=0"):
            load(data(path, validation=0.05), "rankings", 1)
        assert len(load(data(path), "rankings", 1).train) == 2

    def test_a_path_of_its_own(self, write):
        train, held = write("a.jsonl", qa(5)), write("b.csv", "question,answer\nq1,a\nnew,b\n")
        loaded = load(data(train, validation=held), "conversations", 1)
        assert asked(loaded.validation) == ["q1", "new"]
        assert len(loaded.train) == 5
        assert loaded.report.n_shared_prompts == 1
        assert "warning: 1 validation rows have a prompt that is also in training" in loaded.report.lines()

    def test_the_same_folder_gives_its_validation_split(self, write, tmp_path):
        write("set/train.jsonl", qa(3))
        write("set/valid.jsonl", qa(2, "v"))
        folder = str(tmp_path / "set")
        loaded = load(data(folder, validation=folder), "prompts", 1)
        assert (asked(loaded.train), asked(loaded.validation)) == (["q0", "q1", "q2"], ["v0", "v1"])

    def test_documents_are_held_out_by_their_text(self, write):
        loaded = load(data(write("a.txt", "<|endoftext|>".join("ababcd")), validation=0.4), "documents", 1)
        assert not {document.text for document in loaded.train} & {document.text for document in loaded.validation}
        assert len(loaded.train) + len(loaded.validation) == 6


def test_broken_rows_stop_or_are_skipped_and_listed(write):
    rows = '{"question": "q", "answer": "a"}\n{"question": "q", "answer": ""}\nnonsense\n'
    path = write("a.jsonl", rows)
    with pytest.raises(UserError, match=r"a.jsonl:2: answer is empty \(format question_answer\); .*data.on_error=skip"):
        load(data(path), "conversations", 1)
    report = load(data(path, on_error="skip"), "conversations", 1).report
    assert report.lines() == [
        f"{path}: 1 of 3 rows, format question_answer",
        "  2 broken rows skipped",
        f"  {path}:2: answer is empty (format question_answer)",
        f"  {path}:3: not valid JSON (Expecting value at character 1)",
        "1 conversations, none held out for validation",
    ]


def test_rows_left_out_by_a_rule_are_counted_and_stop_nothing(write):
    hh = "\n\nHuman: a\n\nAssistant: "
    rows = [{"chosen": hh + "b", "rejected": hh + "c"}, {"chosen": hh + "b", "rejected": hh}]
    rows.append({"chosen": hh + "b\n\nHuman: c", "rejected": hh + "c"})
    path = write("a.jsonl", rows)
    assert load(data(path), "rankings", 1).report.lines() == [
        f"{path}: 2 of 3 rows, format hh",
        "  1 left out: a message of the transcript is empty",
        "  1 rows: messages after the last answer were left out",
        "2 rankings, none held out for validation",
    ]


def test_a_row_that_glues_documents_is_cut_and_counted(write, tmp_path):
    write("set/a.jsonl", [{"text": "One.<|endoftext|>Two."}, {"text": "Three."}, {"text": "Four."}])
    write("set/LICENSE.txt", "Permission is hereby granted\n")
    loaded = load(data(str(tmp_path / "set")), "documents", 1)
    assert [record.text for record in loaded.train] == ["One.", "Two.", "Three.", "Four."]
    assert loaded.report.lines()[:3] == [
        f"{tmp_path}/set: 4 of 3 rows, format text",
        "  1 rows: the text has <|endoftext|> in it: split there into documents",
        f"files that are not data: {tmp_path}/set/LICENSE.txt",
    ]
    assert len(load(data(str(tmp_path / "set"), limit=1), "documents", 1).train) == 1


def test_each_source_has_its_format_and_its_weight_in_the_report(write):
    sources = [write("a.jsonl", qa(1)), Source(path=write("b.jsonl", [{"prompt": "p"}]), weight=2.5, format="prompt")]
    lines = load(data(sources), "prompts", 1).report.lines()
    assert lines[0].endswith("a.jsonl: 1 of 1 rows, format question_answer")
    assert lines[1].endswith("b.jsonl: 1 of 1 rows, format prompt, weight 2.5")


def test_columns_are_mapped(write):
    path = write("a.csv", "query,reply\nq,a\n")
    loaded = load(data(path, columns={"prompt": "query", "completion": "reply"}), "conversations", 1)
    assert [turn.content for turn in loaded.train[0].messages] == ["q", "a"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.txt", "a.json"])
def test_an_empty_data_set(write, name):
    path = write(name, "[]" if name == "a.json" else "")
    with pytest.raises(UserError, match=f"{name}: this data set has no rows"):
        load(data(path), "documents", 1)


def test_nothing_left_says_how_many_rows_and_why(write):
    path = write("a.jsonl", '{"prompt": ""}\n{"prompt": 3}\n')
    with pytest.raises(UserError) as caught:
        load(data(path, on_error="skip"), "prompts", 1)
    assert str(caught.value).splitlines() == [
        "no row can be used",
        f"{path}: 0 of 2 rows, format prompt",
        "  2 broken rows skipped",
        f"  {path}:1: prompt is empty (format prompt)",
        f"  {path}:2: prompt must be a string or a list of messages, found 3 (format prompt)",
    ]
    with pytest.raises(UserError, match=r"no row can be used\n.*0 of 2 rows, format auto"):
        load(data(write("b.jsonl", "x\ny\n"), on_error="skip"), "prompts", 1)


@pytest.mark.parametrize(
    ("keys", "kind", "said"),
    [
        ({"path": "none/at/all.jsonl"}, "prompts", "no such file or folder"),
        ({"path": []}, "prompts", "data.path is an empty list"),
        ({}, "rankings", "a.jsonl:1: the format question_answer has no rankings"),
        (
            {"columns": {"prompt": "ask"}},
            "prompts",
            "data.columns maps prompt to ask, but the file's columns are question, answer",
        ),
        ({"columns": {"x": "question"}}, "prompts", "a.jsonl:1: no format has the columns answer, x"),
        ({"format": "messages"}, "prompts", "a.jsonl:1: no column 'messages'; the columns are question, answer"),
    ],
)
def test_refused(write, keys, kind, said):
    path = write("a.jsonl", qa(2))
    with pytest.raises(UserError, match=said):
        load(data(**{"path": path, **keys}), kind, 1)


def test_what_a_record_is_held_out_by(write):
    path = write("a.jsonl", [{"messages": [{"role": r, "content": c} for r, c in (("user", "a"), ("assistant", "b"))]}])
    texts = {
        kind: prompt_text(load(data(path), kind, 1).train[0]) for kind in ("conversations", "prompts", "documents")
    }
    assert texts == {"conversations": "user: a", "prompts": "user: a", "documents": "a\n\nb"}


@pytest.mark.heavy
def test_heavy_libraries_wait_until_they_are_needed():
    modules = "load, encode, tokenizer, chat, formats, readers"
    heavy = "{'torch', 'transformers', 'datasets', 'pyarrow', 'jinja2', 'tokenizers'}"
    code = f"import sys; from align.text import {modules}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
