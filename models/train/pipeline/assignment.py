"""The cheapest one-to-one pairing of rows with columns, many small problems at once.

The method is the Hungarian algorithm in its form with shortest augmenting paths and potentials (Jonker and Volgenant
1987, Computing 38:325-340). One compiled call solves a whole batch outside Python's lock: on a GPU the pairing of a
batch must not cost more than its convolutions.
"""

from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

THREADS = 4
POOL = ThreadPoolExecutor(THREADS)


@numba.njit(nogil=True, cache=True)
def pair_rows(cost, present, paired):
    """Solves each problem of `cost` (N, Q, T), float32, for the columns that `present` (N, T) has; there are at most
    Q of them. `paired` (N, T) receives the row of each such column and -1 elsewhere."""
    problems, rows, columns = cost.shape
    for n in range(problems):
        match = np.full(rows + 1, -1, np.int64)  # column that a row is paired with; the last row is the start's
        row_price, column_price = np.zeros(rows + 1), np.zeros(columns)
        for column in range(columns):
            paired[n, column] = -1
            if not present[n, column]:
                continue
            at, match[rows] = rows, column
            shortest, before = np.full(rows, np.inf), np.full(rows, rows, np.int64)
            done = np.zeros(rows + 1, np.bool_)
            while match[at] >= 0:
                done[at] = True
                here, least, nearest = match[at], np.inf, -1
                for row in range(rows):
                    if done[row]:
                        continue
                    reduced = cost[n, row, here] - row_price[row] - column_price[here]
                    if reduced < shortest[row]:
                        shortest[row], before[row] = reduced, at
                    if shortest[row] < least:
                        least, nearest = shortest[row], row
                for row in range(rows + 1):
                    if done[row]:
                        column_price[match[row]] += least
                        row_price[row] -= least
                    elif row < rows:
                        shortest[row] -= least
                at = nearest
            while at != rows:
                match[at] = match[before[at]]
                at = before[at]
        for row in range(rows):
            if match[row] >= 0:
                paired[n, match[row]] = row


def assign(cost: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Row of each present column, (N, T) int64 with -1 where `present` (N, T) is False, at the least total cost of
    `cost` (N, Q, T). No more columns than Q may be present."""
    cost, present = np.ascontiguousarray(cost, np.float32), np.ascontiguousarray(present)
    if present.sum(1).max(initial=0) > cost.shape[1]:
        raise ValueError(f"{present.sum(1).max()} targets for {cost.shape[1]} queries; give the network more queries")
    paired = np.empty(present.shape, np.int64)
    parts = [slice(k * len(cost) // THREADS, (k + 1) * len(cost) // THREADS) for k in range(THREADS)]
    list(POOL.map(lambda part: pair_rows(cost[part], present[part], paired[part]), parts))
    return paired
