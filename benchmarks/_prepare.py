"""The prepare stage in a process of its own: `python -m benchmarks._prepare`, the request on standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from barcast.config import validate
from barcast.data.labels import LabelConfig
from barcast.params import load_params
from barcast.paths import Paths
from barcast.stages.prepare import PrepareConfig, prepare
from benchmarks._measure import ROOT, finish, peak

SYMBOLS = ["AAA", "BBB"]
BARS = "bars.parquet"


def run(folder: str) -> dict[str, Any]:
    """Run the stage on the bars in the folder, with the features, labels, split and scaler of params.yaml."""
    plain = load_params(ROOT / "params.yaml").model_dump()
    values: dict[str, Any] = {key: plain[key] for key in PrepareConfig.model_fields}
    values["data"] = {key: plain["data"][key] for key in ("features", "scaler")} | {"source": "bars", "path": BARS}
    values["label"] = {key: plain["label"][key] for key in LabelConfig.model_fields} | {"symbols": {}}
    values["symbols"] = SYMBOLS
    prepare(validate(PrepareConfig, values, "benchmarks.prepare"), Paths(Path(folder)))
    return {"peak_rss": peak()}


if __name__ == "__main__":
    finish(run(**json.loads(sys.stdin.read())))
