"""Starts a folder of your own: recipes of all stages, prompt templates, a labelling project, a README.

    align init DIR

Files that exist are kept as they are. The recipes read the files that `align lab --out data/lab` writes; point them at
your own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from align.errors import UserError, check_place, exit_on_user_error
from align.shipped import shipped

STAGES = ("prepare", "pretrain", "sft", "generate", "rm", "score", "serve_rm", "ppo", "dpo", "evaluate")

README = """\
# Written by `align init`

Run all commands in this folder. `align COMMAND --help` lists every key of a recipe; `key=value` after a recipe changes
one; `--dry-run` checks recipe, data, model and memory, and trains nothing.

## Try it on the lab's data
The lab is a small world whose true reward is known. Everything runs on a CPU, offline.

    align lab --out data/lab
    align prepare recipes/prepare.yaml
    align pretrain recipes/pretrain.yaml
    align sft recipes/sft.yaml
    align generate recipes/generate.yaml
    align rank runs/answers.jsonl --out runs/rankings.jsonl
    align rm recipes/rm.yaml
    align score recipes/score.yaml
    align ppo recipes/ppo.yaml
    align dpo recipes/dpo.yaml
    align evaluate recipes/evaluate.yaml

The report is `runs/evaluation/report.html`.

## Use your own model and data
Start from any causal language model of the Hugging Face hub or from a folder, and skip `prepare` and `pretrain`:

    align sft recipes/sft.yaml model.path=Qwen/Qwen2.5-0.5B model.adapter=lora data.path=my.jsonl data.max_tokens=1024

`data.path` takes JSONL, JSON, CSV or Parquet files, folders and hub names. The learning rates in `recipes/` are for
models of a million parameters; each comment names a published value for a larger one. In `recipes/evaluate.yaml`
remove `judge` and `perfect`: they belong to the lab. The reward model then compares the models.

## Let people rank the answers
This needs the apps: `pip install 'align[apps]'`. It takes the place of `align rank`.

    align label import project.yaml runs/answers.jsonl
    align label invite project.yaml --role admin
    align label serve project.yaml
    align label export project.yaml --out runs/labels
    align rm recipes/rm.yaml data.path=runs/labels/rankings.jsonl
"""


def main() -> None:
    """Parses the command line and writes."""
    words = sys.argv[1:]
    if "-h" in words or "--help" in words:
        print((__doc__ or "").strip())
        return
    if len(words) != 1 or words[0].startswith("-"):
        raise UserError("which folder? usage: align init DIR (. is this one)")
    init(Path(words[0]))


def init(folder: Path) -> None:
    """Writes what `folder` lacks and says what it kept."""
    check_place(folder, key="DIR")
    kept = []
    for name, text in starters().items():
        path = folder / name
        if path.exists():
            kept.append(name)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{folder}: wrote {len(starters()) - len(kept)} files; README.md says what to run")
    if kept:
        print(f"kept as they are: {', '.join(kept)}; to get a new one, rename yours and give the command again")


def starters() -> dict[str, str]:
    """The text of each file by its name in the new folder."""
    recipes = [f"recipes/{stage}.yaml" for stage in STAGES]
    schemas = [f"recipes/schema/{stage}.json" for stage in (*STAGES, "label")]
    prompts = [f"data/prompts/{path.name}" for path in sorted(shipped("data/prompts").glob("*.yaml"))]
    project = shipped("recipes/label.yaml").read_text(encoding="utf-8")
    return {
        "README.md": README,
        **{name: shipped(name).read_text(encoding="utf-8") for name in (*recipes, *schemas, *prompts)},
        "project.yaml": project.replace("schema/", "recipes/schema/").replace("recipes/label.yaml", "project.yaml"),
    }


if __name__ == "__main__":
    exit_on_user_error(main)
