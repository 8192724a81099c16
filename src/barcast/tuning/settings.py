"""`tune:` of params.yaml: which cells are tuned, by which metric, on which folds, and for how long."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from barcast.config import listed_once, nearest
from barcast.evaluation.metrics import METRICS
from barcast.section import Section
from barcast.tuning.folds import FoldConfig

Direction = Literal["minimize", "maximize"]

UNDIRECTED = [metric.name for metric in METRICS.values() if not metric.direction]
_DIRECTED = [metric for metric in METRICS.values() if metric.direction]
DIRECTIONS: dict[str, Direction] = {m.name: "minimize" if m.direction == "lower" else "maximize" for m in _DIRECTED}


def _metric(name: str) -> str:
    if name in UNDIRECTED:
        raise ValueError(f"a metric that can be optimised; {name} has no direction")
    if name not in DIRECTIONS:
        close = nearest(name, DIRECTIONS)
        hint = f"did you mean '{close}'?" if close else f"known: {', '.join(sorted(DIRECTIONS))}"
        raise ValueError(f"a metric of the evaluator; {hint}")
    return name


class StudyConfig(Section):
    """How one study is run: `tune:` without the cells."""

    n_trials: Annotated[int, Field(ge=1)]
    n_jobs: Annotated[int, Field(ge=1)]
    metric: Annotated[str, AfterValidator(_metric)]
    startup_trials: Annotated[int, Field(ge=1)]
    pruner: Literal["median", "hyperband", "none"]
    timeout: Annotated[float, Field(gt=0)] | None
    storage: str | None
    folds: FoldConfig

    @property
    def direction(self) -> Direction:
        return DIRECTIONS[self.metric]


class TuneConfig(StudyConfig):
    """`tune:` of params.yaml: the cells `models` × `horizons`, and how each is tuned."""

    models: Annotated[list[str], AfterValidator(listed_once)]
    horizons: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(listed_once)]

    def study(self) -> StudyConfig:
        """The settings without the cells."""
        return StudyConfig.model_validate(self.model_dump(include=set(StudyConfig.model_fields)))
