"""Write the lab's data as plain files: `align lab --out DIR [--seed 1] [--documents N] ...`.

The same options write the same bytes. `align.lab.corpora` and the README.md in DIR describe the files.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from align.commands import program
from align.lab.corpora import FILES, Sizes, write_world


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    try:
        sizes = Sizes(**{field.name: getattr(args, field.name) for field in fields(Sizes)})
        _check_folder(args.out, args.overwrite)
        counts = write_world(args.out, args.seed, sizes)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for file, n in counts.items():
        print(f"{n:>8,}  {args.out / file}")
    return 0


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program("align.lab"), description="Write a tiny world with a known truth.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=1)
    for name, n in asdict(Sizes()).items():
        file, _, what = FILES[name]
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=int, default=n, metavar="N", help=f"{file}: {what} ({n})"
        )
    parser.add_argument("--overwrite", action="store_true", help="write into a folder that is not empty")
    return parser


def _check_folder(out: Path, overwrite: bool) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out}: this is a file; name a folder")
    held = sorted(path.name for path in out.iterdir()) if out.exists() else []
    if held and not overwrite:
        names = ", ".join(held[:3]) + (", ..." if len(held) > 3 else "")
        raise ValueError(f"--out {out}: the folder is not empty (it has {names}); name another, or add --overwrite")


if __name__ == "__main__":
    sys.exit(main())
