"""Password hashing with argon2id (RFC 9106, memory-hard), at most two at a time."""

from __future__ import annotations

import secrets
import threading
import unicodedata
from functools import cache
from typing import TYPE_CHECKING

from apps.store.errors import BadPayload

if TYPE_CHECKING:
    from argon2 import PasswordHasher

SHORTEST, LONGEST = 10, 200

# RFC 9106, section 4, the second recommended choice: 3 passes over 64 MiB in 4 lanes.
PASSES, MEMORY_KIB, LANES = 3, 65536, 4

_AT_ONCE = threading.BoundedSemaphore(2)  # 64 MiB each, and a core each


def check_password(password: str, name: str) -> None:
    """Raises `BadPayload` for a password that is too short, too long, or the name itself."""
    n = len(password)
    if not SHORTEST <= n <= LONGEST:
        raise BadPayload([f"password: {n} characters; give {SHORTEST} to {LONGEST}"])
    if name.casefold() in (password.casefold(), password.casefold() * 2) or len(set(password)) < 4:
        raise BadPayload(["password: too easy to guess; use several unrelated words"])


def hash_password(password: str) -> str:
    """The hash to store, with its salt and cost."""
    with _AT_ONCE:
        return _hasher().hash(_normal(password))


def verify_password(password_hash: str | None, password: str) -> bool:
    """Whether the password is right. Without a hash (an unknown name) it takes the same time."""
    from argon2.exceptions import InvalidHashError, VerificationError

    with _AT_ONCE:
        try:
            _hasher().verify(password_hash or _nobodys_hash(), _normal(password))
        except (VerificationError, InvalidHashError):
            return False
    return password_hash is not None


def is_outdated(password_hash: str) -> bool:
    """Whether a hash was made with other cost parameters than today's."""
    return _hasher().check_needs_rehash(password_hash)


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(PASSES, MEMORY_KIB, LANES)


@cache
def _nobodys_hash() -> str:
    return _hasher().hash(secrets.token_urlsafe(32))


def _normal(password: str) -> bytes:
    """The normalized bytes: the same for every way that a keyboard composes characters."""
    return unicodedata.normalize("NFKC", password).encode("utf-8", "surrogatepass")
