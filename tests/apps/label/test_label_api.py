"""The API behind the labelling page: a task's way from claim to saved, and what each answer says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from offices import new_id, prompt, ranking
from served import Member, Place, project_in
from sqlalchemy import select

from apps.store import people, projects, tokens
from apps.store.errors import Unavailable
from apps.store.tables import Annotation, Task


def claimed(member: Member) -> dict[str, Any]:
    task: dict[str, Any] = member.call("POST", "claim", {}).json()["task"]
    return task


def submission(task: dict[str, Any], payload: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": new_id(), "task": task["id"], "lease": task["lease"], "payload": payload, "seconds": 12.5, **more}


def test_a_task_comes_rendered_and_stays_the_same_after_a_reload(place: Place) -> None:
    place.add([prompt("**why** $x$?", 4)])
    ada = place.member("ada")
    task = claimed(ada)
    assert task["prompt"][0]["text"] == "**why** $x$?"
    assert "<strong>why</strong> <math" in task["prompt"][0]["html"]
    assert [answer["slot"] for answer in task["answers"]] == [0, 1, 2, 3]
    again = claimed(ada)
    assert (again["id"], again["lease"], again["answers"]) == (task["id"], task["lease"], task["answers"])


TOOL_TURNS: list[dict[str, Any]] = [
    {"role": "tools", "content": '[{"type": "function", "function": {"name": "weather"}}]'},
    {"role": "user", "content": "is it **warm** ?"},
    {
        "role": "assistant",
        "content": "",
        "reasoning_content": "<script>alert(1)</script> I *must* look.",
        "tool_calls": [{"type": "function", "function": {"name": "weather", "arguments": {"city": "<b>Åre</b>"}}}],
    },
    {"role": "tool", "content": "*-3* <img src=x onerror=alert(1)>", "name": "weather"},
]


def test_thoughts_and_tools_come_apart_and_safe(place: Place) -> None:
    place.add([prompt("", 4)._replace(messages=TOOL_TURNS)])
    ada = place.member("ada")
    tools, user, assistant, tool = claimed(ada)["prompt"]
    assert tools["text"].splitlines()[3:5] == ['    "function": {', '      "name": "weather"']
    assert "<strong>warm</strong>" in user["html"]
    assert assistant["thoughts"]["text"] == TOOL_TURNS[2]["reasoning_content"]
    assert "<em>must</em>" in assistant["thoughts"]["html"]
    assert assistant["calls"]["text"] == 'weather({"city": "<b>Åre</b>"})'
    assert (tool["name"], tool["html"]) == ("weather", '<pre dir="auto">*-3* &lt;img src=x onerror=alert(1)&gt;</pre>')
    html = "".join(block["html"] for block in (tools, user, assistant, *(assistant[k] for k in ("thoughts", "calls"))))
    assert "<script" not in html
    assert "<b>" not in html


def test_a_prompt_with_other_tools_is_another_prompt_and_the_past_names_the_question(place: Place) -> None:
    other = [TOOL_TURNS[0] | {"content": "[]"}, *TOOL_TURNS[1:]]
    place.add([prompt("", 4)._replace(messages=turns) for turns in (TOOL_TURNS, TOOL_TURNS, other)])
    ada = place.member("ada")
    for _ in range(2):
        task = claimed(ada)
        assert ada.call("POST", "submit", submission(task, ranking(1, 2, 3, 4))).status_code == 200
    assert ada.call("POST", "claim", {}).json()["task"] is None
    assert {past["beginning"] for past in ada.call("GET", "mine").json()["items"]} == {"is it **warm** ?"}


def test_the_order_of_the_answers_is_each_persons_own(make_place: Callable[..., Place]) -> None:
    place = make_place(overlap=6)
    place.tasks(1)
    orders = [tuple(a["text"] for a in claimed(place.member(name))["answers"]) for name in "abcdef"]
    assert len({frozenset(order) for order in orders}) == 1
    assert len(set(orders)) > 1


def test_nothing_that_an_annotator_gets_names_a_model(place: Place) -> None:
    place.tasks(2)
    ada = place.member("ada")
    task = claimed(ada)
    sent = submission(task, ranking(1, 2, 2, 4))
    answers = [
        task,
        ada.call("POST", "submit", sent).json(),
        ada.call("GET", "mine").json(),
        ada.call("GET", f"mine/{sent['id']}").json(),
        ada.call("POST", "undo", {"id": None}).json(),
        ada.call("GET", "progress").json(),
        ada.call("GET", "config").json(),
        ada.call("GET", "guidelines").json(),
    ]
    told = json.dumps(answers)
    assert "model" not in told
    assert not {"output_id", "score", "scores", "makers", "params", "propensity", "priority", "places"} & keys_in(
        answers
    )


def keys_in(value: Any) -> set[str]:
    if isinstance(value, dict):
        return set(value) | {key for inner in value.values() for key in keys_in(inner)}
    return {key for inner in value for key in keys_in(inner)} if isinstance(value, list) else set()


def test_a_draft_comes_back_and_an_older_one_does_not_replace_it(place: Place) -> None:
    place.tasks(1)
    ada = place.member("ada")
    task = claimed(ada)
    draft = {"answers": {"0": {"rating": 3, "flags": [], "comment": "so far"}}, "ranks": {"0": 1}}
    kept = ada.call("PUT", "draft", {"task": task["id"], "rev": 20, "payload": draft})
    assert kept.json() == {"saved": True, "rev": 20}
    older = ada.call("PUT", "draft", {"task": task["id"], "rev": 10, "payload": {}})
    assert older.json() == {"saved": False, "rev": 20}
    again = claimed(ada)
    assert (again["draft"], again["draft_rev"]) == (draft, 20)


def test_a_submit_is_saved_once_however_often_it_is_sent(place: Place) -> None:
    place.tasks(1)
    ada = place.member("ada")
    sent = submission(claimed(ada), ranking(2, 1, 2, 4))
    first, second = ada.call("POST", "submit", sent).json(), ada.call("POST", "submit", sent).json()
    assert first == second == {"saved": True, "id": sent["id"], "revision": 1, "final": False, "feedback": None}
    assert [item["status"] for item in ada.call("GET", "mine").json()["items"]] == ["submitted"]
    done = ada.call("GET", "progress").json()
    assert (done["n_submitted"], done["seconds"]) == (1, 12.5)


def test_ranks_that_nobody_touched_are_not_saved(place: Place) -> None:
    place.tasks(1)
    ada = place.member("ada")
    task = claimed(ada)
    for payload in ({**ranking(1, 2, 3, 4), "ranks": None}, {**ranking(1, 2, 3, 4), "ranks": {"0": 1}}):
        answer = ada.call("POST", "submit", submission(task, payload))
        assert answer.status_code == 422
        assert answer.json()["error"]["code"] == "payload"
    bad = {**ranking(1, 1, 1, 1), "ranks": None, "all_bad": True}
    assert ada.call("POST", "submit", submission(task, bad)).status_code == 200
    (item,) = ada.call("GET", "mine").json()["items"]
    saved = ada.call("GET", f"mine/{item['id']}").json()["task"]["payload"]
    assert saved["all_bad"] is True
    assert saved["ranks"] is None


def test_skip_flag_undo_and_revise(place: Place) -> None:
    place.tasks(3)
    ada = place.member("ada")
    skipped, flagged, ranked = [claimed(ada)], [], []
    about = {"task": skipped[0]["id"], "lease": skipped[0]["lease"], "id": new_id(), "reason": "not my field"}
    assert ada.call("POST", "skip", about).json()["saved"] is True
    flagged.append(claimed(ada))
    about = {"task": flagged[0]["id"], "lease": flagged[0]["lease"], "id": new_id(), "reason": "private data"}
    assert ada.call("POST", "flag", {**about, "comment": "a telephone number"}).json()["saved"] is True
    ranked.append(claimed(ada))
    sent = submission(ranked[0], ranking(1, 2, 3, 4))
    ada.call("POST", "submit", sent)
    assert len({skipped[0]["id"], flagged[0]["id"], ranked[0]["id"]}) == 3
    nothing = ada.call("POST", "claim", {}).json()
    assert (nothing["task"], nothing["nothing"]) == (None, "done")

    revised = ada.call(
        "POST", f"mine/{sent['id']}", {"task": ranked[0]["id"], "payload": ranking(4, 3, 2, 1), "seconds": 3}
    )
    assert revised.json()["revision"] == 2
    back = ada.call("POST", "undo", {"id": sent["id"]}).json()["task"]
    assert back["id"] == ranked[0]["id"]
    assert back["draft"]["ranks"] == {"0": 4, "1": 3, "2": 2, "3": 1}
    again = ada.call("POST", "undo", {"id": sent["id"]}).json()["task"]  # repeated: takes back nothing more
    assert again["id"] == ranked[0]["id"]
    statuses = [item["status"] for item in ada.call("GET", "mine").json()["items"]]
    assert statuses == ["undone", "flagged", "skipped"]


def test_practice_gives_feedback_and_gold_is_not_told_apart(make_place: Callable[..., Place]) -> None:
    place = make_place(practice={"required": 1, "pass_share": 0.5}, gold={"share": 0.999_999})
    place.tasks(1, kind="practice", expected=(1, 2, 3, 4), explanation="the first is true")
    place.tasks(1, kind="gold", expected=(1, 2, 3, 4))
    ada = place.member("ada")
    task = claimed(ada)
    assert task["kind"] == "practice"
    texts = [answer["text"] for answer in task["answers"]]
    right = ranking(*(int(text.split()[1]) + 1 for text in texts))  # "answer 2 to practice 0" is expected third
    feedback = ada.call("POST", "submit", submission(task, right)).json()["feedback"]
    assert feedback["agreement"] == 1.0
    assert feedback["expected"] == right["ranks"]
    assert feedback["explanation"] == "the first is true"
    gold = claimed(ada)
    assert gold["kind"] == "rank"
    assert "expected" not in gold
    assert ada.call("POST", "submit", submission(gold, ranking(1, 2, 3, 4))).json()["feedback"] is None


def test_a_task_is_known_by_its_public_id_alone(place: Place) -> None:
    place.tasks(3)
    ada = place.member("ada")
    task = claimed(ada)
    with place.project.store.read() as session:
        ids = dict(session.execute(select(Task.public_id, Task.id)).tuples().all())
    draft = {"rev": 1, "payload": {}}
    assert ada.call("PUT", "draft", {"task": task["id"], **draft}).status_code == 200
    assert ada.call("PUT", "draft", {"task": ids[task["id"]], **draft}).status_code == 404
    ada.call("POST", "skip", {"id": new_id(), "task": task["id"], "lease": task["lease"], "reason": "unclear"})
    (past,) = ada.call("GET", "mine").json()["items"]
    assert past["task"] == ada.call("GET", f"mine/{past['id']}").json()["task"]["id"] == task["id"]
    other = claimed(ada)
    beat = {"task": other["id"], "lease": other["lease"]}
    assert ada.call("POST", "heartbeat", beat).json() == {"expires_at": other["expires_at"]}
    assert ada.call("POST", "submit", submission(other, ranking(1, 2, 3, 4))).json()["saved"]


def shape(value: Any) -> Any:
    """A JSON value's keys and types."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else type(value).__name__


