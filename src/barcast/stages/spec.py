"""`spec`: resolve and check every hyperparameter, and write one small file for each stage and cell.

A stage depends on its own spec alone, so a changed parameter, module or library runs again exactly the
stages whose spec it changes.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from barcast.config import dump_yaml
from barcast.files import atomic_dir
from barcast.fingerprint import Fingerprint, Fingerprinter
from barcast.models.registry import ModelRegistry
from barcast.params import Params, load_params, resolve_model
from barcast.paths import Paths, cell_name
from barcast.stages._main import run_stage

_CELL = re.compile(r"\w+_h\d+")


def spec(paths: Paths, fingerprinter: Fingerprinter | None = None) -> None:
    """Write `experiments/specs/`, and remove the results of cells that left the matrix.

    Raises:
        ConfigError: anything in params.yaml is unknown, missing, of the wrong type or out of range.
    """
    params = load_params(paths.params)
    specs = {**stage_specs(params, fingerprinter), **cell_specs(params, paths.params, fingerprinter)}
    with atomic_dir(paths.specs) as folder:
        for name, content in specs.items():
            (folder / f"{name}.yaml").write_text(dump_yaml(content), encoding="utf-8")
    for gone in prune_runs(paths, params):
        print(f"{gone}: no longer in the matrix, removed (DVC's cache still has it)")
    print(f"{len(list(params.cells()))} cells: {len(params.models)} models × {len(params.horizons)} horizons")


def stage_specs(params: Params, fingerprinter: Fingerprinter | None = None) -> dict[str, dict[str, Any]]:
    """The settings that each stage reads, and the fingerprint of its code."""
    plain = params.model_dump(mode="json")
    data = plain["data"]
    audit = data.pop("audit")
    # without the seeds: a longer list of them evaluates no cell again
    scoring = {key: value for key, value in plain["evaluate"].items() if key != "seeds"}
    scoring["purge_bars"] = plain["split"]["purge_bars"]
    prepare = {key: plain[key] for key in ("symbols", "horizons", "data", "label", "split")}
    configs: dict[str, dict[str, Any]] = {
        "prepare": prepare,
        "audit": {**prepare, "seed": plain["seed"], "data": {**data, "audit": audit}, "window": plain["window"]},
        "window": {"horizons": plain["horizons"], "window": plain["window"]},
        "evaluate": scoring,
        "repeat": scoring,
        "compare": {
            "cells": [{"model": model, "horizon": horizon} for model, horizon in params.cells()],
            **plain["compare"],
            **{key: plain["evaluate"][key] for key in ("seeds", "cost_bps", "calibration_bins")},
            "reach": {f"h{horizon}": params.reach(horizon) for horizon in params.horizons},
            "seed": plain["seed"],
        },
    }
    fingerprinter = fingerprinter or Fingerprinter()
    return {
        stage: {"stage": stage, "config": config, **_code(fingerprinter.fingerprint(f"barcast.stages.{stage}"))}
        for stage, config in configs.items()
    }


def cell_specs(params: Params, file: Path, fingerprinter: Fingerprinter | None = None) -> dict[str, dict[str, Any]]:
    """Each cell's hyperparameters and the fingerprint of the code and libraries that can change its result."""
    fingerprinter = fingerprinter or Fingerprinter()
    specs = {}
    for model, horizon in params.cells():
        module = ModelRegistry.get_metadata(model).module
        cell = cell_name(model, horizon)
        specs[cell] = {
            "cell": cell,
            "model": model,
            "horizon": horizon,
            "config": resolve_model(params, model, horizon, file).model_dump(mode="json"),
            **_code(fingerprinter.fingerprint("barcast.stages.train", module)),
        }
    return specs


def prune_runs(paths: Paths, params: Params) -> list[Path]:
    """Remove the folders of cells outside the matrix, and of repeats with seeds no longer asked for: `compare` depends
    on the folder that holds them all."""
    keep = {cell_name(model, horizon) for model, horizon in params.cells()}
    repeats = {f"s{seed}" for seed in params.evaluate.seeds}
    cells = [folder for folder in _folders(paths.runs) if _CELL.fullmatch(folder.name)]
    gone = [folder for folder in cells if folder.name not in keep]
    for folder in cells:
        if folder.name in keep:
            gone += [repeat for repeat in _folders(folder / "repeats") if repeat.name not in repeats]
    for folder in gone:
        shutil.rmtree(folder)
    return gone


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []


def _code(fingerprint: Fingerprint) -> dict[str, Any]:
    return {"code": fingerprint.code, "libraries": fingerprint.libraries}


def main() -> None:
    """Run the stage in the repository's root."""
    spec(Paths())


if __name__ == "__main__":
    run_stage(main)
