"""Drafts, rankings, skips, undo: nothing that was said is lost, and nothing is saved twice."""

from __future__ import annotations

from typing import Any

import pytest
from offices import Clock, Office, at_once, claim, new_id, ranking
from sqlalchemy import func, select

from apps.store import people, progress, tasks, work
from apps.store.errors import BadPayload, NotYours, Refused, Stale
from apps.store.tables import Annotation, Draft, Event, Revision, Task
from apps.store.tasks import TaskView


def submit(office: Office, person: people.PersonInfo, given: TaskView, payload: Any = None, id: str = "") -> work.Saved:
    payload = ranking(1, 2, 3, 4) if payload is None else payload
    return work.submit(office.store, person.id, id or new_id(), given.id, given.lease, payload, 30)


def count(office: Office, table: Any) -> int:
    with office.store.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def task_row(office: Office, task: int) -> Task:
    with office.store.read() as session:
        return session.get_one(Task, task)


@pytest.fixture
def ann(office: Office) -> people.PersonInfo:
    office.tasks(3)
    return office.person("Ann")


@pytest.fixture
def bob(office: Office) -> people.PersonInfo:
    return office.person("Bob")


# -------------------------------------------------------------------------------------------------------------- drafts


def test_the_newest_draft_is_kept(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    saved = [work.save_draft(office.store, ann.id, given.id, {"comment": str(rev)}, rev) for rev in (1, 5, 3, 5)]
    assert [(one.saved, one.rev) for one in saved] == [(True, 1), (True, 5), (False, 5), (True, 5)]
    assert claim(office, ann).draft == {"comment": "5"}


def test_another_draft_of_the_same_number_is_not_taken_for_saved(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    work.save_draft(office.store, ann.id, given.id, {"comment": "here"}, 1)
    assert not work.save_draft(office.store, ann.id, given.id, {"comment": "there"}, 1).saved


def test_a_draft_of_another_person_cannot_be_written(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo
) -> None:
    given = claim(office, ann)
    with pytest.raises(NotYours):
        work.save_draft(office.store, bob.id, given.id, {}, 1)
    assert count(office, Draft) == 0


@pytest.mark.parametrize("rev", [0, -1, True, "1", 2**60, None])
def test_a_drafts_number_counts_from_one(office: Office, ann: people.PersonInfo, rev: Any) -> None:
    given = claim(office, ann)
    with pytest.raises(BadPayload, match="rev"):
        work.save_draft(office.store, ann.id, given.id, {}, rev)


@pytest.mark.parametrize("draft", [None, [], "x", {"comment": "x" * 200_001}, {"x": float("nan")}])
def test_a_draft_is_an_object_of_reasonable_size(office: Office, ann: people.PersonInfo, draft: Any) -> None:
    given = claim(office, ann)
    with pytest.raises(BadPayload, match="payload"):
        work.save_draft(office.store, ann.id, given.id, draft, 1)


@pytest.mark.parametrize("text", ["\0", "\ud800", "نعم، 你好 𝔘 e\u0301", "'; DROP TABLE task; --", "${pwn()} {{7*7}}"])
def test_any_text_comes_back_as_it_was(office: Office, ann: people.PersonInfo, text: str) -> None:
    given = claim(office, ann)
    work.save_draft(office.store, ann.id, given.id, {"comment": text}, 1)
    assert claim(office, ann).draft == {"comment": text}
    payload = ranking(1, 2, 3, 4) | {"comment": text}
    saved = submit(office, ann, given, payload)
    assert work.get(office.store, ann.id, saved.id).payload == payload


# -------------------------------------------------------------------------------------------------------------- submit


def test_a_double_click_saves_once(office: Office, ann: people.PersonInfo) -> None:
    given, id = claim(office, ann), new_id()
    saved = [submit(office, ann, given, id=id) for _ in range(3)]
    assert [(one.id, one.revision, one.replayed) for one in saved] == [(id, 1, False), (id, 1, True), (id, 1, True)]
    assert (count(office, Annotation), count(office, Revision)) == (1, 1)
    assert task_row(office, given.id).n_done == 1


def test_twenty_requests_at_once_save_once(office: Office, ann: people.PersonInfo) -> None:
    given, id = claim(office, ann), new_id()
    saved = at_once(20, lambda _: submit(office, ann, given, id=id))
    assert sorted(one.replayed for one in saved) == [False] + [True] * 19
    assert count(office, Revision) == 1


def test_other_content_is_a_new_revision_and_the_old_one_stays(office: Office, ann: people.PersonInfo) -> None:
    given, id = claim(office, ann), new_id()
    submit(office, ann, given, ranking(1, 2, 3, 4), id)
    assert submit(office, ann, given, ranking(4, 3, 2, 1), id).revision == 2
    with office.store.read() as session:
        kept = session.scalars(select(Revision).order_by(Revision.n)).all()
    assert [one.payload["ranks"]["0"] for one in kept] == [1, 4]
    assert task_row(office, given.id).n_done == 1


def test_two_windows_of_one_person_make_one_annotation(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    first = submit(office, ann, given)
    second = submit(office, ann, given, ranking(2, 1, 3, 4))
    assert (second.id, second.revision) == (first.id, 2)


def test_the_draft_is_gone_after_a_submit_but_not_its_number(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    work.save_draft(office.store, ann.id, given.id, {"comment": "half"}, 4)
    saved = submit(office, ann, given)
    late = work.save_draft(office.store, ann.id, given.id, {"comment": "late"}, 3)  # it was on its way
    assert not late.saved
    assert work.get(office.store, ann.id, saved.id).draft is None


def test_a_late_ranking_counts_while_there_is_a_place(office: Office, ann: people.PersonInfo, clock: Clock) -> None:
    given = claim(office, ann)
    clock.now += 3 * 86400
    assert not submit(office, ann, given).extra
    assert task_row(office, given.id).status == "done"


def test_a_late_ranking_is_kept_beside_where_there_is_none(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo, clock: Clock
) -> None:
    mine = claim(office, ann)
    clock.now += 3600
    theirs = claim(office, bob)
    assert theirs.id == mine.id
    assert submit(office, ann, mine).extra  # Bob holds the only place
    assert not submit(office, bob, theirs).extra
    assert task_row(office, mine.id).n_done == 1
    assert count(office, Revision) == 2


def test_an_extra_ranking_counts_once_its_place_is_free(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo, clock: Clock
) -> None:
    mine = claim(office, ann)
    clock.now += 3600
    theirs = claim(office, bob)
    extra = submit(office, ann, mine)
    tasks.release(office.store, bob.id, theirs.id, theirs.lease)
    assert not work.revise(office.store, ann.id, extra.id, ranking(4, 3, 2, 1)).extra
    assert task_row(office, mine.id).n_done == 1


def test_nobody_submits_for_another(office: Office, ann: people.PersonInfo, bob: people.PersonInfo) -> None:
    given, id = claim(office, ann), new_id()
    said = []
    for task in (given.id, 12345):  # Ann's task, and one that does not exist: the same words
        with pytest.raises(NotYours) as error:
            work.submit(office.store, bob.id, id, task, given.lease, ranking(1, 2, 3, 4))
        said.append(str(error.value))
    assert said[0] == said[1]
    assert count(office, Annotation) == 0


def test_an_id_of_another_cannot_be_used_or_read(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo
) -> None:
    mine, theirs = claim(office, ann), claim(office, bob)
    saved = submit(office, ann, mine)
    said = []
    for id in (saved.id, new_id()):
        with pytest.raises(NotYours) as error:
            work.get(office.store, bob.id, id)
        said.append(str(error.value))
        with pytest.raises(NotYours):
            work.revise(office.store, bob.id, id, ranking(4, 3, 2, 1))
        with pytest.raises(NotYours):
            work.undo(office.store, office.project, bob.id, id)
    assert said[0] == said[1]
    with pytest.raises(NotYours):
        submit(office, bob, theirs, id=saved.id)
    assert work.get(office.store, ann.id, saved.id).revision == 1


@pytest.mark.parametrize("id", ["", "1", "x" * 36, None, 7])
def test_an_id_is_a_uuid(office: Office, ann: people.PersonInfo, id: Any) -> None:
    given = claim(office, ann)
    with pytest.raises(BadPayload, match="UUID"):
        work.submit(office.store, ann.id, id, given.id, given.lease, ranking(1, 2, 3, 4))


def test_one_id_however_it_is_spelt(office: Office, ann: people.PersonInfo) -> None:
    given, id = claim(office, ann), new_id()
    submit(office, ann, given, id=id.upper())
    assert submit(office, ann, given, id=id.replace("-", "")) == work.Saved(
        id, 1, extra=False, final=False, replayed=True, feedback=None
    )


@pytest.mark.parametrize(("seconds", "kept"), [(12.34, 12.3), (-5, 0), (1e9, 86400), ("x", 0), (float("nan"), 0)])
def test_the_time_a_page_claims_is_no_reason_to_refuse(
    office: Office, ann: people.PersonInfo, seconds: Any, kept: float
) -> None:
    given = claim(office, ann)
    work.submit(office.store, ann.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4), seconds)
    with office.store.read() as session:
        assert session.scalar(select(Revision.seconds)) == kept


# -------------------------------------------------------------------------------------------------------- skip and flag


def test_a_skipped_task_goes_to_others_and_keeps_its_draft(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo
) -> None:
    given = claim(office, ann)
    work.save_draft(office.store, ann.id, given.id, {"comment": "half"}, 1)
    saved = work.skip(office.store, ann.id, new_id(), given.id, given.lease, "I do not know the subject")
    assert claim(office, ann).id != given.id
    assert claim(office, bob).id == given.id
    assert work.get(office.store, ann.id, saved.id).draft == {"comment": "half"}
    assert task_row(office, given.id).n_done == 0


def test_a_skipped_or_flagged_task_can_be_ranked_after_all(office: Office, ann: people.PersonInfo) -> None:
    for say in (work.skip, work.flag):
        given = claim(office, ann)
        saved = say(office.store, ann.id, new_id(), given.id, given.lease, "unclear")
        assert work.revise(office.store, ann.id, saved.id, ranking(1, 2, 3, 4)).revision == 2
        assert task_row(office, given.id).n_done == 1


def test_a_window_that_was_left_open_cannot_skip_what_is_ranked(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    submit(office, ann, given)
    with pytest.raises(Stale, match="already ranked"):
        work.skip(office.store, ann.id, new_id(), given.id, given.lease, "unclear")


@pytest.mark.parametrize("reason", ["", None, 3, "x" * 201])
def test_a_skip_says_why(office: Office, ann: people.PersonInfo, reason: Any) -> None:
    given = claim(office, ann)
    with pytest.raises(BadPayload, match="reason"):
        work.skip(office.store, ann.id, new_id(), given.id, given.lease, reason)


# --------------------------------------------------------------------------------------------------------------- undo


def test_undo_gives_the_task_back_with_what_was_said(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    saved = submit(office, ann, given)
    undone = work.undo(office.store, office.project, ann.id)
    assert undone is not None
    assert (undone.id, undone.draft, undone.status) == (given.id, ranking(1, 2, 3, 4), "undone")
    assert task_row(office, given.id).n_done == 0
    assert claim(office, ann).id == given.id
    again = submit(office, ann, undone, ranking(4, 3, 2, 1), new_id())
    assert (again.id, again.revision) == (saved.id, 3)
    assert task_row(office, given.id).n_done == 1


def test_a_repeated_undo_takes_back_one(office: Office, ann: people.PersonInfo) -> None:
    first = submit(office, ann, claim(office, ann))
    second = submit(office, ann, claim(office, ann))
    for _ in range(2):
        assert work.undo(office.store, office.project, ann.id, second.id) is not None
    assert work.get(office.store, ann.id, first.id).status == "submitted"
    assert work.get(office.store, ann.id, second.id).revision == 2


def test_undo_goes_back_step_by_step_and_ends(office: Office, ann: people.PersonInfo) -> None:
    done = [submit(office, ann, claim(office, ann)).id for _ in range(3)]
    undone = [work.undo(office.store, office.project, ann.id) for _ in range(4)]
    assert [one and one.annotation for one in undone] == [*reversed(done), None]


def test_undo_of_a_skip_brings_the_draft_back(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    work.save_draft(office.store, ann.id, given.id, {"comment": "half"}, 1)
    work.skip(office.store, ann.id, new_id(), given.id, given.lease, "too long")
    undone = work.undo(office.store, office.project, ann.id)
    assert undone is not None
    assert (undone.id, undone.draft) == (given.id, {"comment": "half"})


def test_undo_of_a_skip_takes_no_place_from_others(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo
) -> None:
    given = claim(office, ann)
    work.skip(office.store, ann.id, new_id(), given.id, given.lease, "too long")
    theirs = claim(office, bob)
    undone = work.undo(office.store, office.project, ann.id)
    assert undone is not None
    assert undone.expires_at == 0
    assert submit(office, ann, undone).extra
    assert not submit(office, bob, theirs).extra


def test_a_submit_from_before_an_undo_does_not_bring_it_back(office: Office, ann: people.PersonInfo) -> None:
    given, id = claim(office, ann), new_id()
    submit(office, ann, given, id=id)
    work.undo(office.store, office.project, ann.id)
    with pytest.raises(Stale, match="undone in another window"):
        submit(office, ann, given, id=id)
    assert task_row(office, given.id).n_done == 0


# ----------------------------------------------------------------------------------------------------- revise, history


def test_a_repeated_revision_is_saved_once(office: Office, ann: people.PersonInfo) -> None:
    saved = submit(office, ann, claim(office, ann))
    for _ in range(2):
        assert work.revise(office.store, ann.id, saved.id, ranking(1, 1, 2, 2), 5).revision == 2
    assert work.get(office.store, ann.id, saved.id).payload == ranking(1, 1, 2, 2)


def test_history_is_ones_own_the_latest_first_page_by_page(
    office: Office, ann: people.PersonInfo, bob: people.PersonInfo
) -> None:
    mine = [submit(office, ann, claim(office, ann)).id for _ in range(2)]
    submit(office, bob, claim(office, bob))
    work.revise(office.store, ann.id, mine[0], ranking(1, 1, 1, 2))
    past = work.history(office.store, office.project, ann.id)
    assert [(one.id, one.revision) for one in past] == [(mine[0], 2), (mine[1], 1)]
    assert past[0].beginning.startswith("rank ")
    page = work.history(office.store, office.project, ann.id, limit=1)
    rest = work.history(office.store, office.project, ann.id, before=page[-1].turn)
    assert [one.id for one in [*page, *rest]] == [mine[0], mine[1]]


def test_a_practice_answer_stays_as_it_was(store: Any) -> None:
    office = Office(store, practice={"required": 1})
    office.tasks(1, kind="practice", expected=(1, 2, 3, 4), explanation="The first is best.")
    ann = office.person("Ann")
    given, id = claim(office, ann), new_id()
    saved = submit(office, ann, given, id=id)
    assert saved.feedback is not None
    assert saved.feedback.explanation == "The first is best."
    assert submit(office, ann, given, id=id).feedback == saved.feedback  # a repeated request is answered alike
    with pytest.raises(Refused, match="was shown"):
        work.revise(office.store, ann.id, saved.id, ranking(4, 3, 2, 1))
    with pytest.raises(Refused, match="was shown"):
        work.undo(office.store, office.project, ann.id)


def test_a_gold_task_is_like_any_other(store: Any) -> None:
    office = Office(store, gold={"share": 0.999_999})
    office.tasks(1, kind="gold", expected=(1, 2, 3, 4))
    ann = office.person("Ann")
    given = claim(office, ann)
    saved = submit(office, ann, given)
    assert saved.feedback is None
    assert work.undo(office.store, office.project, ann.id) is not None


def test_everything_said_is_an_event_with_its_digest(office: Office, ann: people.PersonInfo) -> None:
    given = claim(office, ann)
    saved = submit(office, ann, given)
    work.undo(office.store, office.project, ann.id)
    with office.store.read() as session:
        said = session.scalars(select(Event).where(Event.verb == "say").order_by(Event.seq)).all()
    assert [(one.subject, one.data["status"], one.data["revision"]) for one in said] == [
        (saved.id, "submitted", 1),
        (saved.id, "undone", 2),
    ]


# ------------------------------------------------------------------------------------------------- one's own progress


def test_what_a_person_did_today_and_in_all(office: Office, ann: people.PersonInfo, clock: Clock) -> None:
    noon = clock.now // 86400 * 86400 + 43200
    for seconds, at in ((40.0, noon - 86400), (30.0, noon), (5.0, noon + 3600)):
        clock.now = at
        given = claim(office, ann)
        work.submit(office.store, ann.id, new_id(), given.id, given.lease, ranking(1, 2, 3, 4), seconds)
    mine = progress.mine(office.store, office.project, ann.id)
    assert (mine.n_submitted, mine.seconds, mine.n_today, mine.seconds_today) == (3, 75.0, 2, 35.0)
    assert (mine.n_tasks, mine.n_done, mine.guidelines) == (3, 3, 0)
    here = progress.mine(office.store, office.project, ann.id, since=noon + 1800)  # a day that began later
    assert (here.n_today, here.seconds_today) == (1, 5.0)
