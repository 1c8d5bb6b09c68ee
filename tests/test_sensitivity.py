"""Choosing precisions from measured losses."""

import itertools

import numpy as np
import pytest

from export.config import ConfigError

sensitivity = pytest.importorskip("model.sensitivity")


def test_choice_is_the_best_of_all():
    rng = np.random.default_rng(1)
    for _ in range(20):
        increase = np.sort(rng.random((5, 3)))[:, ::-1]
        cost = rng.integers(1, 100, (5, 1)) * np.array([[1, 1.6, 2.4]])
        budget = cost[:, 1].sum()
        lost, _ = min((sum(increase[k, b - 1] for k, b in enumerate(bits)), bits)
                      for bits in itertools.product((1, 2, 3), repeat=5)
                      if sum(cost[k, b - 1] for k, b in enumerate(bits)) <= budget)
        chosen = sensitivity.choose(increase, cost, budget)
        assert sum(increase[k, b - 1] for k, b in enumerate(chosen)) == pytest.approx(lost)


def test_a_budget_that_nothing_fits_is_refused():
    with pytest.raises(ConfigError, match="no precisions fit into 1 bits"):
        sensitivity.choose(np.zeros((2, 3)), np.ones((2, 3)), 1)
