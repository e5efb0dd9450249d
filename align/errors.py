"""Errors that a user can cause: they end a command with a message, never with a traceback."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """A mistake that the user can fix. Its text names the file or key, the value found and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"error: {self}"]


class RewardError(UserError):
    """A reward cannot be computed. PPO raises it before any update of the step, so the last state can be saved."""


class JudgeError(UserError):
    """A judge fails. An evaluation reports the failure and continues with the other judges."""


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return next(iter(str(error).strip().splitlines()), "")


def is_disk_full(error: BaseException | None) -> bool:
    """Whether writing failed for lack of room: a full disk, a quota, a limit on a file's size.

    Libraries in Rust (safetensors, tokenizers) have it only in the text of their own errors.
    """
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in numbers
    return error is not None and any(f"(os error {number})" in str(error) for number in numbers)


def check_place(output: str | Path, is_file: bool = False, key: str = "output") -> None:
    """Raises `UserError` if no folder (or, with `is_file`, no file) can be written at the path that `key` gives."""
    path = Path(output)
    above = next((parent for parent in path.parents if parent.exists() or parent.is_symlink()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{key}: {path} cannot be written, because {above} is not a folder. Choose another {key}.")
    if path.is_dir() if is_file else (path.exists() or path.is_symlink()) and not path.is_dir():
        found, wanted = ("folder", "file") if is_file else ("file", "folder")
        raise UserError(f"{key}: {path} is a {found}, but a {wanted} has to be written there. Choose another {key}.")


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Runs a command's `main`; a `UserError` ends it with its text on stderr and exit status 2.

    If the reader of its output stops early (`--help | head`), it ends silently, like any program in a pipe.
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
        print(f"error: the disk is full ({error}). Free some space, then run the same command again.", file=sys.stderr)
        raise SystemExit(2) from None