def test_nothing_that_a_browser_gets_tells_a_gold_task(make_place: Callable[..., Place]) -> None:
    """Its number, the keys and headers of all answers about it, and how the project goes on."""
    place = make_place(gold={"share": 0.5}, overlap=1)
    place.add([prompt(f"{index:02}", 3) for index in range(20)])
    place.add([prompt(f"{index:02}", 3, expected=(1, 2, 3)) for index in range(80, 90)], "gold")
    with place.project.store.read() as session:
        kinds = dict(session.execute(select(Task.public_id, Task.kind)).tuples().all())
    order = [kinds[id] for id in sorted(kinds)]
    assert order.index("gold") + 10 < 30 - order[::-1].index("gold"), "the ten gold tasks are no range"
    ada = place.member("ada")
    told: dict[str, list[Any]] = {"rank": [], "gold": []}
    for _ in range(16):
        found = ada.call("POST", "claim", {})
        task = found.json()["task"]
        beat = ada.call("POST", "heartbeat", {"task": task["id"], "lease": task["lease"]})
        draft = ada.call("PUT", "draft", {"task": task["id"], "rev": 1, "payload": {}})
        sent = ada.call("POST", "submit", submission(task, ranking(1, 2, 3)))
        answers = [found, beat, draft, sent, ada.call("GET", f"mine/{sent.json()['id']}"), ada.call("GET", "progress")]
        sizes = [len(answer.content) for answer in answers[2:4]]
        about = [(answer.status_code, sorted(answer.headers), shape(answer.json())) for answer in answers]
        told[kinds[task["id"]]].append((about, sizes, answers[-1].json()["n_done"] % 5))
    assert len(told["rank"]) > 1, "else nothing is compared"
    assert len(told["gold"]) > 1
    for one in told["rank"] + told["gold"]:
        assert one == told["gold"][0]


