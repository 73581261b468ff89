"""The leaderboard: what came out of `drop reproduce rivals`, and how the defenses rank."""
