"""Erasing a person: nothing of theirs is left but what they decided, and the chain still tells what was changed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from offices import Office, claim, new_id, person, rank, ranking, row
from sqlalchemy import select, text

from apps.store import erasing, events, invitations, people, progress, projects, reviews, sessions, tasks, tokens, work
from apps.store.errors import LoginRefused, NotYours, Refused, Unavailable
from apps.store.tables import Annotation, Event, Person, Revision, Task

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
    invitations.reset(store, NAME, created_by=lead.id)
    invitations.revoke(store, f" {NAME.lower()} ", by=lead.id)
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


def test_what_was_done_by_them_and_to_them_is_told_by_the_pseudonym(told: Office) -> None:
    pseudonym = erasing.erase(told.store, NAME).pseudonym
    assert pseudonym in [one.name for one in people.all_people(told.store) if one.erased]
    assert projects.versions(told.store, told.project)[0].by == pseudonym
    assert pseudonym in [one.name for one in progress.progress(told.store, told.project).people]
    for again in (people.set_active, people.set_role):
        with pytest.raises(Refused, match="was erased"):
            again(told.store, pseudonym, "annotator")  # type: ignore[operator]
    with pytest.raises(Refused, match="was erased"):
        invitations.reset(told.store, pseudonym)
    assert person(told.store, NAME).name == NAME  # the name is free again


def test_nothing_works_any_more_that_let_them_in(told: Office) -> None:
    login = sessions.login(told.store, NAME, "four words or more", "10.0.0.1")
    token = tokens.create(told.store, NAME, "report", 3).token
    link = invitations.reset(told.store, NAME).token
    erasing.erase(told.store, NAME)
    assert sessions.person_of(told.store, login) is None
    assert tokens.person_of(told.store, token) is None
    with pytest.raises(LoginRefused):
        invitations.invitation(told.store, link)
    with pytest.raises(LoginRefused):
        sessions.login(told.store, NAME, "four words or more", "10.0.0.1")


def test_a_page_that_is_still_open_says_nothing_more_in_their_name(told: Office) -> None:
    mina = people.by_name(told.store, NAME)
    given = claim(told, mina)
    past = work.history(told.store, told.project, mina.id)[-1]
    erasing.erase(told.store, NAME)
    payload = ranking(1, 2, 3, 4) | {"comment": MARK}
    for act in (
        lambda: work.submit(told.store, mina.id, new_id(), given.id, given.lease, payload, 20),
        lambda: work.revise(told.store, mina.id, past.id, payload),
        lambda: work.save_draft(told.store, mina.id, given.id, payload, 99),
    ):
        with pytest.raises(NotYours):
            act()


def test_tasks_that_were_theirs_alone_are_for_all(told: Office) -> None:
    with told.store.read() as session:
        ids = list(session.scalars(select(Task.id).order_by(Task.id)))[-2:]
    tasks.assign(told.store, told.project, ids[:1], [NAME])
    tasks.assign(told.store, told.project, ids[1:], [NAME, "Bob"])
    erasing.erase(told.store, NAME)
    assert [row(told, id).assigned for id in ids] == [False, True]


def test_who_cannot_be_erased(told: Office) -> None:
    """One who is erased already can be named by the pseudonym: a crash may have kept the file from being written."""
    with pytest.raises(Refused, match="last active admin"):
        erasing.erase(told.store, "Lead")
    done = erasing.erase(told.store, NAME)
    assert erasing.erase(told.store, done.pseudonym) == (done.pseudonym, 0, 0)
    with pytest.raises(Refused, match="nobody has this name"):
        erasing.erase(told.store, NAME)


def test_a_file_that_cannot_be_written_anew_is_told_with_what_to_do(
    told: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise Unavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(told.store, "vacuum", fails)
        with pytest.raises(Unavailable, match=r"erase erased-\d+ again") as error:
            erasing.erase(told.store, NAME)
    pseudonym = str(error.value).split()[0]
    assert erasing.erase(told.store, pseudonym) == (pseudonym, 0, 0)
    assert MARK not in everything(told)


def test_somebody_may_have_the_pseudonym_already(told: Office) -> None:
    number = people.by_name(told.store, NAME).id
    told.person(f"erased-{number}")
    assert erasing.erase(told.store, NAME).pseudonym == f"erased-{number}-"


def test_a_name_like_a_word_of_the_program_blanks_nothing_that_is_read(office: Office) -> None:
    """Tasks are named by numbers and statuses by words, and people may have such names."""
    office.tasks(1)
    somebody, *_ = [office.person(name) for name in ("1", "submitted", "annotator")]
    saved = rank(office, somebody, claim(office, somebody))
    reviews.accept_task(office.store, office.project, 1, somebody.id)
    for name in ("1", "submitted", "annotator"):
        erasing.erase(office.store, name)
    assert events.verify(office.store).problems == ()
    with office.store.read() as session:
        said = session.scalars(select(Event).where(Event.verb == "say")).one()
        assert (said.subject, said.data["status"]) == (saved.id, "submitted")
        assert reviews.decided(session, office.project) == {1}


CHANGES = {
    "UPDATE event SET subject = '', data = '{}' WHERE seq = 2": "event 2 was changed",
    "UPDATE event SET at = at + 1 WHERE subject = '' AND verb = 'role'": "was changed after it was written",
    "UPDATE revision SET payload = replace(payload, '4,\"1\"', '3,\"1\"') WHERE seconds = 20": "revision 1 of",
    "UPDATE person SET erased_at = 1 WHERE name = 'Bob'": "person 2 is erased without an event",
    "UPDATE person SET erased_at = NULL": "erases person 3, who is not erased or was erased before",
    "UPDATE event SET data = '{}' WHERE verb = 'erase'": "was changed after it was written",
}


def test_what_is_changed_besides_is_seen(told: Office) -> None:
    """Changes by the very door of erasing, one after the other."""
    erasing.erase(told.store, NAME)
    known: set[str] = set()
    for change, problem in CHANGES.items():
        with told.store.write() as session:
            session.execute(text("INSERT INTO erasing VALUES (1)"))
            session.execute(text(change))
            session.execute(text("DELETE FROM erasing"))
        found = set(events.verify(told.store).problems)
        assert [one for one in found - known if problem in one], (change, found)
        known |= found


def test_a_forged_erasing_is_seen(told: Office) -> None:
    """An `erase` event that blanks what another person said, or one more of somebody who was erased: well made."""
    done = erasing.erase(told.store, NAME)
    with told.store.write() as session:
        id, mina = people.by_name(told.store, "Bob").id, people.by_name(told.store, done.pseudonym).id
        bobs = session.scalars(select(Annotation.id).where(Annotation.person_id == id)).one()
        data = {"person": mina, "events": [], "revisions": [[bobs, 1, "0" * 64]]}
        events.append(session, 1.0, None, "erase", done.pseudonym, data)
    problems = "\n".join(events.verify(told.store).problems)
    assert "was erased before" in problems
    assert f"erases {bobs}, which is another person's" in problems


@pytest.mark.parametrize("hides", [True, False])
def test_a_forged_erasing_changes_no_ranking_and_hides_none(told: Office, hides: bool) -> None:
    """Bob is erased by hand, with an `erase` event that fits what his ranking is changed to."""
    head, bob = events.verify(told.store).head, people.by_name(told.store, "Bob")
    with told.store.write() as session:
        session.execute(text("INSERT INTO erasing VALUES (1)"))
        session.get_one(Person, bob.id).erased_at = 1.0
        mine = session.scalars(select(Revision).join(Annotation).where(Annotation.person_id == bob.id)).one()
        said = session.scalars(select(Event).where(Event.verb == "say", Event.subject == mine.annotation_id)).one()
        mine.payload = mine.payload | {"ranks": {"0": 4, "1": 3, "2": 2, "3": 1}}
        data = {"person": bob.id, "events": [], "revisions": []}
        if hides:
            said.subject, said.data = "", {}
            left = said.seq, said.at, said.person_id, said.verb, "", {}, said.prev_hash
            data["events"] = [[said.seq, events.event_hash(*left)]]
        else:
            data["revisions"] = [[mine.annotation_id, 1, events.digest(events.revision_content(mine))]]
        session.flush()
        session.execute(text("DELETE FROM erasing"))
        events.append(session, 1.0, None, "erase", "Bob", data)
        changed = f"event {said.seq}" if hides else f"revision 1 of {mine.annotation_id}"
    assert f"{changed} was changed after it was written" in events.verify(told.store, head).problems
