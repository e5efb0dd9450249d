"""The apps' database: people, tasks, drafts, rankings. Independent of browsers and HTTP."""
