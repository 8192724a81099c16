"""Many models: resampling, intervals, tests of significance, the leaderboard."""
