"""Whether a limit of rounds or epochs ended a training that was still improving."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from barcast.evaluation.evaluator import ended_by_limit


def booster(limit, patience, early_stopping=True):
    return {"max_rounds": limit, "patience": patience, "early_stopping": early_stopping}


def network(limit, patience=3, early_stopping=True, **more):
    return {"max_epochs": limit, "patience": patience, "early_stopping": early_stopping, **more}


def history(*losses, first=0):
    return [{"step": first + step, "val_log_loss": loss, "train_log_loss": 1.0} for step, loss in enumerate(losses)]


def trained(losses, limit, patience):
    """The rounds that early stopping leaves of an endless sequence of losses."""
    kept = []
    for loss in losses[:limit]:
        kept.append(loss)
        if len(kept) - 1 - kept.index(min(kept)) >= patience:
            break
    return kept


@given(st.lists(st.integers(0, 30), min_size=40, max_size=40), st.integers(1, 40), st.integers(1, 10))
def test_a_limit_ended_a_booster_that_would_have_trained_on_without_it(losses, limit, patience):
    falling = [*losses, *range(-1, -200, -1)]  # which improves for ever from there on
    kept = trained(falling, limit, patience)
    longer = len(trained(falling, 10_000, patience)) > limit
    improved = limit > patience or min(kept) < kept[0]  # of so few rounds all that can be said
    expected = f"max_rounds = {limit}" if longer and improved else None
    assert ended_by_limit(booster(limit, patience), history(*kept)) == expected


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.9, 0.8, 0.7], "max_epochs = 4"),
        ([1.0, 0.9, 0.7, 0.8], None),  # the last epoch made nothing better
        ([1.0, 0.9, 0.8, 0.7996], None),  # less than noise
        ([0.7, 0.8, 0.9], None),  # stopped early
        ([1.0, 0.9, 0.8], None),
    ],
)
def test_a_network_was_still_improving_if_its_last_epoch_is_its_best(losses, expected):
    assert ended_by_limit(network(4), history(*losses)) == expected


def test_of_several_networks_one_is_enough():
    done, cut = [1.0, 0.8, 0.9, 0.9], [1.0, 0.9, 0.8, 0.7]
    config = network(4, average_seeds=3)
    both = [history(*done), history(*cut, first=4), history(*done[:3], first=8)]
    assert ended_by_limit(config, [step for each in both for step in each]) == "max_epochs = 4"
    none = [history(*done), history(*done[:3], first=4), history(*done, first=8)]
    assert ended_by_limit(config, [step for each in none for step in each]) is None


def test_without_early_stopping_or_a_limit_nothing_is_reported():
    falling = history(*np.linspace(1, 0.5, 5))
    assert ended_by_limit(booster(5, 2), falling) == "max_rounds = 5"
    assert ended_by_limit(booster(5, 2, early_stopping=False), falling) is None
    assert ended_by_limit(network(5, early_stopping=False), falling) is None
    assert ended_by_limit({"max_iterations": 5, "C": 1.0}, falling) is None
    assert ended_by_limit({}, []) is None


@pytest.mark.parametrize(
    ("last", "expected"), [((0.699, 0.698), "max_rounds = 6"), ((0.6998, 0.6996), None), ((0.71, 0.72), None)]
)
def test_a_booster_that_gained_less_than_noise_at_its_end_was_not_improving(last, expected):
    assert ended_by_limit(booster(6, 2), history(1.0, 0.9, 0.8, 0.7, *last)) == expected


def test_of_a_single_epoch_nothing_is_reported():
    assert ended_by_limit(network(1), history(0.7)) is None
