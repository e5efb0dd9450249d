"""The ranking app: annotators rank answers in a browser.

    align label serve project.yaml [--host 127.0.0.1] [--port 7860] [--workers 1]
    align label import project.yaml answers.jsonl [...] [--dry-run]
    align label export project.yaml --out FOLDER
    align label status project.yaml
    align label invite project.yaml --role admin

Each command takes the project's file first. `align label COMMAND --help` lists its options.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from align.commands import program
from align.errors import UserError, exit_on_user_error
from apps.store.project import Project, opened

Command = Callable[[argparse.Namespace], None]

PORT = 7860  # Gradio's


def main() -> None:
    """Parses the command line and runs the command."""
    given = parser().parse_args()
    command: Command = given.run
    command(given)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=program("apps.label"), description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Command, meaning: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=meaning, description=meaning)
        added.add_argument("project", metavar="project.yaml")
        added.set_defaults(run=run)
        return added

    serve = command("serve", _serve, "start the web server")
    serve.add_argument("more", nargs="*", metavar="project.yaml", help="more projects in the same database")
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1 is this machine only")
    serve.add_argument("--port", type=int, default=PORT)
    serve.add_argument("--workers", type=int, default=1, help="server processes; about one per core")
    imported = command("import", _import, "make tasks from prompts and answers")
    imported.add_argument("files", nargs="+", metavar="answers.jsonl", help="output of `align generate`, or a data set")
    imported.add_argument("--dry-run", action="store_true", help="check the files and print what would be added")
    known = imported.add_mutually_exclusive_group()
    known.add_argument("--practice", action="store_true", help="rows with ranks: practice tasks, with feedback")
    known.add_argument("--gold", action="store_true", help="rows with ranks: gold tasks, hidden among the others")
    exported = command("export", _export, "write rankings, preference pairs and the audit")
    exported.add_argument("--out", required=True, metavar="FOLDER")
    formats = "comma-separated; also dataset (a folder for the Hugging Face hub) and people (CSV)"
    exported.add_argument("--format", default="rankings,preferences,audit", help=formats)
    exported.add_argument(
        "--since", metavar="TIME", help="only rankings submitted or revised since then: 2026-01-31 (UTC)"
    )
    exported.add_argument("--until", metavar="TIME", help="the state at that time; later changes are left out")
    exported.add_argument(
        "--annotator", action="append", default=[], metavar="NAME", help="only this annotator; can be repeated"
    )
    exported.add_argument("--status", help="only tasks that are open, done or closed")
    exported.add_argument(
        "--min-agreement",
        type=float,
        metavar="SHARE",
        help="only tasks whose annotators agree at least so much, 0 to 1",
    )
    exported.add_argument("--overwrite", action="store_true", help="replace existing files")
    exported.add_argument(
        "--names", action="store_true", help="keep people's names in the data set instead of pseudonyms"
    )
    exported.add_argument("--push", metavar="OWNER/NAME", help="upload the data set to the hub; private if it is new")
    command("status", _status, "print progress, time left, and each person's work")
    scored = command("prioritise", _prioritise, "order the queue by the reward model's uncertainty")
    scored.add_argument("scores", metavar="scores.jsonl", help="output of `align score`")
    invited = command("invite", _invite, "make an invitation link that works once")
    invited.add_argument("--role", required=True, help="admin, reviewer or annotator")
    named = invited.add_mutually_exclusive_group()
    named.add_argument("--name", help="default: the invited person chooses")
    named.add_argument("--names", metavar="FILE", help="one name per line; prints name, tab, link for each")
    invited.add_argument("--days", type=float, default=7, help="how long the link is valid")
    renewed = command("reset", _reset, "make a password reset link")
    renewed.add_argument("name")
    for linked in (invited, renewed):
        linked.add_argument("--port", type=int, default=PORT, help="the app's port, unless `origin` is set")
    command("people", _people, "list all people and open invitations")
    for name, run, meaning in (
        ("revoke", _revoke, "end a person's sessions and revoke their invitations, or one invitation by its id"),
        ("deactivate", _deactivate, "log a person out and refuse further logins"),
        ("activate", _activate, "let a deactivated person log in again"),
    ):
        command(name, run, meaning).add_argument("name")
    erased = command("erase", _erase, "erase a person's name and texts; rankings stay under a pseudonym")
    erased.add_argument("name")
    erased.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    token = command("token", _token, "make an API token with which a script acts as a person")
    token.add_argument("name")
    token.add_argument("purpose", help="what the token is for, shown in lists")
    token.add_argument("--days", type=float, default=90, help="how long the token is valid, at most 365")
    command("tokens", _tokens, "list the API tokens")
    command("revoke-token", _revoke_token, "revoke a token").add_argument("id", help="as `tokens` lists it")
    role = command("role", _role, "change a person's role")
    role.add_argument("name")
    role.add_argument("role", help="admin, reviewer or annotator")
    command("backup", _backup, "copy the database while the app runs").add_argument("file")
    verified = command("verify", _verify, "check that no event or revision was changed afterwards")
    verified.add_argument("--head", metavar="NUMBER:HASH", help="the newest event that an earlier verify printed")
    return parser


def _serve(given: argparse.Namespace) -> None:
    from apps.label.server import serve

    serve([given.project, *given.more], given.host, given.port, given.workers)


def _import(given: argparse.Namespace) -> None:
    from apps.label.importing import import_files, lines
    from apps.store.adding import Kind

    kind: Kind = "practice" if given.practice else "gold" if given.gold else "rank"
    with opened(given.project, "look" if given.dry_run else "work") as project:
        found = import_files(project, given.files, kind, given.dry_run)
    print("\n".join(lines(found, given.dry_run)))


def _export(given: argparse.Namespace) -> None:
    from apps.label.exporting import export, parse_time
    from apps.label.rankings import Filters

    since, until = (
        None if text is None else parse_time(text, option)
        for text, option in ((given.since, "--since"), (given.until, "--until"))
    )
    filters = Filters(since, until, tuple(given.annotator), given.status, given.min_agreement)
    formats, folder = tuple(given.format.split(",")), Path(given.out)
    if (given.push or given.names) and "dataset" not in formats:
        raise UserError(f"--{'push' if given.push else 'names'}: works only with --format dataset; add it")
    with opened(given.project, "read") as project:
        files = export(project, folder, formats, filters, given.overwrite, given.names)
    for file in files:
        print(f"wrote {file.path}: {file.n_rows:,} rows, sha256 {file.sha256}")
    if given.push:
        from apps.label.dataset import push

        print(f"pushed to {push(folder / 'dataset', given.push)}")


def _status(given: argparse.Namespace) -> None:
    from rich.console import Console

    from apps.label.status import status

    with opened(given.project, "read") as project:
        Console(highlight=False).print(status(project))


def _prioritise(given: argparse.Namespace) -> None:
    from apps.label.prioritising import lines, prioritise_by

    with opened(given.project, "read") as project:
        result = prioritise_by(project, given.scores)
    print("\n".join(lines(result)))


def _invite(given: argparse.Namespace) -> None:
    from apps.store.invitations import invite, invite_many

    with opened(given.project) as project:
        if given.names is None:
            found = invite(project.store, given.role, given.name, given.days)
            _print_link(project, found.token, given.days, given.port)
            return
        for one in invite_many(project.store, _text_of(given.names), given.role, given.days):
            print(f"{one.name}\t{_link(project, one.token, given.port)}")


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--names: cannot read {path} ({error})") from None


def _reset(given: argparse.Namespace) -> None:
    from apps.store.invitations import reset

    with opened(given.project, "read") as project:
        _print_link(project, reset(project.store, given.name).token, 1, given.port)


def _print_link(project: Project, token: str, days: float, port: int) -> None:
    """Prints only the link to standard output, for programs that send it."""
    print(_link(project, token, port))
    print(f"It works once, within {days:g} days. Anyone who has it can use it.", file=sys.stderr)


def _link(project: Project, token: str, port: int) -> str:
    return f"{project.recipe.origin or f'http://127.0.0.1:{port}'}/invitation/{token}"


def _people(given: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from apps.label.status import escape
    from apps.store.invitations import pending_invitations
    from apps.store.people import all_people

    table = Table("person", "role", "", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    with opened(given.project, "read") as project:
        for person in all_people(project.store):
            state = "erased" if person.erased else "" if person.active else "deactivated"
            table.add_row(escape(person.name), person.role, state)
        for one in pending_invitations(project.store):
            until = datetime.fromtimestamp(one.expires_at, UTC)
            table.add_row(escape(one.name or one.id), one.role, f"invited until {until:%Y-%m-%d %H:%M} UTC")
    Console(highlight=False).print(table)


def _revoke(given: argparse.Namespace) -> None:
    from apps.store.invitations import revoke

    with opened(given.project, "read") as project:
        print(f"{given.name}: {revoke(project.store, given.name)} sessions and invitations ended")


def _deactivate(given: argparse.Namespace) -> None:
    _set_active(given, False)


def _activate(given: argparse.Namespace) -> None:
    _set_active(given, True)


def _set_active(given: argparse.Namespace, active: bool) -> None:
    from apps.store.people import set_active

    with opened(given.project, "read") as project:
        person = set_active(project.store, given.name, active)
        print(f"{person.name}: {'can log in' if active else 'is deactivated and logged out'}")


def _erase(given: argparse.Namespace) -> None:
    from apps.store.erasing import erase
    from apps.store.people import by_name

    with opened(given.project, "read") as project:
        person = by_name(project.store, given.name)
        if not given.yes:
            warning = f"{person.name}: name, logins, comments and reasons will be deleted. This cannot be undone."
            print(warning, file=sys.stderr)
            if not sys.stdin.isatty() or input("Erase? Type yes: ").strip() != "yes":
                raise UserError("nothing was erased; answer yes, or add --yes")
        done = erase(project.store, given.name)
        is_sqlite = project.store.is_sqlite
    print(f"{done.pseudonym}: {done.n_revisions:,} revisions and {done.n_events:,} events lost their texts")
    print("Backups and earlier exports still have them: delete those and make new ones.", file=sys.stderr)
    if not is_sqlite:
        print("PostgreSQL's files keep them until VACUUM FULL, its archived logs until those are deleted.",
              file=sys.stderr)  # fmt: skip


def _token(given: argparse.Namespace) -> None:
    from apps.store.tokens import create

    with opened(given.project, "read") as project:
        print(create(project.store, given.name, given.purpose, given.days).token)
    print(f"It works for {given.days:g} days. Anyone who has it can act as {given.name}.", file=sys.stderr)


def _tokens(given: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.table import Table

    from apps.label.status import escape
    from apps.store.tokens import all_tokens

    table = Table("token", "person", "purpose", "expires", "used", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    with opened(given.project, "read") as project:
        for one in all_tokens(project.store):
            days = [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d}" if at else "" for at in (one.expires_at, one.used_at)]
            table.add_row(one.id, escape(one.person), escape(one.purpose), *days)
    Console(highlight=False).print(table)


def _revoke_token(given: argparse.Namespace) -> None:
    from apps.store.tokens import revoke

    with opened(given.project, "read") as project:
        revoke(project.store, given.id)
    print(f"{given.id}: revoked")


def _role(given: argparse.Namespace) -> None:
    from apps.store.people import set_role

    with opened(given.project, "read") as project:
        person = set_role(project.store, given.name, given.role)
        print(f"{person.name}: {person.role}")


def _backup(given: argparse.Namespace) -> None:
    from apps.label.backing_up import backup

    with opened(given.project, "read") as project:
        n_bytes = backup(project.store, Path(given.file))
    print(f"wrote {given.file}: {n_bytes:,} bytes")


def _verify(given: argparse.Namespace) -> None:
    from apps.store.events import verify

    with opened(given.project, "read") as project:
        verdict = verify(project.store, given.head)
    if verdict.problems:
        raise UserError(
            "\n  ".join([f"{project.store.where}: the data was changed after it was written", *verdict.problems])
        )
    except_for = f", except for the texts of {verdict.n_erased:,} erased people" if verdict.n_erased else ""
    print(f"{verdict.n_events:,} events and {verdict.n_revisions:,} revisions are unchanged{except_for}")
    print(f"newest event {verdict.head}")


if __name__ == "__main__":
    exit_on_user_error(main)
