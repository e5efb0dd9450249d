"""project.yaml: what may stand in it, and how its database is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from offices import Clock, Office

from align.errors import UserError
from apps.store import project, projects
from apps.store.errors import BadPayload, NotYours, Stale
from apps.store.settings import Settings
from apps.store.tables import Project


def write(folder: Path, text: str) -> str:
    path = folder / "project.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UserError) as error:
        project.read(write(folder, text))
    return str(error.value)


def test_a_name_and_a_database_are_enough(tmp_path: Path) -> None:
    recipe = project.read(write(tmp_path, "name: x\ndatabase: labels.db\n"))
    assert (recipe.overlap, recipe.lease_minutes, len(recipe.questions.flags), recipe.queue.random_share) == (
        1,
        15,
        11,
        0.1,
    )


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    said = refused(tmp_path, "name: x\noverlap: 0\nqeue: {}\nquestions: {flags: [{name: 'A b', label: x}]}\n")
    assert "4 problems" in said
    for key in (
        "database: required",
        "overlap = 0",
        "qeue = {}: unknown key; did you mean queue?",
        "questions.flags.0.name",
    ):
        assert key in said


def test_a_proxy_is_named_by_its_address(tmp_path: Path) -> None:
    text = "name: x\ndatabase: labels.db\n"
    assert project.read(write(tmp_path, text)).proxies is None
    assert project.read(write(tmp_path, text + "origin: https://l.example\n")).proxies == ()
    given = project.read(write(tmp_path, text + "trusted_proxies: [10.0.0.5, 172.16.0.0/12, 'fd00::/8']\n"))
    assert given.proxies == ("10.0.0.5", "172.16.0.0/12", "fd00::/8")
    for unknown in ("nginx", "'*'", "10.0.0.0.1", "172.16.0.1/12"):
        assert "is not an IP address or network" in refused(tmp_path, f"{text}trusted_proxies: [{unknown}]\n")


def test_flags_have_different_names(tmp_path: Path) -> None:
    flags = "[{name: a, label: A}, {name: a, label: B}]"
    assert "the name a is used twice" in refused(tmp_path, f"name: x\ndatabase: d\nquestions: {{flags: {flags}}}\n")


def test_no_password_stands_in_the_file(tmp_path: Path) -> None:
    said = refused(tmp_path, "name: x\ndatabase: postgresql://ann:s3cret@db/labels\n")
    assert "replace it by ${NAME}" in said
    assert "s3cret" not in said


def test_a_password_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = project.read(write(tmp_path, "name: x\ndatabase: 'postgresql://ann:${LABELS_PASSWORD}@db/labels'\n"))
    with pytest.raises(UserError, match="environment variable LABELS_PASSWORD is not set"):
        project.database_url(recipe)
    monkeypatch.setenv("LABELS_PASSWORD", "p@ss/word")
    assert project.database_url(recipe) == "postgresql://ann:p%40ss%2Fword@db/labels"


def test_guidelines_that_are_not_there_are_told(tmp_path: Path) -> None:
    recipe = project.read(write(tmp_path, f"name: x\ndatabase: d\ninstructions: {tmp_path}/none.md\n"))
    with pytest.raises(UserError, match="instructions: cannot read"):
        project.guidelines_of(recipe)


def test_what_the_file_says_is_in_the_database(tmp_path: Path) -> None:
    (tmp_path / "guide.md").write_text("Be kind.", encoding="utf-8")
    text = f"name: x\ndatabase: {tmp_path}/l.db\ninstructions: {tmp_path}/guide.md\noverlap: 3\n"
    path = write(tmp_path, text)
    for guidelines, version in (("Be kind.", 1), ("Be kind.", 1), ("Be honest.", 2)):
        (tmp_path / "guide.md").write_text(guidelines, encoding="utf-8")
        with project.opened(path) as opened, opened.store.read() as session:
            row = session.get_one(Project, opened.id)
            assert (row.guidelines, row.guidelines_version) == (guidelines, version)
            assert projects.settings_of(session, opened.id).overlap == 3


def test_reading_makes_nothing(tmp_path: Path) -> None:
    path = write(tmp_path, f"name: x\ndatabase: {tmp_path}/l.db\n")
    with pytest.raises(UserError, match="does not exist"), project.opened(path, "read"):
        pass
    with project.opened(path, "look") as opened:
        assert opened.store.is_sqlite
    assert not (tmp_path / "l.db").exists()
    with project.opened(path):
        pass
    other = write(tmp_path, f"name: y\ndatabase: {tmp_path}/l.db\n")
    with pytest.raises(UserError, match="no project 'y' yet"), project.opened(other, "read"):
        pass


def test_two_projects_share_a_database(tmp_path: Path) -> None:
    ids = []
    for name in ("x", "y", "x"):
        with project.opened(write(tmp_path, f"name: {name}\ndatabase: {tmp_path}/l.db\n")) as opened:
            ids.append(opened.id)
    assert ids[0] == ids[2] != ids[1]


def test_guidelines_are_edited_by_one_at_a_time(office: Office, clock: Clock) -> None:
    lead = office.person("Lead", "reviewer")
    clock.now += 60
    assert projects.edit_guidelines(office.store, office.project, "Be kind.", 1, lead.id) == 2
    assert projects.edit_guidelines(office.store, office.project, "Be kind.", 2, lead.id) == 2  # nothing changed
    with pytest.raises(Stale, match="at version 2, but you edited version 1"):
        projects.edit_guidelines(office.store, office.project, "Be stern.", 1, lead.id)
    assert projects.guidelines_of(office.store, office.project) == (2, "Be kind.", "Lead", clock.now)
    assert [(one.version, one.text) for one in projects.versions(office.store, office.project)] == [
        (2, "Be kind."),
        (1, ""),
    ]
    for text, problem in (("x" * 200_001, "200001 characters"), ("a\0b", "character NUL")):
        with pytest.raises(BadPayload, match=problem):
            projects.edit_guidelines(office.store, office.project, text, 2, lead.id)
    with pytest.raises(NotYours):
        projects.guidelines_of(office.store, 99)


def test_an_edit_outlives_the_file_until_the_file_changes(office: Office) -> None:
    settings = Settings()
    projects.sync(office.store, "office", settings, "from the file")
    projects.edit_guidelines(office.store, office.project, "from the page", 2, office.person("Lead", "admin").id)
    projects.sync(office.store, "office", Settings(overlap=3), "from the file")
    assert projects.guidelines_of(office.store, office.project).text == "from the page"
    projects.sync(office.store, "office", settings, "from a newer file")
    assert projects.guidelines_of(office.store, office.project)[:3] == (4, "from a newer file", None)
