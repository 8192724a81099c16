"""The leaderboard for eyes: tables, and the report page with its figures."""
