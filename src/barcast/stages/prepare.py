"""`prepare`: raw bars, or splits made elsewhere, to the three split files."""

from __future__ import annotations

from typing import Any

from barcast.data.preparation import PrepareConfig, prepare_splits
from barcast.data.split_files import split_file, write_split
from barcast.files import atomic_dir, write_json
from barcast.paths import Paths
from barcast.stages._main import read_settings, run_stage


def prepare(config: PrepareConfig, paths: Paths) -> None:
    """Write `{train,val,test}_scaled.parquet`, `split.json` and, from bars, the scaler and what it clips in train;
    all of them or none.

    Raises:
        DataError, LeakageError: see `prepare_splits`.
    """
    prepared = prepare_splits(config, paths.root / config.data.path)
    with atomic_dir(paths.splits) as folder:
        if prepared.scaler is not None:
            write_json(folder / paths.scaler.name, prepared.scaler.to_dict())
        if prepared.clipped_values is not None:
            prepared.clipped_values.to_parquet(folder / paths.clipped_values.name, compression="zstd", index=False)
        for name, split in prepared.splits:
            write_split(split, split_file(folder, name))
        write_json(folder / paths.split_report.name, prepared.report)
    print("\n".join(summary(prepared.report)))


def summary(report: dict[str, Any]) -> list[str]:
    """The report in a few lines."""
    lines = []
    for symbol, content in report.get("symbols", {}).items():
        gaps, longest = content["gaps"], content["gaps"]["longest"]
        counted = f"{gaps['count']} {'gap' if gaps['count'] == 1 else 'gaps'}"
        at = f", the longest of {longest['missing_bars']:,} bars after {longest['start']}" if longest else ""
        lines.append(f"{symbol}: {content['bars']:,} bars, {content['warmup']} of them warm-up, {counted}{at}")
    for name, symbols in report["splits"].items():
        rows = ", ".join(f"{symbol} {content['rows']:,}" for symbol, content in symbols.items())
        first, last = min(each["first"] for each in symbols.values()), max(each["last"] for each in symbols.values())
        lines.append(f"{name}: {first} to {last}, rows: {rows}")
    return lines


def main() -> None:
    """Run the stage at the repository root."""
    prepare(read_settings(PrepareConfig, "prepare", Paths()), Paths())


if __name__ == "__main__":
    run_stage(main)
