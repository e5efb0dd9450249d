"""The database of the apps: people, tasks, drafts, rankings. It knows nothing of browsers and HTTP."""
