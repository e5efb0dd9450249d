"""The command line `align`: one table, quick help, near names, completion."""

from __future__ import annotations

import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import get_args

import pytest

from align import cli, completion, pipeline
from align.commands import COMMANDS, entry, program, shown
from align.errors import UserError
from align.schema import RECIPES

HEAVY = {"torch", "transformers", "gradio", "sqlalchemy", "scipy", "matplotlib"}
OF_EXTRAS = {"lm_eval"}  # its library comes with an extra and has a help of its own


def align(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs `python -m align words`."""
    return subprocess.run([sys.executable, "-m", "align", *words], capture_output=True, text=True, cwd=cwd)


def imported_by(*words: str) -> set[str]:
    """The packages that `align words` imports."""
    code = (
        f"import sys; sys.argv = ['align', *{list(words)}]\nfrom align.cli import main\n"
        "try: main()\nexcept SystemExit as ended: assert not ended.code, ended\n"
        "print('\\n' + ' '.join({name.partition('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_align_alone_lists_every_command_in_the_order_of_the_table() -> None:
    done = align()
    assert done.returncode == 0
    assert done.stdout == align("--help").stdout
    listed = [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")]
    assert listed == [shown(name) for name in COMMANDS]
    assert max(map(len, done.stdout.splitlines())) <= 100


def test_the_pipeline_and_the_schemas_use_the_table() -> None:
    runnable = [name for name, command in COMMANDS.items() if command.run]
    assert set(get_args(pipeline.Command)) == set(runnable)
    for name in runnable:
        module, _ = RECIPES[name]
        assert callable(getattr(import_module(module), COMMANDS[name].run or ""))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in OF_EXTRAS])
def test_a_command_has_its_function_and_imports_nothing_heavy_for_its_help(name: str) -> None:
    assert callable(getattr(entry(COMMANDS[name]), COMMANDS[name].main))
    assert imported_by(shown(name), "--help") & HEAVY == set()


def test_the_list_of_commands_needs_next_to_nothing() -> None:
    assert imported_by("--help") & (HEAVY | {"pydantic", "yaml", "numpy"}) == set()


@pytest.mark.parametrize("name", ["sft", "serve_rm", "lab", "rank", "label", "compare", "overoptimization"])
def test_usage_lines_say_what_was_typed(name: str) -> None:
    assert f"usage: align {shown(name)} " in align(shown(name), "--help").stdout
    module = COMMANDS[name].module
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True)
    assert f"usage: python -m {module} " in done.stdout


def test_align_runs_the_same_as_python_m(tmp_path: Path) -> None:
    recipe = tmp_path / "sft.yaml"
    recipe.write_text("output: runs/x\nmodel: {path: nowhere}\ndata: {path: nothing.jsonl, max_tokens: 8}\n")
    told = [
        subprocess.run(
            [sys.executable, "-m", *words, str(recipe), "optim.learning_rat=1"], capture_output=True, text=True
        )
        for words in (["align", "sft"], ["align.sft"])
    ]
    assert told[0].returncode == told[1].returncode == 2
    assert told[0].stderr == told[1].stderr
    assert "did you mean optim.learning_rate" in told[0].stderr


@pytest.mark.parametrize(("typed", "near"), [("evalute", "evaluate"), ("serve", "serve-rm"), ("pre-train", "pretrain")])
def test_a_mistyped_command_suggests_the_near_one(typed: str, near: str) -> None:
    with pytest.raises(UserError, match=f"there is no command '{typed}'; did you mean `align {near}`"):
        cli.known(typed)


def test_what_is_like_no_command_points_to_the_list() -> None:
    done = align("xyzzy")
    assert done.returncode == 2
    assert done.stderr == "error: there is no command 'xyzzy'; `align --help` lists the commands\n"


def test_both_spellings_of_a_name_are_known() -> None:
    assert cli.known("serve-rm") == cli.known("serve_rm") == "serve_rm"


def test_program_is_what_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["align sft", "x.yaml"])
    assert program("align.sft") == "align sft"
    monkeypatch.setattr(sys, "argv", ["/x/align/sft.py", "x.yaml"])
    assert program("align.sft") == "python -m align.sft"


# --------------------------------------------------------------------------------------------------------- completion


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "sft.yaml").write_text("")
    (tmp_path / "rows.jsonl").write_text("")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["sf"], ["sft "]),
        (["ser"], ["serve-rm "]),
        (["sft", "rec"], ["recipes/"]),
        (["sft", "recipes/s"], ["recipes/sft.yaml "]),
        (["sft", "recipes/sft.yaml", "optim.warm"], ["optim.warmup_steps="]),
        (["sft", "recipes/sft.yaml", "train.prec"], ["train.precision="]),
        (["sft", "recipes/sft.yaml", "train.precision=b"], ["train.precision=bf16 "]),
        (["sft", "recipes/sft.yaml", "resume=t"], ["resume=true "]),
        (["sft", "recipes/sft.yaml", "data.path=ro"], ["data.path=rows.jsonl "]),
        (["sft", "recipes/sft.yaml", "seed="], []),
        (["sft", "recipes/sft.yaml", "--d"], ["--dry-run "]),
        (["demo", "se"], ["seed="]),
        (["label", "exp"], ["export "]),
        (["label", "export", "--ou"], ["--out "]),
        (["label", "import", "ro"], ["rows.jsonl "]),
        (["lab", "--over"], ["--overwrite "]),
        (["completion", "z"], ["zsh "]),
        (["nothing", ""], []),
    ],
)
def test_what_completes_a_word(folder: Path, words: list[str], expected: list[str]) -> None:
    assert completion.reply(words) == expected


def test_bash_completes(folder: Path) -> None:
    """Bash itself, with what it does before it calls a completion function: it parts words at `=`."""

    def completed(line: str) -> list[str]:
        here = shlex.quote(sys.executable)
        script = (
            f'align() {{ {here} -m align "$@"; }}; eval "$(align completion bash)"\nCOMP_LINE={shlex.quote(line)}; '
            'COMP_POINT=${#COMP_LINE}; COMP_WORDBREAKS=$\' \\t\\n"><=;|&(:\'; _align; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("\n")[
            :-1
        ]

    assert completed("align pretr") == ["pretrain "]
    assert completed("align sft recipes/sft.yaml optim.warm") == ["optim.warmup_steps="]
    assert completed("align sft recipes/sft.yaml train.precision=f") == ["fp32 "]  # bash keeps what stands before =
    assert completed("align sft recipes/sft.yaml data.path=recipes/") == ["recipes/sft.yaml "]
