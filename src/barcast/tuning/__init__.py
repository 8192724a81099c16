"""Tuning: search spaces as data, purged walk-forward folds inside train, and studies that survive a kill."""
