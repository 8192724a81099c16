"""Errors that a user can fix: each prints as one line with what is wrong, where, and what to do."""


class BarcastError(Exception):
    """An error whose message is complete; the command line shows it without a traceback."""


class ConfigError(BarcastError):
    """A key or value of a YAML file is unknown, missing, of the wrong type or out of range."""


class DataError(BarcastError):
    """Bars, splits or windows break a rule; the message names file, symbol, column and row."""


class LeakageError(DataError):
    """Something from the future is where only the past may be."""


class ModelError(BarcastError):
    """A model can't do what was asked: unknown name, wrong shapes, predicting before fitting."""


class TuningError(BarcastError):
    """A study can't continue: its storage can't be reached, its workers died, or no trial completed."""
