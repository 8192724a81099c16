"""The trainer, its callbacks, and the one torch loop."""
