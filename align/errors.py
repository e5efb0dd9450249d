"""What a user can do wrong is told in words, never as a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can mend. Its text names the file or key, the value found and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"error: {self}"]


class RewardError(UserError):
    """A reward that cannot be had. PPO meets it before it has updated anything, so a run can be kept as it was."""


class JudgeError(UserError):
    """A judge that cannot go on. An evaluation tells so in the judge's place and goes on with the others."""


def first_line(error: Exception) -> str:
    """What an error says, without the pages below."""
    return next(iter(str(error).strip().splitlines()), "")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether the system let nothing more be written: a full disk, a quota, a limit on a file's size.

    Libraries in Rust (safetensors, tokenizers) tell it in the text of errors of their own.
    """
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return error is not None and any(f"(os error {number})" in str(error) for number in numbers)


def check_place(output: str | Path, is_file: bool = False, key: str = "output") -> None:
    """Raises `UserError` if no folder (or no file) can stand where `key` says."""
    path = Path(output)
    above = next((parent for parent in path.parents if parent.exists() or parent.is_symlink()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{key}: {path} would lie below {above}, which is no folder; choose another {key}")
    if path.is_dir() if is_file else (path.exists() or path.is_symlink()) and not path.is_dir():
        found, wanted = ("folder", "file") if is_file else ("file", "folder")
        raise UserError(f"{key}: {path} is a {found}, and a {wanted} is to be written there; choose another {key}")


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Runs a command's `main`; a `UserError` ends it with its text on stderr and exit status 2.

    A reader of its output that leaves early (`--help | head`) ends it silently, as it does any program in a pipe.
    """
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's last flush fails again
        raise SystemExit(128 + signal.SIGPIPE) from None
    except Exception as error:
        if not is_disk_full(error):
            raise
        print(f"error: there is no room to write on ({error}); make room, then give the command again", file=sys.stderr)
        raise SystemExit(2) from None
