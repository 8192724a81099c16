"""The bundle: a served model with all that it needs, without the rest of the repository.

model/model.json, …      the checkpoint, as `BaseModel.save` wrote it
model/serving.json       how bars become windows: symbols, bar length, features, scaler, window
model/postprocess.json   the calibration that `evaluate` fitted on validation
"""

from __future__ import annotations

import hashlib
import shutil
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from barcast.cache.fingerprint import Fingerprint, Fingerprinter
from barcast.config import validate
from barcast.data.features import FeatureConfig, memory_bars, warmup_bars
from barcast.data.scaler import Scaler
from barcast.errors import ModelError
from barcast.files import read_json, write_json
from barcast.models.registry import ModelRegistry
from barcast.section import Section

SERVING_FILE = "serving.json"
POSTPROCESS_FILE = "postprocess.json"


class ServingConfig(Section):
    """`serving.json`: how raw bars become the model's windows."""

    model: str
    horizon: Annotated[int, Field(ge=1)]
    symbols: Annotated[list[str], Field(min_length=1)]
    bar_seconds: Annotated[float, Field(gt=0)]  # the usual time between bars
    seq_len: Annotated[int, Field(ge=1)]
    max_gap: str
    features: FeatureConfig
    scaler: dict[str, Any]  # of `Scaler.to_dict`
    max_request_rows: Annotated[int, Field(ge=1)]
    code: str  # see `code_of`

    @property
    def needed_bars(self) -> int:
        """The fewest bars of a symbol for one prediction: the features' warm-up and one window."""
        return warmup_bars(self.features) + self.seq_len

    @property
    def exact_bars(self) -> int:
        """The bars from which on the last prediction is the same as with any longer history.

        Bit-identical for boosters and baselines; within 1e-6 for networks, whose sums depend on the batch.
        """
        return memory_bars(self.features) + self.seq_len

    @property
    def bar(self) -> pd.Timedelta:
        return pd.Timedelta(seconds=self.bar_seconds)

    @property
    def max_gap_ns(self) -> int:
        return int(pd.Timedelta(self.max_gap).as_unit("ns").value)

    def fitted_scaler(self) -> Scaler:
        """The scaler fitted on the train split."""
        return Scaler.from_dict(self.scaler)


def read_config(folder: Path) -> ServingConfig:
    """Read `serving.json` of a bundle.

    Raises:
        ModelError: there is none.
        ConfigError: its content is not valid.
    """
    file = folder / SERVING_FILE
    if not file.is_file():
        raise ModelError(f"{folder}: no served model here ({SERVING_FILE} is missing); run `barcast promote` first")
    return validate(ServingConfig, read_json(file), file)


def write_bundle(folder: Path, checkpoint: Path, metrics: Path, config: ServingConfig) -> None:
    """Copy a cell's checkpoint and post-processing into an empty folder, and add `serving.json`."""
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    shutil.copy(metrics / POSTPROCESS_FILE, folder / POSTPROCESS_FILE)
    write_json(folder / SERVING_FILE, config.model_dump(mode="json"))


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in `folder`."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


@cache
def serving_fingerprint(model: str) -> Fingerprint:
    """The code and libraries that turn bars into this model's predictions."""
    return Fingerprinter().fingerprint("barcast.serving.predictor", ModelRegistry.get_metadata(model).module)


def code_of(fingerprint: Fingerprint) -> str:
    """One hash over the code of a fingerprint, without libraries."""
    lines = "".join(f"{module} {value}\n" for module, value in fingerprint.code.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def is_own_code(config: ServingConfig) -> bool:
    """Whether the present code is the code that the model was promoted with."""
    return code_of(serving_fingerprint(config.model)) == config.code
