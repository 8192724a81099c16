"""The comparison of ways to weight an ensemble."""

import numpy as np
import pytest
from benchmarks.ensembles import WAYS, Block, best_single, equal, greedy, score_way

from barcast.probabilities import log_loss


def block(name, seed, count=300):
    """Three members: one that knows the label a little, one that repeats it with noise, and one that knows nothing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(-1, 2, count)
    truth = np.eye(3)[y + 1]
    sharp, weak = (rng.dirichlet([1, 1, 1], count) * (1 - share) + share * truth for share in (0.4, 0.2))
    return Block(name, np.stack([sharp, weak, np.full((count, 3), 1 / 3)]), y)


BLOCKS = [block(name, seed) for seed, name in enumerate(("fold 1", "fold 2", "calibration", "ranked"))]


def test_each_block_is_scored_with_weights_that_were_fitted_without_it():
    seen = []

    def fit(members, y):
        seen.append(len(y))
        assert members.shape == (3, len(y), 3)
        return equal(members, y)

    losses = score_way(BLOCKS, fit, lambda members, weights: np.tensordot(weights, members, 1))
    assert seen == [600, 600, 600, 900]  # the selection subset fits none of the others
    for each in BLOCKS:
        assert losses[each.name] == pytest.approx(log_loss(each.members.mean(axis=0), each.y))
    assert losses["mean"] == pytest.approx(np.mean([losses[each.name] for each in BLOCKS]))


def test_greedy_selection_prefers_what_helps():
    members, y = BLOCKS[0].members, BLOCKS[0].y
    weights = greedy(members, y)
    assert weights.sum() == pytest.approx(1)
    assert weights[0] > 0.5
    assert log_loss(np.tensordot(weights, members, 1), y) <= min(log_loss(member, y) for member in members)


@pytest.mark.parametrize("name", WAYS)
def test_every_way_gives_probabilities_that_beat_knowing_nothing(name):
    assert score_way(BLOCKS, *WAYS[name])["mean"] < np.log(3)


def test_the_best_single_member_is_named():
    found = best_single(BLOCKS, ["sharp", "weak", "nothing"])
    assert found["model"] == "sharp"
    assert found["mean"] == pytest.approx(np.mean([log_loss(each.members[0], each.y) for each in BLOCKS]))
