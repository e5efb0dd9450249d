"""The lead's API: what it shows, what a decision changes, what is refused in words. Roles: see test_attacks.py."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from offices import new_id, prompt, ranking
from served import BASE, Member, Place

from apps.store import adding, invitations, people, projects, queue, tokens
from apps.store.project import Project
from apps.store.tables import Task


@pytest.fixture
def dispute(place: Place) -> tuple[Member, int]:
    """A reviewer, and a task that two people rank in opposite orders."""
    place.add([prompt("# What is $x^2$?", 2)])
    for name, ranks in (("bob", (1, 2)), ("cyd", (2, 1))):
        member = place.member(name)
        task = member.call("POST", "claim", {}).json()["task"]
        best = [int("answer 0" not in answer["text"]) + 1 for answer in task["answers"]]
        payload = ranking(*(ranks[rank - 1] for rank in best)) | {"comment": f"{name}'s"}
        sent = {"id": new_id(), "task": task["id"], "lease": task["lease"], "payload": payload}
        assert member.call("POST", "submit", sent).status_code == 200
    rita = place.member("rita", "reviewer")
    (found,) = rita.call("GET", "lead/page").json()["disputes"]
    return rita, found["task"]


def done(member: Member, path: str, **body: object) -> str:
    """What was done, in words."""
    answer = member.call("POST", f"lead/{path}", body)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["done"])


def refused(member: Member, path: str, status: int, **body: object) -> str:
    """Why it was not."""
    answer = member.call("POST", f"lead/{path}", body)
    assert answer.status_code == status, answer.text
    assert "--" not in answer.text  # a command line's flags mean nothing on the web
    return f"{answer.json()['error']['message']} {answer.json()['error']['remedy']}"


def test_a_dispute_is_listed_shown_and_decided(place: Place, dispute: tuple[Member, int]) -> None:
    rita, task = dispute
    listed = rita.call("GET", "lead/page").json()
    assert listed["asks"]["role"] == "reviewer"
    assert [(one["task"], one["beginning"]) for one in listed["disputes"]] == [(task, "# What is $x^2$?")]
    shown = rita.call("GET", f"lead/tasks/{task}").json()["task"]
    assert "<math" in shown["prompt"][0]["html"]
    assert [answer["text"][:8] for answer in shown["answers"]] == ["answer 0", "answer 1"]
    assert "model" not in json.dumps(shown["answers"])
    assert [row[:4] for row in shown["rankings"]["rows"]] == [["bob", "ranked", "1", "2"], ["cyd", "ranked", "2", "1"]]
    assert ["bob", "the task", "–", "", "bob's"] in shown["remarks"]["rows"]
    assert "one more person (3 in total)" in done(rita, "send_back", task=task)
    assert "already waits for 1 more rankings" in refused(rita, "send_back", 409, task=task)
    assert rita.call("GET", "lead/page").json()["disputes"] == []
    assert "is closed" in done(rita, "close", task=task)
    assert "is closed" in refused(rita, "send_back", 409, task=task)
    assert "open again" in done(rita, "reopen", task=task)
    assert "accepted" in done(rita, "accept", task=task)


def test_a_task_of_another_project_is_none_of_this_one(place: Place, dispute: tuple[Member, int]) -> None:
    rita, task = dispute
    store = place.project.store
    other = projects.sync(store, "other", place.project.recipe.settings())
    adding.add_tasks(store, other, [prompt("theirs", 2)], "rank")
    queue.draw(store, other)
    for path in ("accept", "send_back", "close", "reopen"):
        for wrong in (task + 1, 10**12, -1):
            assert f"This project has no task {wrong}" in refused(rita, path, 404, task=wrong)
    assert "no ranking task" in refused(rita, "edit", 409, task=task + 1, text="x")
    assert rita.call("GET", f"lead/tasks/{task + 1}").status_code == 404
    assert rita.call("POST", "lead/close", {"task": 10**20}).status_code == 422
    with store.read() as session:
        assert session.get_one(Task, task + 1).status == "open"


def test_tasks_are_assigned_and_given_back(place: Place, dispute: tuple[Member, int]) -> None:
    rita, task = dispute
    assert "1 task is assigned to bob only" in done(rita, "assign", tasks=[task], names=["bob"])
    assert rita.call("GET", f"lead/tasks/{task}").json()["task"]["assigned"] == ["bob"]
    assert "nobody has this name" in refused(rita, "assign", 409, tasks=[task], names=["mallory"]).lower()
    assert "1 task is open to everybody" in done(rita, "unassign", tasks=[task])
    assert rita.call("GET", f"lead/tasks/{task}").json()["task"]["assigned"] == []


def test_guidelines_are_saved_once_of_each_version(place: Place) -> None:
    rita = place.member("rita", "reviewer")
    first = rita.call("GET", "lead/guidelines").json()
    assert (first["version"], first["html"][:4], len(first["versions"])) == (1, "<h1 ", 1)
    assert "version 2" in done(rita, "guidelines", text="**new**", version=1)
    assert "version 2" in refused(rita, "guidelines", 409, text="other", version=1)
    now = rita.call("GET", "lead/guidelines").json()
    assert (now["text"], [one["by"] for one in now["versions"]]) == ("**new**", ["rita", None])
    preview = rita.call("POST", "lead/preview", {"text": "<b>x</b> $y$"}).json()["html"]
    assert "&lt;b&gt;" in preview
    assert "<math" in preview


@pytest.mark.parametrize("name", ["rankings", "preferences", "audit"])
def test_an_export_is_a_file_of_rows(dispute: tuple[Member, int], name: str) -> None:
    answer = dispute[0].call("GET", f"lead/export/{name}")
    assert answer.headers["content-type"] == "application/x-ndjson"
    rows = [json.loads(line) for line in answer.text.splitlines()]
    assert len(rows) >= 2
    assert dispute[0].call("GET", "lead/export/secrets").status_code == 422


def test_people_as_a_file(dispute: tuple[Member, int]) -> None:
    answer = dispute[0].call("GET", "lead/export/people")
    assert answer.headers["content-type"].startswith("text/csv")
    assert [line.split(",")[0] for line in answer.text.splitlines()][1:] == ["bob", "cyd"]


def test_many_are_invited_and_each_link_works_once(place: Place) -> None:
    ada = place.member("ada", "admin")
    made = ada.call(
        "POST", "lead/invite_many", {"role": "annotator", "names": "eve\nfay, fay@example.org", "days": 3}
    ).json()
    assert [one["name"] for one in made["invited"]] == ["eve", "fay"]
    for one in made["invited"]:
        assert one["link"].startswith(f"{BASE}/invitation/")
        assert invitations.invitation(place.project.store, one["link"].rpartition("/")[2]).name == one["name"]
    assert "taken" in refused(ada, "invite_many", 422, role="annotator", names="gus\nAda")
    assert "days" in refused(ada, "invite", 422, role="annotator", days=10**6)
    unnamed = ada.call("POST", "lead/invite", {"role": "reviewer"}).json()["invited"][0]
    (waiting,) = [one for one in ada.call("GET", "lead/people").json()["invited"] if one["name"] is None]
    assert "is revoked" in done(ada, "end", name=waiting["id"])
    assert place.client().get(unnamed["link"]).status_code == 404


def test_the_list_of_people_has_limits_and_who_failed_practice(make_place: Callable[..., Place]) -> None:
    place = make_place(practice={"required": 1, "pass_share": 1.0})
    place.add([prompt("practice", 2, expected=(1, 2))], "practice")
    place.tasks(1)
    ada, bob = place.member("ada", "admin"), place.member("bob")
    task = bob.call("POST", "claim", {}).json()["task"]
    wrong = ranking(*(2 - ("answer 1" in answer["text"]) for answer in task["answers"]))
    sent = {"id": new_id(), "task": task["id"], "lease": task["lease"], "payload": wrong}
    assert bob.call("POST", "submit", sent).status_code == 200
    assert bob.call("POST", "claim", {}).json()["task"] is None
    done(ada, "limit", name="bob", most=7)
    done(ada, "pause_person", name="bob", paused=True)
    (row,) = [one for one in ada.call("GET", "lead/people").json()["people"] if one["name"] == "bob"]
    assert (row["failed_practice"], row["paused"], row["most"]) == (True, True, 7)
    assert "bob repeats 1 practice tasks" in done(ada, "practice", name="bob")
    done(ada, "pause_person", name="bob", paused=False)
    assert bob.call("POST", "claim", {}).json()["task"]["kind"] == "practice"
    assert "whole number" in refused(ada, "limit", 409, name="bob", most=-1)


def test_an_admin_shuts_out_gives_roles_and_erases(place: Place) -> None:
    ada, store = place.member("ada", "admin"), place.project.store
    bob = place.member("bob")
    assert "bob is deactivated" in done(ada, "active", name="bob", active=False)
    assert bob.call("GET", "config").status_code == 401
    assert "bob can log in" in done(ada, "active", name="bob", active=True)
    assert "bob is now reviewer" in done(ada, "role", name="bob", role="reviewer")
    assert "last active admin" in refused(ada, "role", 409, name="ada", role="annotator")
    token = ada.call("POST", "lead/tokens", {"name": "bob", "purpose": "nightly", "days": 2}).json()["token"]
    assert tokens.person_of(store, token) is not None
    (known,) = ada.call("GET", "lead/tokens").json()["tokens"]
    assert (known["person"], known["purpose"]) == ("bob", "nightly")
    done(ada, "revoke_token", id=known["id"])
    assert tokens.person_of(store, token) is None
    assert "bob is " in done(ada, "erase", name="bob")
    assert "bob" not in [one.name for one in people.all_people(store)]


def test_each_project_of_a_server_has_its_own_figures(make_place: Callable[..., Place]) -> None:
    from apps.label.server import ranking_app

    first = make_place().project
    recipe = first.recipe.model_copy(update={"name": "second"})
    second = Project(recipe, first.store, projects.sync(first.store, "second", recipe.settings()))
    place = Place(second, ranking_app([first, second]))
    place.tasks(3)
    rita = place.member("rita", "reviewer")
    assert rita.call("GET", "lead/page").status_code == 404
    for project, n in ((first, 0), (second, 3)):
        page = rita.call("GET", f"lead/page?project={project.id}").json()
        assert page["project"] == {"id": project.id, "name": project.recipe.name, "paused": False}
        assert page["sections"]["progress"][0]["rows"][1] == ["tasks done", f"0 of {n}"]
