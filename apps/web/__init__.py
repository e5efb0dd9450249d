"""Shared by the servers of all apps: security, accounts, safe rendering, the parent application."""
