"""Invitations, passwords, roles, logging in, and how guessing is slowed down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from offices import Clock, at_once, person
from sqlalchemy import func, select, update

from apps.store import erasing, invitations, passwords, people, sessions, tokens
from apps.store.engine import Store
from apps.store.errors import BadPayload, LoginRefused, Refused, TooManyAttempts
from apps.store.tables import Attempt, Event, Invitation, Person

PASSWORD = "four words or more"


def login(store: Store, name: str = "Ann", password: str = PASSWORD, address: str = "192.0.2.1") -> str:
    return sessions.login(store, name, password, address)


# --------------------------------------------------------------------------------------------------------- invitations


def test_nobody_exists_by_default(store: Store) -> None:
    assert people.all_people(store) == []
    for name, password in (("admin", "admin"), ("admin", "password"), ("", ""), ("root", ""), ("a\0", "b\0")):
        with pytest.raises(LoginRefused):
            login(store, name, password)


def test_an_invited_person_sets_a_password_and_logs_in(store: Store) -> None:
    invited = invitations.invite(store, "annotator", "Ann")
    assert invitations.invitation(store, invited.token) == invitations.OpenInvitation("annotator", "Ann", False)
    ann = invitations.accept(store, invited.token, None, PASSWORD)
    assert (ann.name, ann.role) == ("Ann", "annotator")
    found = sessions.person_of(store, login(store))
    assert found is not None
    assert found.id == ann.id


def test_an_invited_person_may_choose_a_name_unless_it_is_given(store: Store) -> None:
    assert (
        invitations.accept(store, invitations.invite(store, "annotator").token, "  Zoë   B. ", PASSWORD).name
        == "Zoë B."
    )
    fixed = invitations.invite(store, "annotator", "Bob")
    assert invitations.accept(store, fixed.token, "Mallory", PASSWORD).name == "Bob"


def test_an_invitation_works_once(store: Store) -> None:
    invited = invitations.invite(store, "admin")
    invitations.accept(store, invited.token, "Ann", PASSWORD)
    with pytest.raises(LoginRefused, match="no longer valid"):
        invitations.accept(store, invited.token, "Bob", PASSWORD)
    with pytest.raises(LoginRefused):
        invitations.invitation(store, invited.token)


def accepted(store: Store, token: str, name: str | None, password: str = PASSWORD) -> str:
    """The name of whoever came in by a link, or ""."""
    try:
        return invitations.accept(store, token, name, password).name
    except LoginRefused:
        return ""


def test_of_twelve_at_once_one_can_use_an_invitation(store: Store) -> None:
    token = invitations.invite(store, "admin").token
    came = at_once(12, lambda index: accepted(store, token, f"person {'abcdefghijkl'[index]}"))
    assert sum(bool(name) for name in came) == 1
    assert [one.name for one in people.all_people(store)] == [name for name in came if name]


def test_of_twelve_at_once_one_sets_the_password(store: Store) -> None:
    person(store, "Ann")
    token = invitations.reset(store, "Ann").token
    came = at_once(12, lambda index: accepted(store, token, None, f"words of number {index}"))
    assert came.count("Ann") == 1
    assert sessions.person_of(store, login(store, password=f"words of number {came.index('Ann')}"))


def test_a_link_made_while_another_is_used_leaves_one_or_none(store: Store) -> None:
    person(store, "Ann")
    for _ in range(5):
        old = invitations.reset(store, "Ann").token

        def act(index: int, old: str = old) -> str:
            return invitations.reset(store, "Ann").token if index % 2 else accepted(store, old, None)

        made = [token for token in at_once(6, act) if token not in ("", "Ann")]
        assert sum(bool(accepted(store, token, None)) for token in made) <= 1  # the newest, if it came after the use
        with store.read() as session:
            assert not session.scalars(select(Invitation).where(Invitation.used_by.is_(None)).where(
                Invitation.revoked_at.is_(None))).all()  # fmt: skip


def test_an_invitation_made_while_the_clock_was_ahead_ends_when_it_is_set_right(store: Store, clock: Clock) -> None:
    person(store, "Ann")
    soon = invitations.invite(store, "annotator", days=2)
    clock.now += 5 * 86400
    ahead = invitations.invite(store, "admin", days=2)
    clock.now -= 5 * 86400
    assert [one.role for one in invitations.pending_invitations(store)] == ["annotator"]
    with pytest.raises(LoginRefused):
        invitations.invitation(store, ahead.token)
    login(store)
    clock.now += 5 * 86400 + 10  # the day that it was made on, as it said
    for token in (ahead.token, soon.token):
        with pytest.raises(LoginRefused):
            invitations.accept(store, token, "Eve", PASSWORD)


@pytest.mark.parametrize("days", [0, -1, 31, float("nan"), float("inf")])
def test_no_link_lives_long(store: Store, clock: Clock, days: float) -> None:
    person(store, "Ann")
    for make in (lambda: invitations.invite(store, "admin", days=days), lambda: invitations.reset(store, "Ann", days)):
        with pytest.raises(Refused, match=r"^days: .* at most 30$"):
            make()
    token = invitations.invite(store, "admin", days=30).token
    with store.write() as session:  # as it was made when a year was allowed
        session.execute(update(Invitation).values(expires_at=clock.now + 365 * 86400))
    clock.now += 30 * 86400
    assert accepted(store, token, "Eve") == ""


def test_a_list_of_names_keeps_nobody_waiting_for_long(store: Store) -> None:
    names = "\n".join(f"person {n}" for n in range(1001))
    with pytest.raises(BadPayload, match="names: 1001; give at most 1000 at once"):
        invitations.invite_many(store, names, "annotator")


@pytest.mark.parametrize("falls", [lambda store: people.set_active(store, "Eve", False),
                                   lambda store: people.set_role(store, "Eve", "annotator"),
                                   lambda store: erasing.erase(store, "Eve")])  # fmt: skip
def test_an_admin_who_is_one_no_more_has_left_no_way_in(store: Store, falls: Any) -> None:
    person(store, "Lead", "admin")
    eve = person(store, "Eve", "admin")
    kept, left = invitations.invite(store, "admin"), invitations.invite(store, "admin", created_by=eve.id)
    script, planted = (tokens.create(store, "Lead", "script", 9, by=by).token for by in (None, eve.id))
    falls(store)
    assert [tokens.person_of(store, token) is None for token in (script, planted)] == [False, True]
    assert accepted(store, left.token, "Mallory") == ""
    assert accepted(store, kept.token, "Second") == "Second"


def test_an_invitation_ends(store: Store, clock: Clock) -> None:
    invited = invitations.invite(store, "annotator", "Ann", days=2)
    assert invited.expires_at == clock.now + 2 * 86400
    clock.now = invited.expires_at
    with pytest.raises(LoginRefused):
        invitations.accept(store, invited.token, None, PASSWORD)


def test_an_invitation_can_be_taken_back(store: Store) -> None:
    invited = invitations.invite(store, "admin", "Ann")
    assert invitations.revoke(store, "ann") == 1
    with pytest.raises(LoginRefused):
        invitations.accept(store, invited.token, None, PASSWORD)


def test_who_was_invited_twice_comes_in_once(store: Store) -> None:
    first, second = invitations.invite(store, "admin", "Ann"), invitations.invite(store, "annotator", "ann")
    invitations.accept(store, second.token, None, PASSWORD)
    assert invitations.pending_invitations(store) == []
    with pytest.raises(LoginRefused, match="no longer valid"):
        invitations.accept(store, first.token, None, PASSWORD)


def test_one_of_two_invitations_in_a_name_is_taken_back_by_its_id(store: Store) -> None:
    invitations.invite(store, "admin", "Ann")
    invitations.invite(store, "annotator", "Ann")
    first, second = invitations.pending_invitations(store)
    assert invitations.revoke(store, first.id) == 1
    assert invitations.pending_invitations(store) == [second]


def test_many_are_invited_at_once(store: Store) -> None:
    made = invitations.invite_many(store, 'Ann\n Bea ,bea@example.org, 3\n"Cy, Jr."\n\n', "annotator", 3)
    assert [one.name for one in made] == ["Ann", "Bea", "Cy, Jr."]
    assert [invitations.accept(store, one.token, None, PASSWORD).name for one in made] == ["Ann", "Bea", "Cy, Jr."]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("Ann\n\nBob", "line 2: name: 0 characters"),
        ("Ann\nBob\nANN", "line 3: ANN is already in line 1"),
        ("Ann\nLea", "line 2: name: Lea: this name is taken; remove it"),
        ("Ann\nL\u0435a", "line 2: name: it mixes"),
        (" \n", "the list is empty"),
        ('Ann\n"Bob', "this is not valid CSV"),
        ("x" * 100_000, "line 1: name: 100000 characters"),
    ],
)
def test_of_a_list_with_a_mistake_nobody_is_invited(store: Store, lines: str, problem: str) -> None:
    person(store, "Lea", "admin")
    with pytest.raises(BadPayload) as refused:
        invitations.invite_many(store, lines, "annotator")
    assert problem in str(refused.value)
    assert invitations.pending_invitations(store) == []


@pytest.mark.parametrize("token", ["", "x", "\0", "é", "\ud800"])
def test_a_made_up_token_is_nobodys(store: Store, token: str) -> None:
    with pytest.raises(LoginRefused):
        invitations.invitation(store, token)
    assert sessions.person_of(store, token) is None


@pytest.mark.parametrize("name", ["", "   ", "x" * 61, "a\0b", "a\u202eb", "\u200b"])
def test_names_that_cannot_be_read_are_refused(store: Store, name: str) -> None:
    with pytest.raises(BadPayload, match="name"):
        invitations.accept(store, invitations.invite(store, "annotator").token, name, PASSWORD)


def test_names_that_look_alike_are_one(store: Store) -> None:
    person(store, "Straße")
    for name in ("strasse", "STRASSE", " Straße "):
        with pytest.raises(Refused, match="taken"):
            invitations.invite(store, "annotator", name)
        with pytest.raises(BadPayload, match="taken"):
            invitations.accept(store, invitations.invite(store, "annotator").token, name, PASSWORD)


@pytest.mark.parametrize("name", ["Aлиcе", "Αda", "Ada\u034f", "Ada\u3164", "Ꭺda", "Ada Мария"])
def test_names_that_mix_scripts_or_hide_letters_are_refused(store: Store, name: str) -> None:
    with pytest.raises(BadPayload, match=r"scripts?|invisible"):
        invitations.invite(store, "annotator", name)


@pytest.mark.parametrize(
    "name",
    [
        "Мария",
        "Ελένη",
        "王小明 (Wang)",
        "ヨーゼフ",
        "田中タロウ",
        "佐々木",
        "김민수 Kim",
        "محمد",
        "Nguyễn Văn Á",
        "O'Neil-Åse 2",
        "Ꮳꮃꭹ",
    ],
)
def test_names_of_all_the_world_are_names(store: Store, name: str) -> None:
    for other in ("Maria", "Ada", "Helene"):
        person(store, other)
    assert accepted(store, invitations.invite(store, "annotator", name).token, None) == name


@pytest.mark.parametrize(
    ("known", "name"),
    [("Coco", "Сосо"), ("COCO", "сосо"), ("Alice", "AIice"), ("Alice", "A1ice"), ("BOB 10", "B0B lO"), ("ХОР", "XOP"),
     ("Aka", "ΑΚα"), ("JAM", "ᎫᎪᎷ")],
)  # fmt: skip
def test_a_name_that_looks_like_anothers_is_refused(store: Store, known: str, name: str) -> None:
    invitations.invite(store, "annotator", known)
    token = invitations.invite(store, "annotator").token
    for _ in ("invited", "here"):
        with pytest.raises(BadPayload, match=f"name: {name} looks like {known}"):
            invitations.accept(store, token, name, PASSWORD)
        with pytest.raises(BadPayload, match="looks like"):
            invitations.invite(store, "annotator", name)
        if not people.all_people(store):
            person(store, known)  # and by a new link, if the first was lost
    assert accepted(store, token, "Ian") == "Ian"
    assert person(store, "Lan").name == "Lan"


@pytest.mark.parametrize("password", ["short", "x" * 201, "aaaaaaaaaaaaaaaa", "Annabel the 1st"])
def test_passwords_that_are_no_use_are_refused(store: Store, password: str) -> None:
    with pytest.raises(BadPayload, match="password"):
        invitations.accept(store, invitations.invite(store, "annotator").token, "Annabel the 1st", password)
    assert people.all_people(store) == []


def test_roles(store: Store) -> None:
    with pytest.raises(Refused, match="admin, reviewer, annotator"):
        invitations.invite(store, "boss")  # type: ignore[arg-type]
    person(store, "Lead", "admin")
    person(store, "Ann")
    assert people.set_role(store, "Ann", "reviewer").role == "reviewer"
    with pytest.raises(Refused, match="nobody has this name"):
        people.set_role(store, "Bob", "reviewer")


def test_the_last_admin_stays(store: Store) -> None:
    person(store, "Lead", "admin")
    for change in (
        lambda: people.set_role(store, "Lead", "annotator"),
        lambda: people.set_active(store, "Lead", False),
    ):
        with pytest.raises(Refused, match="last active admin"):
            change()
    person(store, "Second", "admin")
    assert not people.set_active(store, "Lead", False).active


# ----------------------------------------------------------------------------------------------------------- passwords


def test_passwords_cost_what_rfc_9106_recommends(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PASSES", 3), ("MEMORY_KIB", 65536), ("LANES", 4)):
        monkeypatch.setattr(passwords, name, value)
    passwords._hasher.cache_clear()
    try:
        kept = passwords.hash_password("a long password")
        assert kept.startswith("$argon2id$v=19$m=65536,t=3,p=4$")
        assert passwords.verify_password(kept, "a long password")
        assert not passwords.verify_password(kept, "a long passwore")
    finally:
        passwords._hasher.cache_clear()


def test_the_cost_in_the_source_is_the_real_one() -> None:
    source = Path(passwords.__file__).read_text(encoding="utf-8")
    assert "PASSES, MEMORY_KIB, LANES = 3, 65536, 4\n" in source


def test_a_password_of_an_older_cost_is_hashed_anew_at_login(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    person(store, "Ann")
    monkeypatch.setattr(passwords, "PASSES", 2)
    passwords._hasher.cache_clear()
    login(store)
    with store.read() as session:
        assert "t=2" in str(session.scalar(select(Person.password_hash)))
    passwords._hasher.cache_clear()


def test_an_unknown_name_costs_as_much_as_a_wrong_password(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    person(store, "Ann")
    work: list[str] = []
    hasher = passwords._hasher()

    class Watched:
        def verify(self, hash: str, password: bytes) -> bool:
            work.append(hash.rsplit("$", 2)[0])
            return hasher.verify(hash, password)

    passwords._nobodys_hash()
    monkeypatch.setattr(passwords, "_hasher", Watched)
    said = []
    for name in ("Ann", "Nobody"):
        with pytest.raises(LoginRefused) as error:
            login(store, name, "wrong password")
        said.append(str(error.value))
    assert said[0] == said[1]
    assert len(work) == 2
    assert work[0] == work[1]  # the same function at the same cost


def test_a_password_is_the_same_however_it_is_composed(store: Store) -> None:
    token = invitations.invite(store, "annotator", "Ann").token
    invitations.accept(store, token, None, "cafe\u0301 au lait 12")
    assert login(store, password="caf\u00e9 au lait 12")


def test_nothing_secret_is_in_the_database(store: Store, url: str) -> None:
    invited = invitations.invite(store, "annotator", "Ann")
    invitations.accept(store, invited.token, None, "Tr0mbone sundial")
    session_token = login(store, password="Tr0mbone sundial")
    with store.read() as session:
        for table in Person.metadata.sorted_tables:
            rows = str(session.execute(select(table)).all())
            assert not any(secret in rows for secret in (invited.token, session_token, "Tr0mbone"))


# ------------------------------------------------------------------------------------------------------------ sessions


def test_a_session_ends(store: Store, clock: Clock) -> None:
    person(store, "Ann")
    token = sessions.login(store, "Ann", PASSWORD, "192.0.2.1", hours=2)
    clock.now += 2 * 3600 - 1
    assert sessions.person_of(store, token) is not None
    clock.now += 1
    assert sessions.person_of(store, token) is None


def test_a_session_from_a_clock_that_was_ahead_ends_when_it_is_set_back(store: Store, clock: Clock) -> None:
    person(store, "Ann")
    clock.now += 10 * 365 * 86400
    ahead = sessions.login(store, "Ann", PASSWORD, "192.0.2.1", hours=2)
    clock.now -= 600  # a step that clocks make
    assert sessions.person_of(store, ahead) is not None
    clock.now -= 10 * 365 * 86400 - 1200
    assert sessions.person_of(store, ahead) is None  # or it would be good for ten years
    again = sessions.login(store, "Ann", PASSWORD, "192.0.2.1", hours=2)
    assert sessions.person_of(store, again) is not None


def test_logging_out_ends_this_session_alone(store: Store) -> None:
    person(store, "Ann")
    one, other = login(store), login(store)
    sessions.logout(store, one)
    sessions.logout(store, "unknown")
    assert (sessions.person_of(store, one), sessions.person_of(store, other) is None) == (None, False)


def end_by_revoke(store: Store) -> None:
    invitations.revoke(store, "Ann")


def end_by_shutting_out(store: Store) -> None:
    people.set_active(store, "Ann", False)


def end_by_new_password(store: Store) -> None:
    invitations.accept(store, invitations.reset(store, "Ann").token, None, "another long one")


@pytest.mark.parametrize("end", [end_by_revoke, end_by_shutting_out, end_by_new_password])
def test_all_sessions_can_be_ended(store: Store, end: Any) -> None:
    person(store, "Ann")
    tokens = [login(store), login(store)]
    end(store)
    assert [sessions.person_of(store, token) for token in tokens] == [None, None]


def test_who_is_shut_out_is_told_no_more_than_others(store: Store) -> None:
    person(store, "Ann")
    people.set_active(store, "Ann", False)
    with pytest.raises(LoginRefused, match="the name or the password is wrong"):
        login(store)
    people.set_active(store, "Ann", True)
    assert login(store)


def test_a_new_password_replaces_the_old_one(store: Store) -> None:
    person(store, "Ann")
    invited = invitations.reset(store, "Ann")
    assert invitations.invitation(store, invited.token).is_reset
    invitations.accept(store, invited.token, "Mallory", "another long one")
    assert [one.name for one in people.all_people(store)] == ["Ann"]
    with pytest.raises(LoginRefused):
        login(store)
    assert login(store, password="another long one")


def test_a_session_is_seen_once_a_minute(store: Store, clock: Clock) -> None:
    from apps.store.tables import LoginSession

    person(store, "Ann")
    token, start = login(store), clock.now
    for after, seen in ((30, start), (61, start + 61), (90, start + 61), (130, start + 130)):
        clock.now = start + after
        sessions.person_of(store, token)
        with store.read() as session:
            assert session.scalar(select(LoginSession.seen_at)) == seen


# ------------------------------------------------------------------------------------------------------------ guessing


def fail(store: Store, name: str = "Ann", address: str = "192.0.2.1") -> None:
    with pytest.raises(LoginRefused):
        login(store, name, "wrong password", address)


def test_guessing_one_name_from_many_addresses_is_slowed(store: Store, clock: Clock) -> None:
    person(store, "Ann")
    waits = []
    for index in range(14):
        for attempt in range(2):
            try:
                fail(store, address=f"192.0.2.{index}")
                break
            except TooManyAttempts as error:
                assert attempt == 0
                waits.append(error.wait_s)
                clock.now += error.wait_s
    assert waits == [2, 4, 8, 16, 32, 60, 60, 60]  # after five that are free; nobody is kept out for more than a minute


def test_while_there_is_a_wait_the_right_password_is_not_looked_at(store: Store, clock: Clock) -> None:
    person(store, "Ann")
    for index in range(6):
        fail(store, address=f"192.0.2.{index}")
    with pytest.raises(TooManyAttempts, match="try again in 2 seconds"):
        login(store, address="192.0.2.99")
    clock.now += 2
    assert login(store, address="192.0.2.99")
    for _ in range(5):  # the count begins anew
        fail(store)


def test_guessing_many_names_from_one_address_is_slowed(store: Store, clock: Clock) -> None:
    for index in range(21):
        fail(store, f"name {index}")
    with pytest.raises(TooManyAttempts):
        fail(store, "yet another")
    fail(store, "yet another", address="192.0.2.2")


def test_a_login_of_ones_own_clears_no_address(store: Store) -> None:
    person(store, "Ann")
    for index in range(20):
        fail(store, f"name {index}")
        if index % 5 == 4:
            login(store)
    fail(store, "the 21st")
    with pytest.raises(TooManyAttempts):
        login(store)


def test_an_ipv6_network_is_one_address(store: Store) -> None:
    for index in range(21):
        fail(store, f"name {index}", address=f"2001:db8:0:1::{index:x}")
    with pytest.raises(TooManyAttempts):
        fail(store, "yet another", address="2001:db8:0:1:ffff::1")
    fail(store, "yet another", address="2001:db8:0:2::1")


def test_guesses_sent_all_at_once_count_like_guesses_one_by_one(store: Store) -> None:
    person(store, "Ann")

    def guess(index: int) -> str:
        with pytest.raises((LoginRefused, TooManyAttempts)) as error:
            login(store, password=f"guess number {index}", address=f"192.0.2.{index}")
        return error.type.__name__

    said = at_once(30, guess)
    assert said.count("LoginRefused") == 6
    assert said.count("TooManyAttempts") == 24


def test_attempts_are_forgotten_after_a_day(store: Store, clock: Clock) -> None:
    for _ in range(6):
        fail(store)
    clock.now += 86401
    fail(store)
    with store.read() as session:
        assert session.scalars(select(Attempt.failures)).all() == [1, 1]


def test_a_clock_set_back_keeps_nobody_out_for_long(store: Store, clock: Clock) -> None:
    person(store, "Ann")
    for index in range(6):
        fail(store, address=f"192.0.2.{index}")
    clock.now -= 30 * 86400
    with pytest.raises(TooManyAttempts) as error:
        login(store, address="192.0.2.99")
    assert error.value.wait_s <= 60


def test_names_of_attempts_are_not_kept(store: Store) -> None:
    fail(store, "my password by mistake")
    with store.read() as session:
        assert "mistake" not in str(session.scalars(select(Attempt.key)).all())
        assert session.scalar(select(func.count()).select_from(Event)) == 0


# ------------------------------------------------------------------------------------------------------------ browsers


def test_a_browser_that_is_known_waits_for_nobody_elses_guesses(store: Store) -> None:
    ann = person(store, "Ann")
    begun = sessions.begin(store, ann.id, 12, "", "her browser")
    assert sessions.person_of(store, begun) == ann
    for index in range(30):  # somebody in the same office
        try:
            fail(store, f"nobody {index}")
        except TooManyAttempts:
            break
    for _ in range(6):
        fail(store, address="192.0.2.66")  # and one who knows her name
    for address in ("192.0.2.1", "192.0.2.66"):
        with pytest.raises(TooManyAttempts):
            login(store, address=address)
    for device, following in (("her browser", "renewed"), ("renewed", "again")):
        assert sessions.login(store, "ann", PASSWORD, "192.0.2.1", 12, device, following)
    for device, name in (("her browser", "Ann"), ("a guess", "Ann"), ("", "Ann"), ("again", "Bob")):
        with pytest.raises(TooManyAttempts):  # an older token, one that is nobody's, and hers for another name
            sessions.login(store, name, PASSWORD, "192.0.2.1", 12, device)


def test_a_browser_that_is_known_is_slowed_by_its_own_guesses(store: Store, clock: Clock) -> None:
    ann = person(store, "Ann")
    sessions.begin(store, ann.id, 12, "", "her browser")
    for _ in range(6):
        with pytest.raises(LoginRefused):
            sessions.login(store, "Ann", "wrong password", "192.0.2.1", 12, "her browser")
    with pytest.raises(TooManyAttempts):
        sessions.login(store, "Ann", PASSWORD, "192.0.2.1", 12, "her browser")
    assert login(store)  # her other browsers know nothing of it
    clock.now += 61
    assert sessions.login(store, "Ann", PASSWORD, "192.0.2.1", 12, "her browser")


@pytest.mark.parametrize("end", [end_by_revoke, end_by_new_password, None])
def test_a_browser_is_forgotten(store: Store, clock: Clock, end: Any) -> None:
    ann = person(store, "Ann")
    sessions.begin(store, ann.id, 12, "", "a thief's")
    if end is None:
        clock.now += sessions.DEVICE_S
    else:
        end(store)
    for _ in range(6):
        fail(store)
    with pytest.raises(TooManyAttempts):
        sessions.login(store, "Ann", PASSWORD, "192.0.2.9", 12, "a thief's")


def test_where_no_address_is_known_names_are_slowed_alone(store: Store) -> None:
    person(store, "Ann")
    for index in range(30):
        fail(store, f"nobody {index}", "")
    assert login(store, address="")
    for _ in range(6):
        fail(store, address="")
    with pytest.raises(TooManyAttempts):
        login(store, address="")
