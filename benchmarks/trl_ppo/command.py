"""Shared by agree.py and speed.py: options, input, and running scripts in either environment."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from work import WORKS, Work, load_work

HERE = Path(__file__).parent
VERSION = "1.12.0"


class Setting:
    """A folder with the input, and the two interpreters."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        """Adds the common options to `parser` and reads the command line."""
        parser.add_argument("--trl", type=Path, required=True, metavar="PYTHON", help="TRL's environment's interpreter")
        parser.add_argument("--work", choices=WORKS, default="small", help="size of models and batches (small)")
        parser.add_argument("--out", type=Path, help="folder to work in (runs/trl_ppo/WORK)")
        parser.add_argument("--threads", type=int, default=2, help="of each process (2)")
        self.arguments = arguments = parser.parse_args()
        self.folder: Path = arguments.out or Path("runs/trl_ppo") / arguments.work
        if (found := trl_version(arguments.trl)) != VERSION:
            parser.error(
                f"--trl {arguments.trl}: it has {found or 'no TRL'}, and this is about {VERSION}; make an environment "
                f"with python -m venv and pip install -r {HERE / 'requirements.txt'}, and name its bin/python"
            )
        if not (self.folder / "work.json").exists():
            self.run(sys.executable, "make_input.py", "--out", self.folder, "--work", arguments.work)
        self.work: Work = load_work(self.folder)
        if self.work != WORKS[arguments.work]:
            parser.error(f"--out {self.folder}: it holds other work than {arguments.work}; name another folder")

    def run(self, python: Any, script: str, *words: Any, **variables: str) -> str:
        """Runs another script of this folder. Returns its output."""
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.arguments.threads), "HF_HUB_OFFLINE": "1"}
        environment |= {"TRL_EXPERIMENTAL_SILENCE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONWARNINGS": "ignore"}
        command = [str(python), str(HERE / script), *map(str, words)]
        done = subprocess.run(command, env=environment | variables, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"error: {' '.join(command)} failed, see above", file=sys.stderr)
            raise SystemExit(1)
        return done.stdout


def trl_version(python: Path) -> str | None:
    """The version of TRL that an interpreter has."""
    program = "from importlib.metadata import version; print(version('trl'))"
    try:
        done = subprocess.run([str(python), "-c", program], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None
