"""The notebooks: as they are committed, and run anew with small sizes, two of them on what the first has made."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from align.config import build, merged, read_recipe, read_yaml
from align.errors import UserError
from align.pipeline import Recipe, run
from align.report import notebook
from align.report.verdict import verdict

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LOGIC = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda, ast.While, ast.For, ast.If, ast.Try, ast.With)
MAX_BYTES = 500_000


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def texts_of(cell: Any) -> str:
    """All that a cell shows, as text."""
    parts = [output.get("text", "") for output in cell.outputs]
    parts += [str(value) for output in cell.outputs for value in output.get("data", {}).values()]
    return "\n".join(parts)


def executed(path: Path) -> Any:
    """The notebook run from its own folder, as a person would open it."""
    found = read(path)
    NotebookClient(
        found, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
    ).execute()
    return found


# -- as they are committed --------------------------------------------------------------------------------------------


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["base-vs-aligned", "lesson-overoptimisation", "the-pipeline"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_calls_the_library_and_holds_no_logic(path: Path) -> None:
    for cell in code_cells(path):
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, LOGIC), f"{type(node).__name__} in a cell:\n{cell.source}"
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in modules if name.split(".")[0] == "torch"], cell.source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_from_top_to_bottom_and_shows_its_outputs(path: Path) -> None:
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert "error" not in [output.output_type for output in outputs]
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    assert verdict.__name__ in cells[-1].source
    assert re.search(r"\d\.\d\d", texts_of(cells[-1]))  # the conclusion has its numbers


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_small_and_names_no_place_of_one_machine(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < MAX_BYTES
    assert re.findall(r"/(?:home|root|tmp|work|Users|usr|var|mnt)/[^\"\s]*", text) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_links_lead_somewhere(path: Path) -> None:
    for cell in read(path).cells:
        for target in re.findall(r"\]\(([^)#]+)\)", cell.source if cell.cell_type == "markdown" else ""):
            assert "://" in target or (path.parent / target).exists(), target


# -- run anew ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Path]]:
    """the-pipeline.ipynb run at a twentieth of its sizes, and the folder that it wrote: a demo like any other."""
    folder = tmp_path_factory.mktemp("notebook") / "pipeline"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALIGN_OUT", str(folder))
        patch.setenv("ALIGN_SCALE", "0.05")
        patch.setenv("OMP_NUM_THREADS", "1")
        yield executed(ROOT / "notebooks" / "the-pipeline.ipynb"), folder


@pytest.mark.slow
def test_the_pipeline_runs(small: tuple[Any, Path]) -> None:
    found, folder = small
    done = json.loads((folder / "pipeline.json").read_text())["stages"]
    assert done.keys() == read_yaml(ROOT / "recipes" / "demo.yaml")["stages"].keys()
    assert verdict(notebook.read_report(str(folder))) in texts_of(found.cells[-2])


@pytest.mark.slow
def test_base_vs_aligned_runs_on_any_finished_demo(
    small: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, demo = small
    monkeypatch.setenv("ALIGN_DEMO", str(demo))
    monkeypatch.setenv("ALIGN_OUT", str(tmp_path))
    found = executed(ROOT / "notebooks" / "base-vs-aligned.ipynb")
    report = notebook.read_report(str(tmp_path))
    assert report["models"] == notebook.read_report(str(demo))["models"]  # the same prompts, seed and models
    assert verdict(report) in "".join(texts_of(cell) for cell in found.cells[-3:] if cell.cell_type == "code")


@pytest.mark.slow
def test_the_lesson_runs_on_any_finished_demo(
    small: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, demo = small
    monkeypatch.setenv("ALIGN_DEMO", str(demo))
    monkeypatch.setenv("ALIGN_OUT", str(tmp_path / "lesson"))
    monkeypatch.setenv("ALIGN_SCALE", "0.1")
    found = executed(ROOT / "notebooks" / "lesson-overoptimisation.ipynb")
    report = notebook.read_report(str(tmp_path / "lesson" / "evaluation"))
    assert report["models"].keys() == {"sft", "ppo_free", "ppo_held"}
    assert verdict(report) in texts_of(found.cells[-1])


def test_the_lesson_shows_over_optimisation() -> None:
    """As it is committed: the policy without a leash has more reward than the held one, and is worth less than SFT."""
    told = texts_of(code_cells(ROOT / "notebooks" / "lesson-overoptimisation.ipynb")[-1])
    assert "ppo_free is worse than SFT" in told
    assert "ppo_held is better than SFT" in told


def test_a_mistake_is_told_in_words_and_without_a_traceback() -> None:
    cell = nbformat.v4.new_code_cell("from align.report import notebook\nnotebook.demo('nowhere')")
    found = nbformat.v4.new_notebook(cells=[cell])
    with pytest.raises(CellExecutionError):
        NotebookClient(found, timeout=60, kernel_name="python3").execute()
    (output,) = found.cells[0].outputs
    assert output.traceback == [
        "error: nowhere/base/model does not exist; run `make demo` in the project's folder first, which takes some "
        "minutes, or set ALIGN_DEMO to the folder of another finished demo"
    ]


# -- what they call ---------------------------------------------------------------------------------------------------


def test_the_project_is_found_from_any_folder_inside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT / "tests" / "rl")
    notebook.begin()
    assert Path.cwd() == ROOT
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no recipes/demo\.yaml here or in a parent folder"):
        notebook.begin()


def test_a_pipeline_runs_some_of_its_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = {"documents": 20, "demonstrations": 5, "prompts": 5, "ppo_prompts": 5, "heldout_prompts": 5}
    changes = {"output": str(tmp_path / "out"), "stages": {"world": {"set": sizes}}}
    recipe = build(Recipe, merged(read_yaml(ROOT / "recipes" / "demo.yaml"), changes), "demo.yaml")
    run(recipe, ROOT / "recipes", only=["world"])
    assert list(json.loads((tmp_path / "out" / "pipeline.json").read_text())["stages"]) == ["world"]
    again = read_recipe(Recipe, tmp_path / "out" / "recipe.yaml")  # the command in the report runs this copy
    run(again, tmp_path / "out", only=["world"])
    assert "world: done before" in capsys.readouterr().out
    with pytest.raises(UserError, match="there is no stage word; the stages are world, pretrain"):
        run(recipe, ROOT / "recipes", only=["word"])
