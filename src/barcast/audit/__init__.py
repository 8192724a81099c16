"""Proof that nothing leaks: checks of values and times, a label oracle, and the univariate AUC of features."""
