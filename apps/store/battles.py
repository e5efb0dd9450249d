"""Making a task for one person at the moment they rank it, as after an arena battle of two models."""

from __future__ import annotations

from apps.store.adding import NewPrompt, task_of_answers
from apps.store.engine import Store
from apps.store.leases import lease_for
from apps.store.projects import settings_of
from apps.store.tables import Presentation
from apps.store.tasks import TaskView, outputs_of, task_view


def task_for_battle(store: Store, project_id: int, person_id: int, prompt: NewPrompt) -> TaskView:
    """The ranking task of exactly these answers, leased to this person; made if there is none.

    The person saw the answers in the order of `prompt.answers`. If they had the same task before, its order stays.
    """
    now = store.clock()
    with store.write() as session:
        task = task_of_answers(session, project_id, prompt, now, person_id)
        if session.get(Presentation, (task.id, person_id)) is None:
            texts = [output.text for output in outputs_of(session, task.id)]
            places = [texts.index(answer.text) for answer in prompt.answers]
            session.add(Presentation(task_id=task.id, person_id=person_id, places=places, shown_at=now))
            task.shown = True
            session.flush()
        settings = settings_of(session, project_id)
        lease_for(session, settings, task, person_id, now)
        return task_view(session, settings, task, person_id)
