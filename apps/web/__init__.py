"""What the servers of all apps share: the guard in front, accounts, safe rendering, the parent application."""
