"""What people said in the database, as numbers: plain rows, and the leaderboard of models."""
