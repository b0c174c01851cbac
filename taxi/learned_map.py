"""A map of the zones learned from trips: positions whose distances fit those of the pairs.

Every sum is made in a fixed order, by numpy's own loops: sums by BLAS and LAPACK depend on the
machine and its threads, and a difference in the last digit leads this fit to another map.
"""

import numpy as np

from .schema import N_ZONES

UNKNOWN_ZONES = (264, 265)  # «unknown» and «outside New York»: no position on a map
DECIMALS = 3  # of a position in miles: five feet, 10,000 times the fit's convergence error
# share of the total weight that goes to pairs without trips: enough to give a zone with few trips a
# unique best position, too little to move the others
GUESSED_WEIGHT = 0.01
N_SPECTRAL = 200  # power iterations for the starting positions
TOLERANCE = 1e-9  # miles; the fit ends when no zone moves by more
N_FULL_STEPS = 50  # first iterations, of full Guttman steps, in which the stress cannot rise
MAX_ITERATIONS = 5_000  # it takes 100 to 400
STEP_LENGTHS = (0.25, 100.0)  # least and greatest length of later steps, in Guttman steps


def learn_map(pairs: np.ndarray, pair_trips: np.ndarray, pair_miles: np.ndarray) -> np.ndarray:
    """Place the zones so that straight lines between them fit the pairs' median distances.

    Weighted least-squares multidimensional scaling; a pair weighs sqrt(trips) / distance, so that
    frequent and short pairs count most.

    Args:
        pairs: [p] codes of zones.pair_code.
        pair_trips: [p] number of trips.
        pair_miles: [p] median distance; pairs with NaN are left out.
    Returns:
        [N_ZONES, 2] positions in miles from their mean, the first axis along the longest extent;
        NaN for zones without clean trips, and for all zones if fewer than 3 have any.
    Source: Kruskal, Nonmetric multidimensional scaling, 1964 (stress); de Leeuw, 1977 (weights).
    """
    start, end = np.divmod(pairs, 1000)
    is_used = ~np.isnan(pair_miles) & (start != end) & (start > 0) & (end > 0)
    is_used &= ~np.isin(start, UNKNOWN_ZONES) & ~np.isin(end, UNKNOWN_ZONES)
    start, end, miles = start[is_used], end[is_used], pair_miles[is_used]
    position = np.full((N_ZONES, 2), np.nan)
    zones = np.unique(np.concatenate([start, end]))
    if len(zones) < 3:
        return position
    start, end = np.searchsorted(zones, start), np.searchsorted(zones, end)
    weight, miles = _merge_directions(
        start, end, np.sqrt(pair_trips[is_used]) / miles, miles, len(zones)
    )
    path_miles = _shortest_paths(miles)
    weight, miles = _add_guesses(weight, miles, path_miles)
    points = _minimise_stress(weight, miles, _spectral_start(path_miles))
    position[zones] = np.round(_turn_to_axes(points), DECIMALS).T
    return position