def test_a_reviewer_decides_a_task_on_the_page_and_an_annotator_cannot(make_place: Callable[..., Place]) -> None:
    place = make_place(overlap=1)
    place.tasks(1)
    ada, lea, max_ = place.member("ada"), place.member("lea", "reviewer"), place.member("max", "reviewer")
    task = claimed(ada)
    ada.call("POST", "submit", submission(task, ranking(1, 2, 3, 4)))
    assert lea.call("POST", "claim", {}).json()["nothing"] == "done"
    assert ada.call("POST", "adjudicate", {"task": task["id"]}).status_code == 404
    own = lea.call("POST", "adjudicate", {"task": task["id"]}).json()["task"]
    assert (own["id"], own["status"], shape(own)) == (task["id"], None, shape(task))
    late = max_.call("POST", "adjudicate", {"task": task["id"]}).json()["task"]
    answers = [
        who.call("POST", "submit", submission(it, ranking(4, 3, 2, 1))) for who, it in ((lea, own), (max_, late))
    ]
    assert [(one.json()["saved"], one.json()["final"]) for one in answers] == [(True, True), (True, False)]
    with place.project.store.read() as session:
        assert session.scalars(select(Annotation.person_id).where(Annotation.final)).all() == [lea.who.id]


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{", b"null", b'{"task": 1}', b'{"task": "x", "rev": 1, "payload": {}}', b"[" * 100_000,
        b'{"task": 1e99, "rev": 1, "payload": {}}', b'{"task": 9223372036854775808, "rev": 1, "payload": {}}',
        b'{"task": 1, "rev": 1, "payload": {}, "person_id": 2}', b'{"task": 1, "rev": 1, "payload": {"a": NaN}}',
        b'{"task": 1, "rev": 99999999999999999999, "payload": {}}', b'{"task": 1, "rev": 1, "payload": [1]}',
        b"\xff\xfe",
        b'{"task": 1, "rev": 1, "payload": {"comment": "\\ud800"}}',
    ],
)  # fmt: skip
def test_what_is_not_a_draft_is_refused_in_words(shared: Place, body: bytes) -> None:
    member = shared.member(new_id())
    headers = {"X-Align": "1", "Content-Type": "application/json"}
    answer = member.client.put("/api/draft", headers=headers, content=body)
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


