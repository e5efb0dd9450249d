"""The commands as they are typed: what they print, and what they say when something is wrong."""

from __future__ import annotations

import json
import os
import re
import shlex
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import rich

from align.errors import UserError
from apps.label.__main__ import main
from apps.label.importing import import_files
from apps.label.status import status
from apps.store import events, invitations, people, tasks, tokens
from apps.store.engine import Store

ROOT = Path(__file__).parents[3]


@pytest.fixture
def command(bench: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command on the bench's project; returns what it printed."""

    def run(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["label", *shlex.split(line)])
        main()
        return capsys.readouterr().out

    return run


def answers(bench: Any, n: int = 3) -> None:
    bench.file("a.jsonl", [{"prompt": f"q{index}", "responses": ["good", "bad"]} for index in range(n)])


def test_from_files_to_rankings(bench: Any, command: Any) -> None:
    answers(bench)
    assert "would add 3 tasks" in command("import project.yaml a.jsonl --dry-run")
    assert "added 3 tasks" in command("import project.yaml a.jsonl")
    bench.rank("Ann", "good", "bad")
    told = command("status project.yaml")
    for part in ("1 of 3 (33%)", "20 s (median)", "40 s of work", "Ann"):
        assert part in told
    assert "rankings.jsonl: 1 rows, sha256" in command("export project.yaml --out out --format rankings")
    assert json.loads((bench.folder / "out/rankings.jsonl").read_text())["ranks"] == [1, 2]


def test_the_first_admin_comes_with_a_link_and_nothing_else(bench: Any, command: Any) -> None:
    bench.project.store.clock = time.time
    printed = command("invite project.yaml --role admin --name Lead --days 2")
    link = re.fullmatch(r"http://127\.0\.0\.1:7860/invitation/(\S+)\n", printed)
    assert link
    lead = invitations.accept(bench.project.store, link[1], None, "four words or more")
    assert (lead.name, lead.role) == ("Lead", "admin")
    again = command("reset project.yaml lead --port 8000")
    assert again.startswith("http://127.0.0.1:8000/invitation/")
    assert invitations.invitation(bench.project.store, again.strip().rsplit("/", 1)[1]).is_reset


def test_the_link_names_the_public_address(make: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    make(origin="https://label.example.org")
    monkeypatch.setattr(sys, "argv", ["label", "invite", "project.yaml", "--role", "annotator"])
    main()
    assert capsys.readouterr().out.startswith("https://label.example.org/invitation/")


def test_people_are_listed_changed_and_shut_out(bench: Any, command: Any) -> None:
    answers(bench)
    command("import project.yaml a.jsonl")
    bench.rank("[red]Ann[/red]", "good", "bad")
    assert "[red]Ann[/red]" in command("people project.yaml")  # a name is no markup
    assert "reviewer" in command("role project.yaml '[red]Ann[/red]' reviewer")
    assert "is deactivated" in command("deactivate project.yaml '[red]Ann[/red]'")
    assert "inactive" in command("status project.yaml")
    assert "can log in" in command("activate project.yaml '[red]Ann[/red]'")
    assert "0 sessions" in command("revoke project.yaml '[red]Ann[/red]'")


def test_many_are_invited_from_a_file(bench: Any, command: Any) -> None:
    bench.project.store.clock = time.time
    (bench.folder / "names.csv").write_text('\ufeffAnn, ann@example.org\n"Bea, M."\n', encoding="utf-8")
    lines = command("invite project.yaml --role annotator --names names.csv").splitlines()
    assert [line.split("\t")[0] for line in lines] == ["Ann", "Bea, M."]
    found = invitations.invitation(bench.project.store, lines[1].rsplit("/", 1)[1])
    assert (found.name, found.role) == ("Bea, M.", "annotator")
    with pytest.raises(UserError, match=r"--names: cannot read no\.csv"):
        command("invite project.yaml --role annotator --names no.csv")


def test_a_person_is_erased_after_a_question(bench: Any, command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(bench)
    command("import project.yaml a.jsonl")
    bench.rank("Ann", "good", "bad")
    head = command("verify project.yaml").split()[-1]
    with pytest.raises(UserError, match="nothing was erased"):
        command("erase project.yaml ann")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda _: "yes")
    name = f"erased-{bench.people['Ann']}"
    assert command("erase project.yaml ann").startswith(f"{name}: 0 revisions and 2 events lost")
    verified = command(f"verify project.yaml --head {head}")
    assert "unchanged, except for the texts of 1 erased people" in verified
    assert "erased" in command("people project.yaml")
    command("export project.yaml --out out --format rankings,audit,people")
    for file in ("rankings.jsonl", "audit.jsonl", "people.csv"):
        text = (bench.folder / "out" / file).read_text()
        assert (name in text, "Ann" in text) == (True, False), file


def test_tokens_are_made_listed_and_ended(bench: Any, command: Any) -> None:
    answers(bench)
    command("import project.yaml a.jsonl")
    bench.rank("Ann", "good", "bad")
    bench.project.store.clock = time.time
    token = command("token project.yaml Ann 'nightly report' --days 3").strip()
    assert tokens.person_of(bench.project.store, token).name == "Ann"
    listed = command("tokens project.yaml")
    assert "nightly report" in listed
    command(f"revoke-token project.yaml {tokens.all_tokens(bench.project.store)[0].id}")
    assert tokens.person_of(bench.project.store, token) is None


def test_names_and_a_push_are_for_a_data_set(bench: Any, command: Any) -> None:
    for option in ("--push me/labels", "--names"):
        with pytest.raises(UserError, match="works only with --format dataset"):
            command(f"export project.yaml --out out {option}")


def test_verify_finds_what_was_changed(bench: Any, command: Any) -> None:
    answers(bench)
    command("import project.yaml a.jsonl")
    bench.rank("Ann", "good", "bad")
    head = re.search(r"newest event (\S+)", command("verify project.yaml"))
    assert head
    bench.rank("Ann", "good", "bad")
    command(f"verify project.yaml --head {head[1]}")
    with pytest.raises(UserError, match="cut off"):
        command("verify project.yaml --head 1:0000")


def test_a_backup_is_a_database(bench: Any, command: Any) -> None:
    answers(bench)
    command("import project.yaml a.jsonl")
    bench.rank("Ann", "good", "bad")
    assert "wrote copy: " in command("backup project.yaml copy")
    copy = bench.folder / "copy"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with pytest.raises(UserError, match="copy exists"):
        command("backup project.yaml copy")
    if bench.project.store.is_sqlite:
        restored = Store.open(str(copy), create=False)
        assert events.verify(restored) == events.verify(bench.project.store)
        restored.close()
    else:
        assert copy.read_bytes().startswith(b"PGDMP")


def test_a_postgresql_backup_can_be_restored(cluster: Any, tmp_path: Path) -> None:
    from apps.label.backing_up import backup

    urls = [cluster.new(name) for name in ("backed_up", "restored")]
    store = Store.open(urls[0])
    invitations.accept(store, invitations.invite(store, "admin", "Lead").token, None, "four words or more")
    backup(store, tmp_path / "copy")
    program = cluster.programs / "pg_restore"
    subprocess.run([program, "--dbname", urls[1], tmp_path / "copy"], check=True)
    restored = Store.open(urls[1], create=False)
    assert events.verify(restored) == events.verify(store)
    assert people.all_people(restored) == people.all_people(store)
    for one in (store, restored):
        one.close()


def test_prioritise_needs_a_queue_by_uncertainty(bench: Any, command: Any) -> None:
    bench.file("s.jsonl", [{"prompt": "q0", "responses": ["good", "bad"], "scores": [1.0, 0.0]}])
    with pytest.raises(UserError, match=r"queue\.order = priority"):
        command("prioritise project.yaml s.jsonl")


def test_prioritise_puts_the_uncertain_first(make: Any, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    bench = make(queue={"order": "uncertainty", "random_share": 0})
    answers(bench, 4)
    import_files(bench.project, ["a.jsonl"])
    gaps = {"q0": 5.0, "q1": 0.1, "q2": 2.0}
    rows = [
        {"prompt": name, "responses": ["good", "bad"], "scores": [gap, 0.0], "member_scores": [[gap, -gap], [0, 0]]}
        for name, gap in gaps.items()
    ]
    bench.file(
        "s.jsonl",
        [*rows, {"prompt": "other", "responses": ["x", "y"], "scores": [1, 2], "member_scores": [[1, 1], [2, 3]]}],
    )
    monkeypatch.setattr(sys, "argv", ["label", "prioritise", "project.yaml", "s.jsonl"])
    main()
    printed = capsys.readouterr().out
    assert "6 of 8 scored answers are in this project" in printed
    assert "3 unseen tasks are now ordered by uncertainty" in printed
    assert "1 tasks come last: some answers have no scores" in printed
    with bench.project.store.read() as session:
        from sqlalchemy import select

        from apps.store.tables import Prompt, Task

        query = select(Prompt.messages, Task.priority).join(Task).order_by(Task.place)
        found = [(messages[0]["content"], priority) for messages, priority in session.execute(query)]
    assert found == [("q0", 5.0), ("q2", 2.0), ("q1", pytest.approx(0.1)), ("q3", 0.0)]  # members differ by 2 gap


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q0", "responses": ["good", "bad"]}, "expected prompt, responses and scores"),
        ({"prompt": "q0", "responses": ["good", "bad"], "scores": [1.0]}, "2 responses need as many scores"),
        ({"prompt": "q0", "responses": ["good", "bad"], "scores": [1.0, "x"]}, "a score must be a number"),
        (
            {"prompt": "qx", "responses": ["good", "bad"], "scores": [1.0, 2.0]},
            "none of its 2 answers is in this project",
        ),
        ("nonsense", "not valid JSON"),
    ],
)
def test_scores_that_cannot_be_used_are_told(make: Any, row: Any, reason: str) -> None:
    from apps.label.prioritising import prioritise_by

    bench = make(queue={"order": "uncertainty"})
    answers(bench)
    import_files(bench.project, ["a.jsonl"])
    with pytest.raises(UserError, match=re.escape(reason)):
        prioritise_by(bench.project, bench.file("s.jsonl", [row]))


def typed(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own."""
    words = [sys.executable, "-m", "apps.label", *shlex.split(line)]
    return subprocess.run(
        words, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def test_status_names_who_did_not_pass_the_practice(make: Any, capsys: pytest.CaptureFixture[str]) -> None:
    bench = make(practice={"required": 1, "pass_share": 1.0})
    row = {"prompt": "q", "responses": ["good", "bad"], "ranks": [1, 2]}
    import_files(bench.project, [bench.file("p.jsonl", [row])], "practice")
    told = []
    for order in (("bad", "good"), None):
        if order:
            bench.rank("[b]Ann", *order)
        else:
            tasks.reset_practice(bench.project.store, bench.project.id, "[b]Ann")
        rich.print(status(bench.project))
        told.append("failed by [b]Ann" in capsys.readouterr().out)
    assert told == [True, False]


def test_a_mistake_is_told_in_words_with_status_2(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text("name: x\ndatabase: l.db\noverlapp: 2\n")
    done = typed(tmp_path, "status project.yaml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: project.yaml: 1 problem in this recipe\n  overlapp = 2: unknown key")
    assert "Traceback" not in done.stderr


def test_help_is_quick_and_lists_the_commands(tmp_path: Path) -> None:
    done = typed(tmp_path, "--help")
    assert done.returncode == 0
    for name in ("serve", "import", "export", "status", "prioritise", "invite", "people", "backup", "verify"):
        assert re.search(rf"^    {name}\b", done.stdout, re.MULTILINE), name
    heavy = "import sys, apps.label.__main__; print([m for m in ('torch', 'gradio', 'sqlalchemy') if m in sys.modules])"
    words = [sys.executable, "-c", heavy]
    found = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
