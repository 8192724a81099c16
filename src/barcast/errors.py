"""What a user can mend: every error here prints as one line that says what, where and what to do."""


class BarcastError(Exception):
    """An error that its message explains in full; the command line shows it without a traceback."""


class ConfigError(BarcastError):
    """A key or value of a YAML file is unknown, missing, of the wrong type or out of range."""


class DataError(BarcastError):
    """Bars, splits or windows break a rule; the message names file, symbol, column and row."""


class LeakageError(DataError):
    """Something of the future was found where only the past may be."""


class ModelError(BarcastError):
    """A model was asked for what it can't do: unknown name, wrong shapes, predicting before fitting."""


class TuningError(BarcastError):
    """A study can't go on: its store is out of reach, its workers died, or no trial of it came to an end."""
