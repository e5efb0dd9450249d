"""The order of the queue, and the probability of each draw."""

from __future__ import annotations

import numpy as np
import pytest
from offices import Office, new_id, prompt, ranking
from sqlalchemy import select

from apps.store import projects, queue, scores, tasks, work
from apps.store.adding import add_tasks
from apps.store.queue import drawn
from apps.store.scores import ScoredPrompt, keep_scores, prioritise, uncertainty
from apps.store.settings import Settings
from apps.store.tables import Task


def test_without_a_random_share_the_most_urgent_come_first() -> None:
    found = drawn(np.array([1.0, 5.0, 3.0]), 0.0, seed=1)
    assert found.order.tolist() == [1, 2, 0]
    assert found.propensity.tolist() == [1, 1, 1]
    assert found.pool.tolist() == [3, 2, 1]


def test_every_task_is_drawn_once() -> None:
    found = drawn(np.random.default_rng(1).random(500), 0.3, seed=2)
    assert sorted(found.order.tolist()) == list(range(500))


def test_equals_are_in_random_order_with_the_same_probability() -> None:
    orders = {tuple(drawn(np.zeros(3), 0.1, seed).order.tolist()) for seed in range(200)}
    assert len(orders) == 6
    assert drawn(np.zeros(4), 0.1, 1).propensity == pytest.approx([1 / 4, 1 / 3, 1 / 2, 1])


def test_the_probabilities_by_hand() -> None:
    """Of 4 tasks the first has 0.8 + 0.2 / 4 to be drawn first, each other one 0.2 / 4."""
    found = drawn(np.array([9.0, 5.0, 5.0, 1.0]), 0.2, seed=3)
    left = [0, 1, 2, 3]
    priority = [9, 5, 5, 1]
    for task, p in zip(found.order.tolist(), found.propensity.tolist(), strict=True):
        top = [one for one in left if priority[one] == max(priority[other] for other in left)]
        assert p == pytest.approx((task in top) * 0.8 / len(top) + 0.2 / len(left))
        left.remove(task)


def test_tasks_are_drawn_as_often_as_the_probabilities_say() -> None:
    """The first two draws of four tasks over many seeds, against the probabilities of both."""
    n, priorities, share = 4000, np.array([3.0, 2.0, 2.0, 1.0]), 0.4
    counted: dict[tuple[int, int], int] = {}
    said: dict[tuple[int, int], float] = {}
    for seed in range(n):
        found = drawn(priorities, share, seed)
        first_two = (int(found.order[0]), int(found.order[1]))
        counted[first_two] = counted.get(first_two, 0) + 1
        said[first_two] = float(found.propensity[0] * found.propensity[1])
    assert len(said) == 12
    assert sum(said.values()) == pytest.approx(1)
    for pair, p in said.items():
        assert abs(counted[pair] - n * p) < 4.5 * (n * p * (1 - p)) ** 0.5 + 1, pair


def test_the_same_seed_gives_the_same_order() -> None:
    values = np.random.default_rng(1).random(50)
    assert drawn(values, 0.5, 7).order.tolist() == drawn(values, 0.5, 7).order.tolist()
    assert drawn(values, 0.5, 7).order.tolist() != drawn(values, 0.5, 8).order.tolist()


def test_nothing_to_draw() -> None:
    assert len(drawn(np.zeros(0), 0.1, 1).order) == 0


def order(office: Office) -> list[str]:
    """The tasks' prompts in the order of the queue."""
    from apps.store.tables import Prompt

    with office.store.read() as session:
        query = select(Prompt.messages).join(Task, Task.prompt_id == Prompt.id).order_by(Task.place)
        return [messages[0]["content"] for messages in session.scalars(query)]


def test_what_was_seen_stays_in_front(office: Office) -> None:
    projects.sync(office.store, "office", Settings(queue={"random_share": 0.0}))
    add_tasks(office.store, office.project, [prompt(f"q{index}", 2, priority=index) for index in range(5)])
    queue.draw(office.store, office.project)
    assert order(office) == ["q4", "q3", "q2", "q1", "q0"]
    given = tasks.claim(office.store, office.project, office.person("Ann").id)
    assert isinstance(given, tasks.TaskView)
    add_tasks(office.store, office.project, [prompt("urgent", 2, priority=99)])
    queue.draw(office.store, office.project)
    assert order(office) == ["q4", "urgent", "q3", "q2", "q1", "q0"]