def test_comments_may_be_long_and_not_endless(place: Place) -> None:
    place.tasks(1)
    ada = place.member("ada")
    task = claimed(ada)
    payload = ranking(1, 2, 3, 4)
    payload["answers"]["0"]["comment"] = "长" * 9_000 + "\U0001f600\u0000\u202e"
    assert ada.call("PUT", "draft", {"task": task["id"], "rev": 1, "payload": payload}).status_code == 200
    payload["answers"]["0"]["comment"] = "x" * 300_000
    answer = ada.call("PUT", "draft", {"task": task["id"], "rev": 2, "payload": payload})
    assert answer.status_code == 422
    payload["answers"]["0"]["comment"] = "x" * 1_100_000
    assert ada.call("PUT", "draft", {"task": task["id"], "rev": 3, "payload": payload}).status_code == 413


def test_a_database_that_fails_is_told_in_words(shared: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from apps.store import tasks

    member = shared.member(new_id())

    def full(*_: Any) -> None:
        raise Unavailable("the database's disk is full; nothing was saved, make room and try again")

    monkeypatch.setattr(tasks, "claim", full)
    answer = member.call("POST", "claim", {})
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"
    assert answer.json()["error"] == {
        "code": "unavailable",
        "message": "The database's disk is full.",
        "remedy": "Nothing was saved, make room and try again.",
    }


def test_config_and_guidelines(shared: Place) -> None:
    member, lead = shared.member(new_id()), shared.member(new_id(), "reviewer")
    config = member.call("GET", "config").json()
    assert config["project"]["name"] == "judge & compare"
    assert len(config["questions"]["flags"]) == 11
    assert (config["lead"], lead.call("GET", "config").json()["lead"]) == (False, True)
    assert "<em>everything</em>" in member.call("GET", "guidelines").json()["html"]


def test_guidelines_that_were_edited_are_read_at_once(place: Place) -> None:
    ada, store, id = place.member("ada"), place.project.store, place.project.id
    assert (ada.call("GET", "guidelines").json()["version"], ada.call("GET", "progress").json()["guidelines"]) == (1, 1)
    assert projects.edit_guidelines(store, id, "Read *less*.", 1, ada.who.id) == 2
    found = ada.call("GET", "guidelines").json()
    assert (found["version"], "<em>less</em>" in found["html"]) == (2, True)
    assert ada.call("GET", "progress").json()["guidelines"] == 2


def test_a_script_works_by_its_token(place: Place) -> None:
    place.tasks(1)
    ada, bob = place.member("ada"), place.member("bob")
    token = tokens.create(place.project.store, "ada", "script", 1).token
    script = {"Authorization": f"Bearer {token}"}
    task = place.client().post("/api/claim", headers=script).json()["task"]
    said = submission(task, ranking(1, 2, 3, 4))
    assert place.client().post("/api/submit", headers=script, json=said).json()["saved"]
    as_bob = bob.client.get("/api/config", headers=script)  # a cookie beside it is not looked at
    assert as_bob.json()["person"]["name"] == "ada"
    wrong = bob.client.get("/api/config", headers={"Authorization": f"Bearer {token}x"})
    assert (wrong.status_code, "token" in wrong.json()["error"]["message"]) == (401, True)
    people.set_active(place.project.store, "ada", False)
    assert place.client().get("/api/config", headers=script).status_code == 401
    assert ada.call("GET", "config").status_code == 401


# ----------------------------------------------------------------------------------------------------- several projects


def test_one_server_has_several_projects_of_one_database(tmp_path: Path) -> None:
    from apps.label.server import ranking_app

    first = project_in(tmp_path, name="first")
    second = project_in(tmp_path, name="second")
    place = Place(first, ranking_app([first, second]))
    Place(second, place.app).tasks(1)
    ada = place.member("ada")
    assert ada.call("GET", "projects").json()["projects"] == [{"id": 1, "name": "first"}, {"id": 2, "name": "second"}]
    assert ada.call("POST", "claim").status_code == 404, "which one?"
    assert ada.call("POST", "claim?project=3").status_code == 404
    assert ada.call("POST", "claim?project=1").json()["nothing"] == "empty"
    assert ada.call("POST", "claim?project=2").json()["task"]
    assert ada.client.get("/").headers["location"] == "/projects"
    assert "/app/?project=2" in ada.client.get("/projects").text
    assert place.client().get("/app/?project=2").headers["location"] == "/login?next=/app/%3Fproject%3D2"
    for project in (first, second):
        project.store.close()
