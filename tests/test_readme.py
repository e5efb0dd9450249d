"""The README tells the truth: its list of files is the tree, and its commands run."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """The lines of the blocks that are marked as tested."""
    text = (ROOT / name).read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- tested -->\s*```sh\n(.*?)```", text, flags=re.DOTALL)
    assert blocks, f"{name} has no block that is marked as tested"
    return [line for block in blocks for line in block.splitlines() if line.strip() and not line.startswith("#")]


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), f"README.md links to {target}, which does not exist"


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_commands_run(name: str) -> None:
    for line in commands(name):
        words = shlex.split(line, comments=True)
        if words[0] in ("python", ".venv/bin/python"):
            words[0] = sys.executable
        elif words[0].startswith(".venv/bin/"):
            words[0] = str(Path(sys.executable).parent / Path(words[0]).name)
        done = subprocess.run(
            words, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
