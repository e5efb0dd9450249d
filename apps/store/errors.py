"""Errors of the store. Each is a `UserError`: its text says what was found and what to do."""

from __future__ import annotations

from align.errors import UserError


class Refused(UserError):
    """Base of all refusals."""


class NotYours(Refused):
    """A task or an annotation that does not exist or is another person's; both give the same message."""

    def __init__(self, what: str = "task") -> None:
        super().__init__(f"you have no such {what}; go on with the next task")


class Stale(Refused):
    """The object was changed elsewhere meanwhile, for example in a second window."""


class LeaseLost(Stale):
    """The lease expired, and others have taken all places of its task."""


class BadPayload(Refused):
    """The data cannot be saved. `problems` names each key, the value found and the remedy."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class LoginRefused(Refused):
    """A wrong name or password, or an invalid invitation or session."""


class TooManyAttempts(Refused):
    """Too many failed logins by this name or from this address. `wait_s` says how long to wait."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"too many failed attempts; try again in {max(1, round(wait_s))} seconds")
        self.wait_s = wait_s


class Unavailable(Refused):
    """The database cannot be reached, is busy, or its disk is full: nothing was saved. Try again later.

    `public` can be shown to anybody. The whole text includes the database's own `details`, which may name its address.
    """

    def __init__(self, public: str, details: str = "") -> None:
        what, _, remedy = public.partition("; ")
        super().__init__(f"{what} ({details}); {remedy}" if details else public)
        self.public = public