def _merge_directions(
    start: np.ndarray, end: np.ndarray, weight: np.ndarray, miles: np.ndarray, n_zones: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merge both directions: weights that sum to 1, and mean miles, 0 if unseen; [z, z] each."""
    pair_index, size = start * n_zones + end, n_zones * n_zones
    sums = [np.bincount(pair_index, values, size) for values in (weight, weight * miles)]
    total, weighted_miles = (one.reshape(n_zones, -1) + one.reshape(n_zones, -1).T for one in sums)
    mean = np.divide(weighted_miles, total, out=np.zeros_like(total), where=total > 0)
    return total / total.sum(), mean


def _shortest_paths(miles: np.ndarray) -> np.ndarray:
    """Compute the shortest paths through the pairs seen, miles [z, z]."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import shortest_path

    path_miles: np.ndarray = shortest_path(csr_array(miles), directed=False)
    path_miles[~np.isfinite(path_miles)] = np.nanmax(path_miles[np.isfinite(path_miles)])
    return path_miles


def _add_guesses(
    weight: np.ndarray, miles: np.ndarray, path_miles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Fill in unseen pairs with their shortest paths, at little weight."""
    unseen = (weight == 0) & (path_miles > 0)
    guess = np.divide(1, path_miles, out=np.zeros_like(path_miles), where=unseen)
    guess *= GUESSED_WEIGHT / max(guess.sum(), GUESSED_WEIGHT)
    return weight * (1 - GUESSED_WEIGHT) + guess, np.where(unseen, path_miles, miles)


def _spectral_start(path_miles: np.ndarray) -> np.ndarray:
    """Compute starting positions by classical scaling of the shortest paths, [2, z]."""
    square = path_miles**2
    inner = square.mean(axis=0) + square.mean(axis=1)[:, None] - square.mean() - square
    first = np.linspace(-1, 1, len(path_miles))
    second = first * first
    for _ in range(N_SPECTRAL):
        first = _unit(_product(inner, first))
        second = _product(inner, second)
        second = _unit(second - (first * second).sum() * first)
    axes = [(axis, (axis * _product(inner, axis)).sum() / 2) for axis in (first, second)]
    return np.stack([axis * np.sqrt(np.maximum(value, 0)) for axis, value in axes])


def _minimise_stress(weight: np.ndarray, miles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Move the points to minimise the weighted squared errors of their distances, [2, z].

    Each step follows the Guttman transform, which never increases the stress; after N_FULL_STEPS
    full steps its length is Barzilai and Borwein's.

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
        if iteration > N_FULL_STEPS:
            length = _step_length(points - before[0], slope - before[1], move - before[2])
        before = points, slope, move
        points = points - length * move
    return points


def _slope(weight: np.ndarray, miles: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Compute half the gradient of the stress, [2, z]."""
    east, north = (axis[:, None] - axis for axis in points)
    distance = np.sqrt(east * east + north * north + 1e-9)
    pull = weight * (1 - miles / distance)
    return np.stack([(pull * east).sum(axis=1), (pull * north).sum(axis=1)])


def _step_length(
    point_change: np.ndarray, slope_change: np.ndarray, move_change: np.ndarray
) -> float:
    """Choose a step length from the last changes of the points, their slope and their move."""
    along, across = (point_change * slope_change).sum(), (slope_change * move_change).sum()
    if along <= 0 or across <= 0:
        return 1.0
    return float(np.clip(along / across, *STEP_LENGTHS))


def _inverse_of_laplacian(weight: np.ndarray) -> np.ndarray:
    """Invert the graph Laplacian of the weights for vectors that add up to 0, [z, z]."""
    matrix = np.diag(weight.sum(axis=1)) - weight
    matrix += matrix.diagonal().mean() / len(matrix)
    for k in range(len(matrix)):  # Gauss-Jordan; positive definite, so no pivoting is needed
        pivot, row, column = matrix[k, k], matrix[k].copy(), matrix[:, k].copy()
        matrix -= column[:, None] * (row / pivot)
        matrix[k], matrix[:, k], matrix[k, k] = row / pivot, -column / pivot, 1 / pivot
    return matrix


def _turn_to_axes(points: np.ndarray) -> np.ndarray:
    """Centre the points, and turn their longest extent to the first axis, [2, z].

    On each axis the point farthest from the middle has a positive coordinate.
    """
    x, y = points - points.mean(axis=1)[:, None]
    half = np.arctan2(2 * (x * y).sum(), (x * x).sum() - (y * y).sum()) / 2
    cosine, sine = np.cos(half), np.sin(half)
    turned = np.stack([x * cosine + y * sine, y * cosine - x * sine])
    farthest = np.abs(turned).argmax(axis=1)
    return turned * np.sign(turned[[0, 1], farthest])[:, None]


def _product(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return np.asarray((matrix * vector).sum(axis=1))


def _unit(vector: np.ndarray) -> np.ndarray:
    return np.asarray(vector / max(np.sqrt((vector * vector).sum()), 1e-300))
