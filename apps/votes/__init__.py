"""Annotations as plain rows for statistics, and the leaderboard of models."""