def test_places_only_grow(office: Office) -> None:
    office.tasks(6)
    with office.store.read() as session:
        before = max(session.scalars(select(Task.place)))
    queue.draw(office.store, office.project)
    with office.store.read() as session:
        assert min(session.scalars(select(Task.place))) > before


# --------------------------------------------------------------------------------------------------------- uncertainty


def test_the_uncertainty_of_one_model_is_the_entropy_of_its_choice() -> None:
    assert uncertainty([[2.0], [2.0]]) == pytest.approx(np.log(2))
    p = 1 / (1 + np.exp(-1.5))
    entropy = -p * np.log(p) - (1 - p) * np.log(1 - p)
    assert uncertainty([[0.0], [1.5]]) == uncertainty([[1.5], [0.0]]) == pytest.approx(entropy)
    assert uncertainty([[0.0], [1000.0]]) == 0
    assert uncertainty([[0.0], [1.5], [1.5]]) == pytest.approx((2 * entropy + np.log(2)) / 3)


def test_the_uncertainty_of_an_ensemble_is_its_disagreement() -> None:
    """Differences are 1 and 3, of mean 2 and standard deviation 1; what members add to all answers says nothing."""
    assert uncertainty([[1.0, 10.0], [0.0, 7.0]]) == pytest.approx(1.0)
    assert uncertainty([[1.0, 101.0], [0.0, 100.0]]) == 0


def scored(name: str, *gaps: float) -> ScoredPrompt:
    """Two answers to a prompt whose scores differ by `gaps`, one for each member."""
    answers = [f"answer {index} to {name}" for index in range(2)]
    return ScoredPrompt([{"role": "user", "content": name}], answers, [list(gaps), [0.0] * len(gaps)])


def test_the_queue_goes_by_uncertainty(office: Office) -> None:
    projects.sync(office.store, "office", Settings(queue={"random_share": 0.0, "order": "uncertainty"}))
    add_tasks(office.store, office.project, [prompt(f"q{index}", 2) for index in range(4)])
    rows = [scored("q0", 3.0), scored("q1", 0.1), scored("q2", 1.0), scored("unknown", 0.0)]
    assert keep_scores(office.store, office.project, rows) == 6
    assert prioritise(office.store, office.project) == scores.Prioritised(3, 1)
    queue.draw(office.store, office.project)
    assert order(office) == ["q1", "q2", "q0", "q3"]
    with office.store.read() as session:
        first = session.scalars(select(Task).order_by(Task.place)).first()
        assert first is not None
        assert first.priority == pytest.approx(uncertainty([[0.1], [0.0]]))


def test_scores_of_different_models_are_not_mixed(office: Office) -> None:
    add_tasks(office.store, office.project, [prompt("q0", 2)])
    messages = [{"role": "user", "content": "q0"}]
    keep_scores(office.store, office.project, [ScoredPrompt(messages, ["answer 0 to q0"], [[1.0]])])
    keep_scores(office.store, office.project, [ScoredPrompt(messages, ["answer 1 to q0"], [[1.0, 2.0]])])
    assert prioritise(office.store, office.project) == scores.Prioritised(0, 1)


def test_a_task_in_work_keeps_its_priority_and_place(office: Office) -> None:
    add_tasks(office.store, office.project, [prompt(f"q{index}", 2) for index in range(3)])
    ann = office.person("Ann")
    given = tasks.claim(office.store, office.project, ann.id)
    assert isinstance(given, tasks.TaskView)
    with office.store.read() as session:
        before = session.get_one(Task, given.id)
    keep_scores(office.store, office.project, [scored(f"q{index}", 1.0) for index in range(3)])
    assert prioritise(office.store, office.project).n_tasks == 2
    queue.draw(office.store, office.project)
    with office.store.read() as session:
        after = session.get_one(Task, given.id)
    assert (after.place, after.propensity, after.priority) == (before.place, before.propensity, before.priority)
    saved = work.submit(office.store, ann.id, new_id(), given.id, given.lease, ranking(1, 2))
    assert not saved.extra
