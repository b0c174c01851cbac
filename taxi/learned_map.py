"""A map of the zones learned from trips: places whose straight lines fit the pairs' distances.

Every sum is made in one order, by numpy's own loops: those of BLAS and LAPACK depend on the machine
and its threads, and a last digit leads a fit like this one to another map.
"""

import numpy as np

from .schema import N_ZONES

UNKNOWN_ZONES = (264, 265)  # «unknown» and «outside New York»: no place on a map
DECIMALS = 3  # of a position in miles: five feet, and 10,000 times what the fit leaves open
# pairs that nobody has travelled share this part of all weight: enough for a zone that few trips
# touch to have one best place, and too little to move the others
GUESSED = 0.01
N_SPECTRAL = 200  # iterations for the start
TOLERANCE = 1e-9  # miles that the fit still moves a zone when it ends
N_CAREFUL = 50  # iterations in which the stress cannot rise
MAX_ITERATIONS = 5_000  # it takes 100 to 400
STEPS = (0.25, 100.0)  # least and greatest length of the later ones, in careful ones


def learn_map(pairs: np.ndarray, pair_trips: np.ndarray, pair_miles: np.ndarray) -> np.ndarray:
    """Place the zones so that straight lines between them fit the pairs' median distances.

    Weighted least-squares multidimensional scaling; a pair weighs sqrt(trips) / distance, so that
    well-travelled and short ways count most.

    Args:
        pairs: [p] codes of zones.pair_code. pair_trips: [p]. pair_miles: [p], NaN pairs are left
            out.
    Returns:
        [N_ZONES, 2] positions in miles from their middle, the first axis along the longest
        extent; NaN for zones that no clean trip reaches.
    Source: Kruskal, Nonmetric multidimensional scaling, 1964 (stress); de Leeuw, 1977 (weights).
    """
    start, end = np.divmod(pairs, 1000)
    use = ~np.isnan(pair_miles) & (start != end) & (start > 0) & (end > 0)
    use &= ~np.isin(start, UNKNOWN_ZONES) & ~np.isin(end, UNKNOWN_ZONES)
    start, end, miles = start[use], end[use], pair_miles[use]
    position = np.full((N_ZONES, 2), np.nan)
    zones = np.unique(np.concatenate([start, end]))
    if len(zones) < 3:
        return position
    start, end = np.searchsorted(zones, start), np.searchsorted(zones, end)
    weight, miles = _join_ways(start, end, np.sqrt(pair_trips[use]) / miles, miles, len(zones))
    ways = _shortest_ways(miles)
    weight, miles = _add_guesses(weight, miles, ways)
    points = _minimise_stress(weight, miles, _spectral_start(ways))
    position[zones] = np.round(_turn(points), DECIMALS).T
    return position


def _join_ways(
    start: np.ndarray, end: np.ndarray, weight: np.ndarray, miles: np.ndarray, n_zones: int
) -> tuple[np.ndarray, np.ndarray]:
    """Join both directions: weights that add up to 1, and miles, 0 where unseen; [z, z] each."""
    place, size = start * n_zones + end, n_zones * n_zones
    sums = [np.bincount(place, values, size) for values in (weight, weight * miles)]
    total, of_miles = (one.reshape(n_zones, -1) + one.reshape(n_zones, -1).T for one in sums)
    mean = np.divide(of_miles, total, out=np.zeros_like(total), where=total > 0)
    return total / total.sum(), mean


def _shortest_ways(miles: np.ndarray) -> np.ndarray:
    """Measure the shortest ways through the pairs seen, miles [z, z]."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    ways: np.ndarray = shortest_path(csr_array(miles), directed=False)
    ways[~np.isfinite(ways)] = np.nanmax(ways[np.isfinite(ways)])
    return ways


def _add_guesses(
    weight: np.ndarray, miles: np.ndarray, ways: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let the shortest ways stand for the pairs that are unseen, with little weight."""
    unseen = (weight == 0) & (ways > 0)
    guess = np.divide(1, ways, out=np.zeros_like(ways), where=unseen)
    guess *= GUESSED / max(guess.sum(), GUESSED)
    return weight * (1 - GUESSED) + guess, np.where(unseen, ways, miles)


