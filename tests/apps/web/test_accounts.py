"""Login, invitations and logout, as a browser without scripts sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from offices import at_once, person
from sqlalchemy import update
from starlette.testclient import TestClient

from apps.store import invitations, people, sessions
from apps.store.engine import Store
from apps.store.errors import LoginRefused, Refused
from apps.store.tables import Invitation
from apps.web.accounts import Site, _local
from apps.web.server import create_app, guarded

BASE = "http://127.0.0.1"
FORM = {"Origin": BASE}
WORDS = "four words or more"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(str(tmp_path / "labels.db"))
    yield opened
    opened.close()


def client_of(store: Store, **site: object) -> TestClient:
    made = Site("a project", "label", **site)  # type: ignore[arg-type]
    app = create_app(store, made, {})
    return TestClient(guarded(app, made, "127.0.0.1"), base_url=made.origin or BASE, follow_redirects=False)


def test_an_invitation_makes_a_person_who_is_logged_in(store: Store) -> None:
    client = client_of(store)
    token = invitations.invite(store, "annotator").token
    page = client.get(f"/invitation/{token}")
    assert "You are invited as annotator" in page.text
    form = {"name": "Ada", "password": WORDS, "again": WORDS, "role": "admin"}
    answer = client.post(f"/invitation/{token}", headers=FORM, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/app/")
    assert "You are logged in as annotator" in client.get("/account").text
    assert people.by_name(store, "ada").role == "annotator"  # whatever the form says
    again = client.post(f"/invitation/{token}", headers=FORM, data={**form, "name": "Eve"})
    assert again.status_code == 404
    assert "no longer valid" in again.text


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"name": "Ada", "password": WORDS, "again": "something else"}, "differ"),
        ({"name": "Ada", "password": "short", "again": "short"}, "give 10 to"),
        ({"name": "", "password": WORDS, "again": WORDS}, "give 1 to 60"),
        ({"name": "bob", "password": WORDS, "again": WORDS}, "taken"),
    ],
)
def test_an_invitation_that_is_filled_in_wrongly_stays_open(store: Store, form: dict[str, str], told: str) -> None:
    person(store, "Bob")
    client = client_of(store)
    token = invitations.invite(store, "annotator").token
    answer = client.post(f"/invitation/{token}", headers=FORM, data=form)
    assert answer.status_code == 422
    assert told in answer.text
    assert WORDS not in answer.text
    assert invitations.invitation(store, token).role == "annotator"


def test_a_reset_keeps_the_name_and_ends_other_sessions(store: Store) -> None:
    person(store, "Ada")
    old = sessions.login(store, "Ada", WORDS, "10.0.0.1")
    client = client_of(store)
    token = invitations.reset(store, "Ada").token
    assert 'value="Ada"' in client.get(f"/invitation/{token}").text
    form = {"name": "Eve", "password": "other words instead", "again": "other words instead"}
    assert client.post(f"/invitation/{token}", headers=FORM, data=form).status_code == 303
    assert [somebody.name for somebody in people.all_people(store)] == ["Ada"]
    assert sessions.person_of(store, old) is None


def test_of_several_links_that_set_a_password_one_is_good_and_once(store: Store) -> None:
    person(store, "Ada")
    client = client_of(store)
    oldest, older, newest = (invitations.reset(store, "Ada").token for _ in range(3))
    form = {"name": "Ada", "password": "other words instead", "again": "other words instead"}
    for token in (oldest, older):
        assert client.post(f"/invitation/{token}", headers=FORM, data=form).status_code == 404
    left = invitations.invite(store, "annotator").token  # a link that is nobody's is another matter
    assert client.post(f"/invitation/{newest}", headers=FORM, data=form).status_code == 303
    assert client.post(f"/invitation/{newest}", headers=FORM, data=form).status_code == 404
    assert invitations.invitation(store, left).role == "annotator"


@pytest.mark.parametrize("is_reset", [False, True])
def test_of_twelve_clients_at_once_one_comes_in_by_a_link(store: Store, is_reset: bool) -> None:
    person(store, "Ada")
    token = (invitations.reset(store, "Ada") if is_reset else invitations.invite(store, "admin")).token
    clients = [client_of(store) for _ in range(12)]
    for client in clients:
        client.get("/login")  # FastAPI makes its routes ready at the first request

    def come(n: int) -> int:
        form = {"name": f"person {n}", "password": f"words of number {n}", "again": f"words of number {n}"}
        return clients[n].post(f"/invitation/{token}", headers=FORM, data=form).status_code

    statuses = at_once(12, come)
    first = statuses.index(303)
    assert sorted(statuses) == [303] + [404] * 11
    assert [client.get("/account").status_code for client in clients].count(200) == 1
    assert [one.name for one in people.all_people(store)] == (["Ada"] if is_reset else ["Ada", f"person {first}"])


def test_an_invitation_without_a_name_is_taken_back_by_its_id(store: Store) -> None:
    kept, taken = (invitations.invite(store, "admin").token for _ in range(2))
    ids = [one.id for one in invitations.pending_invitations(store)]
    assert len(set(ids)) == 2
    assert not any(id.strip("#") in token for id in ids for token in (kept, taken))
    assert invitations.revoke(store, ids[1]) == 1
    assert invitations.invitation(store, kept).role == "admin"
    with pytest.raises(LoginRefused):
        invitations.accept(store, taken, "Eve", WORDS)
    with pytest.raises(Refused, match="no open invitation has this name or id"):
        invitations.revoke(store, ids[1])


def test_using_a_link_ends_those_that_were_made_at_the_same_time(store: Store) -> None:
    person(store, "Ada")
    first = invitations.reset(store, "Ada").token
    with store.write() as session:  # as a database has it that was written before links ended each other
        session.execute(update(Invitation).values(revoked_at=None))
    second = invitations.reset(store, "Ada").token
    with store.write() as session:
        session.execute(update(Invitation).values(revoked_at=None))
    invitations.accept(store, second, None, "other words instead")
    with pytest.raises(LoginRefused):
        invitations.accept(store, first, None, "the words of a thief")


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(store: Store) -> None:
    person(store, "Ada")
    form = {"name": "ada", "password": WORDS}
    plain = client_of(store).post("/login", headers=FORM, data=form).headers["set-cookie"]
    assert plain.startswith("align_label=")
    for part in ("HttpOnly", "SameSite=strict", "Path=/", "Max-Age=43200"):
        assert part in plain
    assert "Secure" not in plain
    origin = "https://label.example.org"
    safe = client_of(store, origin=origin, session_hours=1).post("/login", headers={"Origin": origin}, data=form)
    assert safe.headers["set-cookie"].startswith("__Host-align_label=")
    assert "Secure" in safe.headers["set-cookie"]
    assert "Max-Age=3600" in safe.headers["set-cookie"]
    for answer in (plain, safe.headers["set-cookie"]):  # of the session, and of the browser
        assert answer.count("HttpOnly") == answer.count("SameSite=strict") == answer.count("Path=/") == 2
    assert safe.headers["set-cookie"].count("Secure") == 2


def test_guesses_from_the_same_address_keep_nobody_out_who_was_here_before_or_is_new(store: Store) -> None:
    old, guesser, new = (client_of(store) for _ in range(3))
    person(store, "Ada")
    assert old.post("/login", headers=FORM, data={"name": "Ada", "password": WORDS}).status_code == 303
    old.post("/logout", headers=FORM)
    said = [guesser.post("/login", headers=FORM, data={"name": f"n{n}", "password": "x"}) for n in range(22)]
    assert said[-1].status_code == 429
    token = invitations.invite(store, "annotator").token
    form = {"name": "Bob", "password": WORDS, "again": WORDS}
    assert new.post(f"/invitation/{token}", headers=FORM, data=form).headers["location"] == "/app/"
    for client, name, status in ((guesser, "Ada", 429), (old, "Bob", 429), (old, "Ada", 303), (new, "Bob", 303)):
        answer = client.post("/login", headers=FORM, data={"name": name, "password": WORDS})
        assert answer.status_code == status, name


def test_logging_out_here_and_everywhere(store: Store) -> None:
    person(store, "Ada")
    other = sessions.login(store, "Ada", WORDS, "10.0.0.1")
    client = client_of(store)
    client.post("/login", headers=FORM, data={"name": "Ada", "password": WORDS})
    assert client.get("/logout").status_code == 405  # a link or an image cannot log anybody out
    mine = client.cookies["align_label"]
    assert client.post("/logout", headers=FORM).headers["location"] == "/login"
    assert sessions.person_of(store, mine) is None
    assert sessions.person_of(store, other) is not None
    client.post("/login", headers=FORM, data={"name": "Ada", "password": WORDS})
    client.post("/logout", headers=FORM, data={"everywhere": "yes"})
    assert sessions.person_of(store, other) is None
    assert client.get("/account").headers["location"] == "/login?next=/account"


def test_a_login_leads_on_only_within_this_server(store: Store) -> None:
    person(store, "Ada")
    for given, leads in (
        ("/lead/?project=2", "/lead/?project=2"),
        ("/lead/", "/lead/"),
        ("//evil.example", "/app/"),
        ("https://evil.example/", "/app/"),
    ):
        form = {"name": "Ada", "password": WORDS, "next": given}
        assert client_of(store).post("/login", headers=FORM, data=form).headers["location"] == leads
    for path in (
        "/\\evil.example",
        "\\\\evil.example",
        "javascript:x()",
        "/a\r\nSet-Cookie: b=c",
        "///evil.example",
        "",
    ):
        assert _local(path) == ""


def test_fields_have_a_limit(store: Store) -> None:
    answer = client_of(store).post("/login", headers=FORM, data={"name": "a" * 3000, "password": "b"})
    assert answer.status_code == 422
    assert client_of(store).post("/login", headers=FORM, data={"name": "a"}).status_code == 422


def test_nobody_exists_by_default(store: Store) -> None:
    for name in ("admin", "root", "align", ""):
        for password in ("admin", "password", ""):
            answer = client_of(store).post("/login", headers=FORM, data={"name": name, "password": password})
            assert answer.status_code in (401, 422, 429)
    assert people.all_people(store) == []
