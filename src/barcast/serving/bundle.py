"""What a served model carries along, so that it needs nothing else of the repository.

model/model.json, …      the checkpoint, as `BaseModel.save` wrote it
model/serving.json       how bars become windows: symbols, bar length, features, scaler, window
model/postprocess.json   what `evaluate` fitted on validation after the model
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from barcast.config import Section, validate
from barcast.data.features import FeatureConfig, memory_bars, warmup_bars
from barcast.data.splits import Scaler
from barcast.errors import ModelError
from barcast.files import read_json, write_json
from barcast.fingerprint import Fingerprint, Fingerprinter
from barcast.models.registry import ModelRegistry

SERVING_FILE = "serving.json"
POSTPROCESS_FILE = "postprocess.json"


class ServingConfig(Section):
    """`serving.json`: all that stands between raw bars and the model."""

    model: str
    horizon: Annotated[int, Field(ge=1)]
    symbols: Annotated[list[str], Field(min_length=1)]
    bar_seconds: Annotated[float, Field(gt=0)]  # the usual time from bar to bar
    seq_len: Annotated[int, Field(ge=1)]
    max_gap: str
    features: FeatureConfig
    scaler: dict[str, Any]  # as `Scaler.to_dict` has it
    max_request_rows: Annotated[int, Field(ge=1)]
    code: str  # see `code_of`

    @property
    def needed_bars(self) -> int:
        """The fewest bars of a symbol for an answer: the features' warm-up and one window."""
        return warmup_bars(self.features) + self.seq_len

    @property
    def exact_bars(self) -> int:
        """How many bars make the last answer the same as any longer history would.

        Of boosters and baselines to the last bit; of networks but for rounding (within 1e-6), since their sums depend
        on how many windows are asked together.
        """
        return memory_bars(self.features) + self.seq_len

    @property
    def bar(self) -> pd.Timedelta:
        return pd.Timedelta(seconds=self.bar_seconds)

    @property
    def max_gap_ns(self) -> int:
        return int(pd.Timedelta(self.max_gap).as_unit("ns").value)

    def fitted_scaler(self) -> Scaler:
        """The scaler that was fitted on the train split."""
        return Scaler.from_dict(self.scaler)


def read_config(folder: Path) -> ServingConfig:
    """Read `serving.json` of a bundle.

    Raises:
        ModelError: there is none.
        ConfigError: it has another form.
    """
    file = folder / SERVING_FILE
    if not file.is_file():
        raise ModelError(f"{folder}: no served model here ({SERVING_FILE} is missing); run `barcast promote` first")
    return validate(ServingConfig, read_json(file), file)


def write_bundle(folder: Path, checkpoint: Path, metrics: Path, config: ServingConfig) -> None:
    """Copy a cell's checkpoint and its post-processing into an empty folder, `serving.json` beside them."""
    shutil.copytree(checkpoint, folder, dirs_exist_ok=True)
    shutil.copy(metrics / POSTPROCESS_FILE, folder / POSTPROCESS_FILE)
    write_json(folder / SERVING_FILE, config.model_dump(mode="json"))


def folder_hash(folder: Path) -> str:
    """SHA-256 over names and contents of all files below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return digest.hexdigest()


def serving_fingerprint(model: str) -> Fingerprint:
    """The code and libraries that turn bars into this model's answers."""
    return Fingerprinter().fingerprint("barcast.serving.predictor", ModelRegistry.get_metadata(model).module)


def code_of(fingerprint: Fingerprint) -> str:
    """One hash over the code of a fingerprint; libraries left out."""
    lines = "".join(f"{module} {value}\n" for module, value in fingerprint.code.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def is_own_code(config: ServingConfig) -> bool:
    """Whether the code at hand is the one that the model was promoted with."""
    return code_of(serving_fingerprint(config.model)) == config.code
