"""The report page: what it shows, as plain data, and the one file that it becomes."""
