"""What a user can do wrong is told in words, never as a traceback."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake that the user can mend. Its text names the file or key, the value found and the remedy."""

    def _render_traceback_(self) -> list[str]:
        """What a notebook shows in place of a traceback."""
        return [f"error: {self}"]


class RewardError(UserError):
    """A reward that cannot be had. PPO meets it before it has updated anything, so a run can be kept as it was."""


class JudgeError(UserError):
    """A judge that cannot go on. An evaluation tells so in the judge's place and goes on with the others."""


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
