"""The commands of dvc.yaml; each is a function that a test can call."""
