"""The baseline of one horizon: the prior, which a model must beat to have learned anything."""

from __future__ import annotations

from barcast.data.dataset import TimeSeriesDataset
from barcast.evaluation.evaluator import CellEvaluation, EvaluateConfig, Evaluator
from barcast.models.prior import Prior


def evaluate_prior(dataset: TimeSeriesDataset, config: EvaluateConfig) -> CellEvaluation:
    """Fit the class frequencies of train, and score them on validation and test."""
    horizon, train, val = dataset.config.horizon, dataset.split("train"), dataset.split("val")
    values = {"model_name": "prior", "model_family": "baseline", "horizon": horizon, "random_seed": 0, "threads": 1}
    prior = Prior(values, horizon, dataset.feature_columns())
    prior.fit(train.X, train.y, val.X, val.y, sample_weight=train.weight)
    return Evaluator(config).evaluate(prior, val, dataset.split("test"))
