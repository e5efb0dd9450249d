"""Models side by side in a browser.

    align compare recipes/compare_app.yaml [key=value ...] [--dry-run]

The server listens on this machine alone unless the recipe has an `arena`, in which people log in.
"""

from __future__ import annotations

from align.config import parse_command, to_yaml
from align.errors import exit_on_user_error
from apps.compare.recipe import Recipe


def main() -> None:
    """Parses the command line and serves until stopped; a dry run checks the recipe and its files."""
    recipe, dry_run = parse_command(Recipe, "apps.compare")
    from apps.compare.server import check, serve

    check(recipe)
    if dry_run:
        print(to_yaml(recipe))
        return
    serve(recipe)


if __name__ == "__main__":
    exit_on_user_error(main)
