"""What must not be possible for somebody who is not logged in, for an annotator, and for another site's page."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from offices import new_id, ranking
from served import BASE, PASSWORD, Place
from starlette.routing import Mount, Route

from apps.store import invitations, people, tasks
from apps.web.gate import BUNDLE

OWN = {"X-Align": "1"}
PAGES = ("/projects", "/", "/login", "/logout", "/account", "/invitation/{token}")
ANYBODY = {*PAGES, "/health", "/favicon.ico", "/static/math.ttf"}


def parent(place: Place) -> Any:
    return place.app.app  # type: ignore[attr-defined]


def flat(routes: Any) -> Iterator[Any]:
    """Routes and mounts, those of included routers too."""
    for route in routes:
        inner = getattr(route, "original_router", None)
        yield from [route] if inner is None else flat(inner.routes)


def routes(place: Place, prefix: str) -> Iterator[tuple[str, str]]:
    """(method, path) of every route of the application below a prefix; parameters have values."""
    for route in flat(parent(place).routes):
        mounted = isinstance(route, Mount) and route.path == prefix
        for inner in flat(route.app.routes) if mounted else [route]:
            path = prefix + inner.path if mounted else inner.path
            for method in getattr(inner, "methods", None) or ():
                if path.startswith(prefix):
                    yield method, re.sub(r"\{[^}]*\}", "1" if mounted else new_id(), path)


def test_every_route_of_the_api_asks_who_is_there(shared: Place) -> None:
    found = [(method, path) for method, path in routes(shared, "/api/") if method != "HEAD"]
    assert len(found) >= 13
    for method, path in found:
        for client in (shared.client(), shared.client("a token that nobody has")):
            answer = client.request(method, path, headers=OWN, json={})
            assert (answer.status_code, answer.json()["error"]["message"]) == (401, "You are logged out."), path
        member = shared.client(shared.token(shared.member(new_id()).who.name))
        assert member.request(method, path, headers={"Origin": BASE}, json={}).status_code == 403, path  # no X-Align


def test_there_is_nothing_beside_what_is_known(shared: Place) -> None:
    """A new route has to be looked at here: nothing gives annotators an export, a list of people, or documentation."""
    found = {route.path for route in flat(parent(shared).routes) if isinstance(route, Route)}
    assert {path for path in found if not path.startswith("/api/")} == ANYBODY
    assert {route.path for route in flat(parent(shared).routes) if isinstance(route, Mount)} == {
        "/static", "/static/label", "/app", "/lead",
    }  # fmt: skip


def test_a_page_that_was_left_open_says_nothing_in_the_name_of_who_came_after(shared: Place) -> None:
    ada, bob = shared.member("page of ada"), shared.member("bob after her")
    for method, path in routes(shared, "/api/"):
        if method != "HEAD":
            headers = {**OWN, "X-Align-Person": str(ada.who.id)}
            answer = bob.client.request(method, path, headers=headers, json={})
            assert answer.status_code == 401, path
            assert "bob after her is now logged in" in answer.json()["error"]["message"]
    named = bob.client.get("/api/progress", headers={**OWN, "X-Align-Person": str(bob.who.id)})
    assert named.status_code == 200


def test_one_annotator_cannot_read_or_change_anothers_work(place: Place) -> None:
    place.tasks(2)
    ada, bob = place.member("ada"), place.member("bob")
    open_task = ada.call("POST", "claim", {}).json()["task"]
    sent = {"id": new_id(), "task": open_task["id"], "lease": open_task["lease"], "payload": ranking(1, 2, 3, 4)}
    assert ada.call("POST", "submit", sent).status_code == 200
    task = ada.call("POST", "claim", {}).json()["task"]
    draft = {"answers": {}, "ranks": {"0": 2}, "comment": "ada's"}
    ada.call("PUT", "draft", {"task": task["id"], "rev": 1, "payload": draft})

    def attempts(task_id: int, lease: str, annotation: str) -> list[tuple[str, str, dict[str, Any] | None]]:
        about = {"task": task_id, "lease": lease}
        payload = ranking(4, 3, 2, 1)
        return [
            ("POST", "heartbeat", about),
            ("PUT", "draft", {"task": task_id, "rev": 2**52, "payload": payload}),
            ("POST", "submit", {**about, "id": new_id(), "payload": payload}),
            ("POST", "submit", {**about, "id": annotation, "payload": payload}),
            ("POST", "skip", {**about, "id": annotation, "reason": "x"}),
            ("POST", "flag", {**about, "id": annotation, "reason": "x"}),
            ("POST", "undo", {"id": annotation}),
            ("GET", f"mine/{annotation}", None),
            ("POST", f"mine/{annotation}", {"task": task_id, "payload": payload}),
        ]

    hers = attempts(task["id"], task["lease"], sent["id"])
    nobodys = attempts(999_999, "no lease", new_id())
    for (method, path, body), (_, unknown, other) in zip(hers, nobodys, strict=True):
        mine, none = bob.call(method, path, body), bob.call(method, unknown, other)
        assert (mine.status_code, mine.json()) == (none.status_code, none.json()), path  # hers cannot be told from none
        assert mine.status_code == 404
        assert "1, 2" not in mine.text

    again = ada.call("POST", "claim", {}).json()["task"]
    assert (again["id"], again["lease"], again["draft"]) == (task["id"], task["lease"], draft)
    saved = ada.call("GET", f"mine/{sent['id']}").json()["task"]
    assert (saved["payload"]["ranks"], saved["revision"]) == ({"0": 1, "1": 2, "2": 3, "3": 4}, 1)
    assert bob.call("GET", "mine").json() == {"items": [], "before": None}


def test_annotators_reach_nothing_of_the_leads_page(shared: Place) -> None:
    annotator, reviewer = shared.member(new_id()), shared.member(new_id(), "reviewer")
    n = 0
    for method, path in routes(shared, "/lead"):
        if BUNDLE.fullmatch(path.removeprefix("/lead")) or method not in ("GET", "POST"):
            continue
        n += 1
        answer = annotator.client.request(method, path, headers=OWN)
        assert answer.status_code == 403, (method, path)
        assert shared.client().request(method, path, headers=OWN).status_code in (303, 401), (method, path)
    assert n > 50
    assert reviewer.client.get("/lead/").status_code == 200


def test_annotators_are_answered_by_no_route_of_the_leads_and_reviewers_manage_nobody(shared: Place) -> None:
    """The role counts that the database has at this moment."""
    annotator, reviewer = shared.member(new_id()), shared.member(new_id(), "reviewer")
    shared.member(new_id(), "admin")  # who stays one
    was_admin = shared.member(new_id(), "admin")
    people.set_role(shared.project.store, was_admin.who.name, "annotator")
    found = {(method, path) for method, path in routes(shared, "/api/lead/") if method != "HEAD"}
    assert len(found) >= 30
    before = people.all_people(shared.project.store), invitations.pending_invitations(shared.project.store)
    refused = set()
    for method, path in found:
        for member in (annotator, was_admin):
            answer = member.client.request(method, path, headers=OWN, json={})
            assert answer.status_code == 403, path
            assert "only." in answer.json()["error"]["message"], path
        if reviewer.client.request(method, path, headers=OWN, json={}).status_code == 403:
            refused.add(path.removeprefix("/api/lead/"))
    assert refused == {
        "invite", "invite_many", "reset", "active", "role", "end", "erase", "pause_person", "limit", "practice",
        "tokens", "revoke_token",
    }  # fmt: skip
    assert (people.all_people(shared.project.store), invitations.pending_invitations(shared.project.store)) == before


@pytest.mark.parametrize("role", ["annotator", "reviewer", "admin"])
def test_of_gradio_nobody_reaches_more_than_the_pages(shared: Place, role: str) -> None:
    """Neither its queue, which took values that name files of the server, nor its uploads and files."""
    member = shared.member(new_id(), role)
    mounts = ("/app",) if role == "annotator" else ("/app", "/lead")
    reached = set()
    for mount in mounts:
        for method, path in routes(shared, mount):
            inner = path.removeprefix(mount)
            if method in ("GET", "POST") and not BUNDLE.fullmatch(inner):
                answer = member.client.request(method, path, headers=OWN)
                if answer.status_code not in (404, 405):
                    reached.add((method, inner))
    assert {path.rstrip("/") for _, path in reached} <= {"", "/config", "/theme.css"}
    names = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    event = {"data": [names], "fn_index": 0, "session_hash": "s", "event_data": None, "trigger_id": None}
    for mount in mounts:
        for path in ("queue/join", "queue/data", "cancel", "reset", "upload", "file=/etc/passwd", "file=labels.db",
                     "proxy=http://evil.example/", "run/predict", "api/predict", "runs", "call/x"):  # fmt: skip
            for method in ("GET", "POST"):
                answer = member.client.request(method, f"{mount}/gradio_api/{path}", headers=OWN, json=event)
                assert answer.status_code == 404, path


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/%2e%2e/server.py", "/static//etc/passwd",
     "/static/label/..%5c..%5cserver.py", "/app/assets/..%2f..%2f..%2fapp.py", "/app/static/%2e%2e/%2e%2e/index.html",
     "/lead/assets/../../x"],
)  # fmt: skip
def test_no_path_leads_out_of_the_static_folders(shared: Place, path: str) -> None:
    answer = shared.client().get(BASE + path)
    assert answer.status_code in (303, 400, 401, 403, 404), path
    assert "import" not in answer.text


def test_other_sites_cannot_use_a_persons_session(shared: Place) -> None:
    member = shared.member(new_id())
    foreign = {"Origin": "https://evil.example"}
    for headers in (foreign, foreign | OWN, {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"} | OWN, {}):
        for path in ("/api/claim", "/logout", "/login", "/app/gradio_api/queue/join"):
            assert member.client.post(path, headers=headers, json={}).status_code == 403, (path, headers)
    assert member.client.get("/api/config", headers=foreign | OWN).status_code == 403
    assert member.client.get("/app/config", headers=foreign).status_code == 403
    assert member.call("GET", "config").status_code == 200  # still logged in


def test_guessing_is_slowed_down_for_a_name_and_for_an_address(place: Place) -> None:
    ada = place.member("ada")
    client = place.client()
    statuses = [
        client.post("/login", headers=OWN, data={"name": "ada", "password": "wrong"}).status_code for _ in range(8)
    ]
    assert statuses[0] == 401
    assert statuses[-1] == 429
    blocked = client.post("/login", headers=OWN, data={"name": "ada", "password": PASSWORD})
    assert blocked.status_code == 429  # even the right one
    assert int(blocked.headers["retry-after"]) >= 1
    assert ada.call("GET", "config").status_code == 200  # who is logged in goes on working
    for index in range(25):
        last = client.post("/login", headers=OWN, data={"name": f"nobody{index}", "password": "wrong"})
    assert last.status_code == 429


def test_an_unknown_name_is_answered_like_a_wrong_password(place: Place) -> None:
    place.member("ada")
    pages = []
    for name in ("ada", "nobody"):
        answer = place.client().post("/login", headers=OWN, data={"name": name, "password": "wrong words here"})
        pages.append((answer.status_code, answer.text.replace(name, "NAME")))
    assert pages[0] == pages[1]


def test_no_secret_is_in_a_log(place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # the tests' own client
    token = invitations.invite(place.project.store, "annotator").token
    client = place.client(raise_server_exceptions=False)
    form = {"name": "ada", "password": "sesame opens it", "again": "sesame opens it"}
    client.get(f"/invitation/{token}")
    accepted = client.post(f"/invitation/{token}", headers=OWN, data=form)
    session = accepted.cookies["align_label"]
    client.post(f"/invitation/{token}", headers={"Origin": "http://evil.example"}, data=form)
    client.post("/login", headers=OWN, data={"name": "ada", "password": "a wrong secret"})

    def broken(*_: Any) -> None:
        raise RuntimeError("something that nobody foresaw")

    monkeypatch.setattr(tasks, "claim", broken)
    failed = client.post("/api/claim", headers=OWN, json={}, cookies={"align_label": session})
    assert failed.status_code == 500
    assert "foresaw" not in failed.text
    told = caplog.text + "".join(str(record.__dict__) for record in caplog.records if record.name.startswith("align"))
    for secret in (token, session, "sesame opens it", "a wrong secret"):
        assert secret not in told


def test_a_session_that_was_ended_is_ended_everywhere(place: Place) -> None:
    ada = place.member("ada")
    assert ada.call("GET", "config").status_code == 200
    people.set_active(place.project.store, "ada", False)
    assert ada.call("GET", "config").status_code == 401
    assert ada.client.get("/app/").headers["location"] == "/login?next=/app/"


def test_a_lead_who_is_one_no_more_is_let_in_no_more(place: Place) -> None:
    ada = place.member("ada", "reviewer")
    assert ada.client.get("/lead/").status_code == 200
    people.set_role(place.project.store, "ada", "annotator")
    assert ada.client.get("/lead/").status_code == 403


def test_names_are_text_on_every_page(make_place: Callable[..., Place]) -> None:
    place = make_place()
    name = "{{7*7}}<b>${1}"
    lead = place.member(name, "admin")
    page = lead.client.get("/account").text
    assert "{{7*7}}&lt;b&gt;${1}" in page
    assert "judge &amp; compare" in page
    wrong = place.client().post("/login", headers=OWN, data={"name": '"><script>pwned()</script>', "password": "x"})
    assert "<script>" not in wrong.text
    assert "<script>pwned" not in lead.client.get("/app/").text


@pytest.mark.parametrize("number", [10**20, -(10**20), 2**63, "1e9", "x"])
def test_numbers_that_no_database_holds_are_refused_in_words(shared: Place, number: object) -> None:
    eve = shared.member(f"eve of {number}")
    draft = {"task": 1, "rev": number, "payload": {}}
    for answer in (eve.call("GET", f"mine?before={number}"), eve.call("PUT", "draft", draft)):
        assert answer.status_code == 422
        assert answer.json()["error"]["message"]
