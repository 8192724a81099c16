"""`tune:` of params.yaml: what is tuned, by which metric, in which folds, and how long."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from barcast.config import Section, nearest
from barcast.tuning.folds import FoldConfig

Direction = Literal["minimize", "maximize"]

_LOWER = ("log_loss", "brier", "ece")
_BY_CLASS = tuple(f"{metric}_{name}" for metric in ("precision", "recall", "f1") for name in ("down", "flat", "up"))
_HIGHER = (
    *("accuracy", "balanced_accuracy", "macro_f1", "mcc", "auc_ovr", *_BY_CLASS),
    *("sharpe", "sortino", "max_drawdown", "hit_rate", "profit_factor", "total_return"),
)
UNDIRECTED = ("turnover", "trades", "exposure")  # neither more nor less of them is better by itself

DIRECTIONS: dict[str, Direction] = {
    **dict.fromkeys(_LOWER, "minimize"),
    **dict.fromkeys(_HIGHER, "maximize"),
}


def _once(values: list[Any]) -> list[Any]:
    twice = next((value for value in values if values.count(value) > 1), None)
    if twice is not None:
        raise ValueError(f"each entry once; {twice!r} stands twice")
    return values


def _metric(name: str) -> str:
    if name in UNDIRECTED:
        raise ValueError(f"a metric of which more or less is better; of {name} neither is")
    if name not in DIRECTIONS:
        close = nearest(name, DIRECTIONS)
        hint = f"did you mean '{close}'?" if close else f"known: {', '.join(sorted(DIRECTIONS))}"
        raise ValueError(f"a metric of the evaluator; {hint}")
    return name


class StudyConfig(Section):
    """How one study is run; everything of `tune:` but which cells."""

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

    models: Annotated[list[str], AfterValidator(_once)]
    horizons: Annotated[list[Annotated[int, Field(ge=1)]], AfterValidator(_once)]

    def study(self) -> StudyConfig:
        """The settings without the cells."""
        return StudyConfig.model_validate(self.model_dump(include=set(StudyConfig.model_fields)))


class FoldScoring(Section):
    """The keys of `evaluate:` that a fold's scores depend on."""

    cost_bps: Annotated[float, Field(ge=0)]
    calibration_bins: Annotated[int, Field(ge=1)]
