"""Erasing a person: nothing of theirs is left but what they decided, and the chain still tells what was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from offices import Office, claim, new_id, rank, ranking
from sqlalchemy import select, text

from apps.store import erasing, events, people, projects, sessions, tokens, work
from apps.store.errors import LoginRefused
from apps.store.tables import Person, Revision

NAME, MARK = "Wilhelmine Quist", "sassafras"


@pytest.fixture
def told(office: Office) -> Office:
    """Somebody has left a trace wherever one can be left, and others have done things to them."""
    store = office.store
    office.tasks(6)
    lead, bob = office.person("Lead", "admin"), office.person("Bob")
    mina = office.person(NAME)
    people.set_role(store, NAME.upper(), "reviewer", by=lead.id)
    people.set_active(store, NAME, False, by=lead.id)
    people.set_active(store, NAME, True, by=lead.id)
    people.reset(store, NAME, created_by=lead.id)
    people.revoke(store, f" {NAME.lower()} ", by=lead.id)
    sessions.login(store, NAME, "four words or more", "10.0.0.1")
    with pytest.raises(LoginRefused):
        sessions.login(store, NAME, "not the password", "10.0.0.1")
    tokens.create(store, NAME, MARK, 3, by=lead.id)
    projects.edit_guidelines(store, office.project, "Be kind.", 1, mina.id)
    payload = ranking(4, 3, 2, 1) | {"comment": MARK}
    payload["answers"]["2"]["comment"] = f"very {MARK}"
    given = claim(office, mina)
    saved = work.submit(store, mina.id, new_id(), given.id, given.lease, payload, 20)
    work.revise(store, mina.id, saved.id, ranking(1, 2, 3, 4) | {"comment": f"{MARK} too"}, 5)
    given = claim(office, mina)
    work.flag(store, mina.id, new_id(), given.id, given.lease, f"other: {MARK}", MARK)
    given = claim(office, mina)
    work.skip(store, mina.id, new_id(), given.id, given.lease, MARK)
    rank(office, mina, claim(office, mina))
    for rev in range(1, 9):
        work.save_draft(store, mina.id, claim(office, mina).id, {"comment": f"{MARK} " * rev**2}, rev)
    rank(office, bob, claim(office, bob))
    return office


def everything(office: Office) -> str:
    """All that can be asked of the database, and of SQLite all bytes of its files."""
    store = office.store
    with store.read() as session:
        names = session.connection().dialect.get_table_names(session.connection())
        rows = {name: [list(row) for row in session.execute(text(f"SELECT * FROM {name}"))] for name in names}
    found = json.dumps(rows, ensure_ascii=False)
    if store.is_sqlite:
        file = Path(store.where)
        found += "".join(path.read_bytes().decode("latin-1") for path in file.parent.glob(f"{file.name}*"))
    return found.casefold()


def test_nothing_is_left_of_a_person_but_what_they_decided(told: Office) -> None:
    before = everything(told)
    assert NAME.casefold() in before
    assert MARK in before
    done = erasing.erase(told.store, NAME)
    after = everything(told)
    assert NAME.casefold() not in after
    assert MARK not in after
    assert done.n_revisions == 4
    assert done.n_events > 8
    with told.store.read() as session:
        mina = session.scalars(select(Person).where(Person.erased_at.is_not(None))).one()
        assert (mina.name, mina.active, mina.password_hash) == (done.pseudonym, False, None)
        first = session.scalars(select(Revision).where(Revision.seconds == 20)).one()
    assert first.payload["ranks"] == {"0": 4, "1": 3, "2": 2, "3": 1}
    assert first.payload["answers"]["2"] == {"rating": 4, "flags": [], "comment": ""}


def test_the_chain_holds_before_and_after(told: Office) -> None:
    before = events.verify(told.store)
    assert before.problems == ()
    erasing.erase(told.store, NAME)
    after = events.verify(told.store, before.head)
    assert after.problems == ()
    assert after.n_revisions == before.n_revisions
    erasing.erase(told.store, "Bob")  # somebody else, of whom less is to be blanked
    assert events.verify(told.store, before.head).problems == ()
    assert events.verify(told.store, after.head).problems == ()
