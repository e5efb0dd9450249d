"""Tokens of scripts: who they are, until when, and how they end."""

from __future__ import annotations

from typing import Any

import pytest
from offices import Clock, Office
from sqlalchemy import select

from apps.store import people, tokens
from apps.store.errors import Refused
from apps.store.tables import ApiToken, Event


def test_a_token_is_its_person_with_the_role_that_they_have_now(office: Office) -> None:
    ann = office.person("Ann")
    made = tokens.create(office.store, "ann", "nightly report", 30)
    assert tokens.person_of(office.store, made.token) == ann
    people.set_role(office.store, "Ann", "reviewer")
    assert tokens.person_of(office.store, made.token) == ann._replace(role="reviewer")


def test_only_its_hash_is_kept(office: Office) -> None:
    office.person("Ann")
    token = tokens.create(office.store, "Ann", "report", 30).token
    assert token.startswith("align_")
    assert len(token) == 49  # 43 characters of 6 bits hold 256
    with office.store.read() as session:
        kept = [*session.scalars(select(ApiToken)), *session.scalars(select(Event))]
        assert token not in str([vars(one) for one in kept])


def test_it_ends_with_its_days_and_when_it_is_revoked(office: Office, clock: Clock) -> None:
    office.person("Ann")
    first, second = (tokens.create(office.store, "Ann", name, 1).token for name in ("one", "two"))
    (known, other) = tokens.all_tokens(office.store)
    assert (known.person, known.purpose, known.used_at, known.expires_at) == ("Ann", "one", None, clock.now + 86400)
    tokens.revoke(office.store, known.id)
    assert tokens.person_of(office.store, first) is None
    assert tokens.person_of(office.store, second) is not None
    assert tokens.all_tokens(office.store) == [other._replace(used_at=clock.now)]
    with pytest.raises(Refused, match=known.id):
        tokens.revoke(office.store, known.id)
    clock.now += 86400
    assert tokens.person_of(office.store, second) is None
    assert tokens.all_tokens(office.store) == []


def test_one_that_was_made_while_the_clock_was_ahead_works_no_longer_than_others(office: Office, clock: Clock) -> None:
    office.person("Ann")
    clock.now += 365 * 86400
    token = tokens.create(office.store, "Ann", "report", 365).token
    clock.now -= 365 * 86400
    assert tokens.person_of(office.store, token) is None


def test_who_is_shut_out_is_shut_out_as_a_script_too(office: Office) -> None:
    office.person("Ann")
    token = tokens.create(office.store, "Ann", "report", 1).token
    people.set_active(office.store, "Ann", False)
    assert tokens.person_of(office.store, token) is None
    with pytest.raises(Refused, match="Ann is deactivated"):
        tokens.create(office.store, "Ann", "report", 1)
    people.set_active(office.store, "Ann", True)
    assert tokens.person_of(office.store, token) is not None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "Bob"}, "nobody has this name"),
        ({"purpose": " "}, "purpose: give 1 to 100"),
        ({"purpose": "a\nb"}, "purpose: give 1 to 100"),
        ({"days": 0}, "days: 0; give more than 0 and at most 365"),
        ({"days": 366}, "days: 366"),
        ({"days": float("nan")}, "days: nan"),
    ],
)
def test_what_cannot_be_is_told(office: Office, given: dict[str, Any], message: str) -> None:
    office.person("Ann")
    with pytest.raises(Refused, match=message):
        tokens.create(office.store, **({"name": "Ann", "purpose": "report", "days": 1} | given))
    assert tokens.person_of(office.store, "align_" + "x" * 43) is None
