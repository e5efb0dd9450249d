"""What the store refuses. Each is a `UserError`: its text says what was found and what to do about it."""

from __future__ import annotations

from align.errors import UserError


class Refused(UserError):
    """Anything that the store refuses."""


class NotYours(Refused):
    """A task or an annotation that does not exist, or is another person's: the two are told in the same words."""

    def __init__(self, what: str = "task") -> None:
        super().__init__(f"there is no such {what} of yours; go on with the next task")


class Stale(Refused):
    """Something that was changed elsewhere meanwhile, as in a second window."""


class LeaseLost(Stale):
    """A lease that ran out, and all places of its task are taken by others."""


class BadPayload(Refused):
    """What was sent cannot be saved as it is. `problems` names each key, the value found and the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class LoginRefused(Refused):
    """A wrong name or password, an invitation or a session that is not valid."""


class TooManyAttempts(Refused):
    """Too many failed logins by this name or from this address. `wait_s` says how long to wait."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed attempts; try again in {max(1, round(wait_s))} seconds")
        self.wait_s = wait_s


class Unavailable(Refused):
    """The database cannot be reached, is busy, or its disk is full: nothing was saved. Try again later.

    `told` is for anybody; the whole text has what the database `said`, which may name its address.
    """

    def __init__(self, told: str, said: str = "") -> None:
        what, _, remedy = told.partition("; ")
        super().__init__(f"{what} ({said}); {remedy}" if said else told)
        self.told = told