def _spectral_start(ways: np.ndarray) -> np.ndarray:
    """Place the zones by classical scaling of the shortest ways, [2, z]."""
    square = ways**2
    inner = square.mean(axis=0) + square.mean(axis=1)[:, None] - square.mean() - square
    first = np.linspace(-1, 1, len(ways))
    second = first * first
    for _ in range(N_SPECTRAL):
        first = _unit(_product(inner, first))
        second = _product(inner, second)
        second = _unit(second - (first * second).sum() * first)
    axes = [(axis, (axis * _product(inner, axis)).sum() / 2) for axis in (first, second)]
    return np.stack([axis * np.sqrt(np.maximum(value, 0)) for axis, value in axes])


def _minimise_stress(weight: np.ndarray, miles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move the points until the weighted squared errors of their distances are least, [2, z].

    Each step is that of the Guttman transform, which can only go down; after N_CAREFUL of them, as
    long as the way that the last two steps have seen it bend allows.

    Source: de Leeuw, Applications of convex analysis to multidimensional scaling, 1977; Barzilai &
        Borwein, Two-point step size gradient methods, 1988.
    """
    inverse = _inverse_of_laplacian(weight)
    length, before = 1.0, (points, points, points)
    for iteration in range(MAX_ITERATIONS):
        slope = _slope(weight, miles, points)
        move = np.stack([_product(inverse, axis) for axis in slope])
        if np.abs(move).max() < TOLERANCE:
            break
        if iteration > N_CAREFUL:
            length = _step_length(points - before[0], slope - before[1], move - before[2])
        before = points, slope, move
        points = points - length * move
    return points


def _slope(weight: np.ndarray, miles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Half the gradient of the stress, [2, z]."""
    east, north = (axis[:, None] - axis for axis in points)
    distance = np.sqrt(east * east + north * north + 1e-9)
    pull = weight * (1 - miles / distance)
    return np.stack([(pull * east).sum(axis=1), (pull * north).sum(axis=1)])


def _step_length(moved: np.ndarray, bent: np.ndarray, turned: np.ndarray) -> float:
    """How far to go, by what the last step changed of the points, their slope and their move."""
    along, across = (moved * bent).sum(), (bent * turned).sum()
    if along <= 0 or across <= 0:
        return 1.0
    return float(np.clip(along / across, *STEPS))


def _inverse_of_laplacian(weight: np.ndarray) -> np.ndarray:
    """Invert the graph Laplacian of the weights for vectors that add up to 0, [z, z]."""
    matrix = np.diag(weight.sum(axis=1)) - weight
    matrix += matrix.diagonal().mean() / len(matrix)
    for k in range(len(matrix)):  # Gauss and Jordan's; it is positive definite and needs no pivots
        pivot, row, column = matrix[k, k], matrix[k].copy(), matrix[:, k].copy()
        matrix -= column[:, None] * (row / pivot)
        matrix[k], matrix[:, k], matrix[k, k] = row / pivot, -column / pivot, 1 / pivot
    return matrix


def _turn(points: np.ndarray) -> np.ndarray:
    """Centre the points, their longest extent along the first axis, the farthest ahead; [2, z]."""
    x, y = points - points.mean(axis=1)[:, None]
    half = np.arctan2(2 * (x * y).sum(), (x * x).sum() - (y * y).sum()) / 2
    cosine, sine = np.cos(half), np.sin(half)
    turned = np.stack([x * cosine + y * sine, y * cosine - x * sine])
    far = np.abs(turned).argmax(axis=1)
    return turned * np.sign(turned[[0, 1], far])[:, None]


def _product(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.asarray((matrix * vector).sum(axis=1))


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(np.sqrt((vector * vector).sum()), 1e-300))
