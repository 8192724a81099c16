"""`audit`: proves that nothing of the future is in features, splits or windows, or stops the pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from barcast.audit.checks import AuditStageConfig, run_checks
from barcast.data.scaler import Scaler
from barcast.errors import DataError
from barcast.files import read_json, write_json
from barcast.paths import Paths
from barcast.stages._main import read_settings, run_stage


def audit(config: AuditStageConfig, paths: Paths) -> None:
    """Run every check and write `experiments/audit.json`; the first that fails raises, and nothing is written.

    Raises:
        LeakageError, DataError: see `run_checks`.
    """
    report, scaler = None, None
    if config.data.from_bars:
        report, scaler = _read(paths.split_report), Scaler.from_dict(_read(paths.scaler))
    checks = run_checks(config, paths.root / config.data.path, paths.splits, report, scaler)
    write_json(paths.audit, {"source": config.data.source, "passed": True, "checks": checks})
    for check in checks:
        print(f"{check['name']}: {check.get('skipped', 'passed')}")


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise DataError(f"{file}: no such file; run `dvc repro prepare`")
    return read_json(file)


def main() -> None:
    """Run the stage at the repository root."""
    audit(read_settings(AuditStageConfig, "audit", Paths()), Paths())


if __name__ == "__main__":
    run_stage(main)
