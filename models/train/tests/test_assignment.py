"""The pairing of targets with queries against SciPy's."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from pipeline.assignment import assign


@pytest.mark.parametrize("ties", [False, True])
def test_the_pairings_cost_what_scipys_cost(ties):
    rng = np.random.default_rng(3)
    cost = rng.normal(0, 3, (200, 28, 24)).astype(np.float32)
    if ties:
        cost = np.round(cost)
    present = rng.random((200, 24)) < rng.random((200, 1))
    present[0], present[1] = False, True
    paired = assign(cost, present)
    assert ((paired >= 0) == present).all()
    for matrix, shown, rows in zip(cost, present, paired, strict=True):
        columns = np.flatnonzero(shown)
        ours = rows[columns]
        assert len(set(ours)) == len(columns)
        theirs = matrix[:, columns][linear_sum_assignment(matrix[:, columns])]
        assert np.isclose(matrix[ours, columns].sum(), theirs.sum(), atol=1e-3)


def test_more_targets_than_queries_are_refused():
    with pytest.raises(ValueError, match="5 targets for 4 queries"):
        assign(np.zeros((1, 4, 6), np.float32), np.array([[True] * 5 + [False]]))
