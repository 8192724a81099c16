"""MLflow: a run for every cell, trained here or restored from DVC's cache.

The store is SQLite under `experiments/mlflow` of the real repository (also from a queued experiment's temporary
copy), or what `MLFLOW_TRACKING_URI` names. All runs are in one experiment, `barcast`, or `MLFLOW_EXPERIMENT_NAME`.
A run is identified by its tag `cell_key`, a hash of everything that went into the cell.

Metrics of rounds keep the model's names and steps (`val_log_loss`). Those of the evaluation have a slash
(`val/log_loss`, `test/sharpe`), so the two never clash and MLflow charts each split in a group.

Importing this package does not import MLflow, which takes about two seconds.
"""

from barcast.tracking.cells import Cell, cell_on_disk
from barcast.tracking.record import SyncReport, log_evaluation, open_run, sync
from barcast.tracking.store import TrackingError, store_uri
from barcast.tracking.studies import TrialRecord, open_study, sync_studies

__all__ = [
    "Cell",
    "SyncReport",
    "TrackingError",
    "TrialRecord",
    "cell_on_disk",
    "log_evaluation",
    "open_run",
    "open_study",
    "store_uri",
    "sync",
    "sync_studies",
]
