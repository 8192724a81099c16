"""`spec`: resolve and check every hyperparameter, and write one small file for each stage and cell.

A stage depends on its own spec alone, so a changed parameter, module or library runs again exactly the
stages whose spec it changes.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from barcast.config import dump_yaml
from barcast.errors import ConfigError
from barcast.files import atomic_dir
from barcast.fingerprint import Fingerprint, Fingerprinter
from barcast.models.registry import ModelRegistry
from barcast.params import Params, load_params, resolve_model
from barcast.paths import Paths, cell_name
from barcast.pins import unmet
from barcast.stages._main import run_stage
from barcast.tuning.search_space import check_space, load_space, space_file
from barcast.tuning.settings import FoldScoring

# With the model: what the result of a trial depends on. The rest of the tuner shows it.
TRIAL_CODE = ("barcast.tuning._workers", "barcast.tuning.scaling")
# What the pipeline calls its folders: what bears another name is the user's.
_CELL, _HORIZON, _SEED = re.compile(r"\w+_h\d+"), re.compile(r"h\d+"), re.compile(r"s\d+")


def spec(paths: Paths, fingerprinter: Fingerprinter | None = None) -> None:
    """Write `experiments/specs/`, and remove the results of cells that left the matrix.

    Raises:
        ConfigError: anything in params.yaml is unknown, missing, of the wrong type or out of range; or a library that
            a result depends on is installed in another version than the one that is pinned.
    """
    params = load_params(paths.params)
    specs = {
        **stage_specs(params, fingerprinter),
        **cell_specs(params, paths.params, fingerprinter),
        **tune_specs(params, paths, fingerprinter),
        **ensemble_specs(params, fingerprinter),
        **oof_specs(params, paths.params, fingerprinter),
    }
    _check_pins(paths.root / "requirements.lock", specs)
    with atomic_dir(paths.specs) as folder:
        for name, content in specs.items():
            (folder / f"{name}.yaml").write_text(dump_yaml(content), encoding="utf-8")
    paths.tune.mkdir(parents=True, exist_ok=True)  # `compare` reads it, also where nothing is tuned
    for gone in prune_runs(paths, params):
        print(f"{gone}: no longer in the matrix, removed (DVC's cache still has it)")
    print(f"{len(list(params.cells()))} cells: {len(params.models)} models × {len(params.horizons)} horizons")


def _check_pins(lock: Path, specs: Mapping[str, Mapping[str, Any]]) -> None:
    """A spec names what is installed, and is written anew when the lock file changes: so the two must agree."""
    names = {name for content in specs.values() for name in content["libraries"]}
    wrong = unmet(lock, names) if lock.is_file() else []
    if wrong:
        raise ConfigError(
            f"{lock.name}: {', '.join(wrong)}; run `pip install --no-deps -r {lock.name}`, or pin what is installed"
        )


def stage_specs(params: Params, fingerprinter: Fingerprinter | None = None) -> dict[str, dict[str, Any]]:
    """The settings that each stage reads, and the fingerprint of its code."""
    plain = params.model_dump(mode="json")
    data = plain["data"]
    audit, weights = data.pop("audit"), plain["label"].pop("weights")
    scoring = _scoring(plain)
    prepare = {key: plain[key] for key in ("symbols", "horizons", "data", "label", "split")}
    configs: dict[str, dict[str, Any]] = {
        "prepare": prepare,
        "audit": {**prepare, "seed": plain["seed"], "data": {**data, "audit": audit}, "window": plain["window"]},
        "window": {"horizons": plain["horizons"], "weights": weights, "window": plain["window"]},
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


def tune_specs(params: Params, paths: Paths, fingerprinter: Fingerprinter | None = None) -> dict[str, dict[str, Any]]:
    """What each tuned cell starts from, may try and is judged by, and the fingerprint of tuner and model.

    Raises:
        ConfigError: a search space is missing, empty, or holds what its model does not take.
    """
    fingerprinter = fingerprinter or Fingerprinter()
    plain = params.model_dump(mode="json")
    scoring = {key: plain["evaluate"][key] for key in FoldScoring.model_fields}
    specs = {}
    for model, horizon in params.tuned_cells():
        base = resolve_model(params, model, horizon, paths.params).model_dump(mode="json")
        config = {
            "seed": params.seed,
            "base": base,
            "space": _space(model, base, space_file(paths.root, model)),
            "study": params.tune.study().model_dump(mode="json"),
            "scoring": scoring,
            "scaler": _scaler(params),
        }
        module, cell = ModelRegistry.get_metadata(model).module, cell_name(model, horizon)
        specs[f"tune_{cell}"] = {
            "stage": "tune",
            "cell": cell,
            "config": config,
            "trials": _digest(fingerprinter.fingerprint(*TRIAL_CODE, module)),
            **_code(fingerprinter.fingerprint("barcast.stages.tune", module)),
        }
    return specs


def ensemble_specs(params: Params, fingerprinter: Fingerprinter | None = None) -> dict[str, dict[str, Any]]:
    """Who is in each horizon's ensemble, and how it is weighted and scored."""
    code = _code((fingerprinter or Fingerprinter()).fingerprint("barcast.stages.ensemble"))
    specs = {}
    for horizon in params.horizons:
        config = {
            **_scoring(params.model_dump(mode="json")),
            "members": params.ensemble_members(),
            "weights": params.ensemble.weights.get(f"h{horizon}"),
            "shrink": params.ensemble.shrink,
        }
        specs[f"ensembles_h{horizon}"] = {"stage": "ensemble", "horizon": horizon, "config": config, **code}
    return specs


