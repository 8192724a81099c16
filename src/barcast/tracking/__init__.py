"""MLflow: a run for every cell, trained here or restored from DVC's cache.

The store is SQLite under `experiments/mlflow` of the real repository (also from a queued experiment's
temporary copy), or whatever `MLFLOW_TRACKING_URI` names. All runs lie in one experiment, `barcast`, or
`MLFLOW_EXPERIMENT_NAME`. A run is told apart by its tag `cell_key`, a hash of all that went into the cell.

Metrics of rounds keep the model's own names and steps (`val_log_loss`); those of the evaluation have a
slash (`val/log_loss`, `test/sharpe`), so the two never clash and MLflow charts each split in a group.

Importing this package imports no MLflow: that costs about two seconds, and only what needs it pays.
"""

from barcast.tracking.cells import Cell, cell_key, cell_on_disk, train_key
from barcast.tracking.record import open_run
from barcast.tracking.store import TrackingError, store_uri
from barcast.tracking.studies import StudyRun, TrialRecord, open_study, sync_studies
from barcast.tracking.sync import SyncReport, log_evaluation, sync

__all__ = [
    "Cell",
    "StudyRun",
    "SyncReport",
    "TrackingError",
    "TrialRecord",
    "cell_key",
    "cell_on_disk",
    "log_evaluation",
    "open_run",
    "open_study",
    "store_uri",
    "sync",
    "sync_studies",
    "train_key",
]
