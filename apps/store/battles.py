"""A task that is made for one person when they are ready to judge it, as after a battle of two models in an arena."""

from __future__ import annotations

from apps.store.adding import NewPrompt, exactly
from apps.store.engine import Store
from apps.store.leases import lease_for
from apps.store.projects import settings_of
from apps.store.tables import Presentation
from apps.store.tasks import Given, given, outputs_of


def hand(store: Store, project_id: int, person_id: int, prompt: NewPrompt) -> Given:
    """The ranking task of exactly these answers, made where there is none, as a task of this person.

    They saw the answers in the order of `prompt.answers`; where they were given the same task before, the order of
    that time stays.
    """
    now = store.clock()
    with store.write() as session:
        task = exactly(session, project_id, prompt, now, person_id)
        if session.get(Presentation, (task.id, person_id)) is None:
            texts = [output.text for output in outputs_of(session, task.id)]
            places = [texts.index(answer.text) for answer in prompt.answers]
            session.add(Presentation(task_id=task.id, person_id=person_id, places=places, shown_at=now))
            task.shown = True
            session.flush()
        settings = settings_of(session, project_id)
        lease_for(session, settings, task, person_id, now)
        return given(session, settings, task, person_id)