def oof_specs(params: Params, file: Path, fingerprinter: Fingerprinter | None = None) -> dict[str, dict[str, Any]]:
    """How each cell is fitted out of fold; `base` is null for models that are not to be."""
    fingerprinter = fingerprinter or Fingerprinter()
    chosen, specs = params.evaluate.out_of_fold, {}
    for model, horizon in params.cells():
        code = _code(fingerprinter.fingerprint("barcast.stages.oof", ModelRegistry.get_metadata(model).module))
        wanted = chosen == "all" or model in chosen
        base = resolve_model(params, model, horizon, file).model_dump(mode="json") if wanted else None
        config = {"base": base, "folds": params.tune.folds.model_dump(mode="json"), "scaler": _scaler(params)}
        cell = cell_name(model, horizon)
        specs[f"oof_{cell}"] = {"stage": "oof", "cell": cell, "config": config, **code}
    return specs


def _scaler(params: Params) -> dict[str, Any]:
    """How the splits were scaled; of those that were scaled elsewhere the clip is not known."""
    scaler = params.data.scaler
    return {"kind": scaler.kind, "clip": scaler.clip if params.data.source == "bars" else None}


def _scoring(plain: dict[str, Any]) -> dict[str, Any]:
    """How cells are scored: without the seeds and the models with folds, since longer lists evaluate no cell again."""
    scoring = {key: value for key, value in plain["evaluate"].items() if key not in {"seeds", "out_of_fold"}}
    return {**scoring, "purge_bars": plain["split"]["purge_bars"]}


def _digest(fingerprint: Fingerprint) -> str:
    return hashlib.sha256(dump_yaml(_code(fingerprint)).encode()).hexdigest()[:16]


def _space(model: str, base: dict[str, Any], file: Path) -> dict[str, Any]:
    space = load_space(file, model)
    if not space.entries:
        raise ConfigError(f"{file}: {model} has nothing to tune; take it out of tune.models or give it a search space")
    check_space(space, base, model, file)
    return space.to_dict()


def prune_runs(paths: Paths, params: Params) -> list[Path]:
    """Remove the folders of cells outside the matrix, of repeats with seeds no longer asked for, of studies and
    ensembles that params.yaml no longer has: `compare` depends on the folders that hold them all. What has another
    form of name is left alone."""
    keep = {cell_name(model, horizon) for model, horizon in params.cells()}
    tuned = {cell_name(model, horizon) for model, horizon in params.tuned_cells()}
    horizons = {f"h{horizon}" for horizon in params.horizons}
    seeds = {f"s{seed}" for seed in params.evaluate.seeds}
    gone = [
        *_others(paths.runs, _CELL, keep),
        *(repeat for cell in sorted(keep) for repeat in _others(paths.run(cell) / "repeats", _SEED, seeds)),
        *_others(paths.tune, _CELL, tuned),
        *_others(paths.oof, _CELL, keep),
        *_others(paths.ensembles, _HORIZON, horizons),
    ]
    for folder in gone:
        shutil.rmtree(folder)
    return gone


def _others(parent: Path, form: re.Pattern[str], known: set[str]) -> list[Path]:
    """The folders of `parent` that bear such a name and are not among the known."""
    found = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
    return [folder for folder in found if form.fullmatch(folder.name) and folder.name not in known]


def _code(fingerprint: Fingerprint) -> dict[str, Any]:
    return {"code": fingerprint.code, "libraries": fingerprint.libraries}


def main() -> None:
    """Run the stage in the repository's root."""
    spec(Paths())


if __name__ == "__main__":
    run_stage(main)
