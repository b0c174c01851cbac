"""Measure how far a month has drifted from the trips a model was fitted to.

The population stability index (PSI) is the usual measure in model monitoring: below 0.1 there is no
shift to speak of, above 0.25 a large one. It takes ten lines over histograms that are counted
anyway, in constant memory. evidently, nannyml, alibi-detect and deepchecks offer it too, but need
both months whole in a pandas frame and bring a platform of their own; scipy's Wasserstein distance
does not suit zones, whose ids have no order.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from math import sqrt
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from .coverage import NOMINAL_COVERAGE
from .profile import EDGES, HAS_DISTANCE, TRIP_ENDS, Profile, join_profiles
from .style import GREY, styled
from .words import HISTOGRAM_LABELS, WEEKDAYS, drift_subject

# minutes; values beyond the ends count in the end bins
PREDICTION_EDGES = np.concatenate(([-np.inf], np.arange(1.0, 60.0), [np.inf]))
# a bin holding less than RARE_SHARE of the training trips fluctuates by chance, so such bins are
# pooled; one with more than GROWN_SHARE of a month's trips is not: chance cannot explain that
RARE_SHARE, GROWN_SHARE = 0.01, 0.05
# standard deviations: each month is tested on a dozen measures and its trips are not independent,
# so a lower bar would raise a false alarm every year
N_DEVIATIONS = 4.0
PSI, RMSE = "PSI", "RMSE"  # a measure, and what a measure is of
GAP, INTERVAL = "coverage gap", "80 % interval"
PSI_DECIMALS = 9  # the last digits of a logarithm depend on the machine
MARKS = "osD^v"  # one per month, for readers who cannot tell the colours apart
COMPARED_HISTOGRAMS = ("distance_miles", "hour", "weekday", *TRIP_ENDS)


class DriftReference(NamedTuple):
    """What later months are compared with: a model's training and validation trips."""

    train: Profile  # of all trips it was fitted to, the validation trips too after a refit
    predictions: np.ndarray  # of the validation trips, counted in PREDICTION_EDGES
    unseen_zones: float  # share of the validation trips with a zone that no training trip has
    unseen_pairs: float  # the same for pairs of zones
    rmse: float  # minutes, on valid

    def state(self) -> dict[str, Any]:
        """Return the reference as plain JSON values; `restore` rebuilds it."""
        fields = self._asdict()
        return fields | {"train": self.train.state(), "predictions": self.predictions.tolist()}

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> "DriftReference":
        """Rebuild a reference from its `state`."""
        return cls(
            **dict(state)
            | {
                "train": Profile.restore(state["train"]),
                "predictions": np.array(state["predictions"]),
            }
        )


class DriftThresholds(NamedTuple):
    """Values above which a month counts as drifted."""

    max_psi: float
    max_unseen: float  # rise in the share of unseen zones or pairs, or of trips without distance
    max_rmse_rise: float  # share by which RMSE exceeds that on the months the model was judged on
    max_coverage_gap: float  # coverage of the 80 % interval may differ from 0.8 by so much


class MonthScores(NamedTuple):
    """A model's scores on a month's trips with known drop-offs."""

    n_trips: int
    rmse: float  # minutes
    rmse_relative_se: float  # standard error of rmse, as a share of it
    coverage: float | None  # share of the trips within the 80 % interval; None without intervals


class DriftMeasure(NamedTuple):
    """One comparison of a month with the reference."""

    measure: str
    of: str
    value: float
    threshold: float  # the configured one, or what chance alone explains, if that is larger
    drifted: bool


def make_reference(
    train: Profile, valid: Profile, predicted: np.ndarray, rmse: float
) -> DriftReference:
    """Build the reference of a model that was fitted to train alone.

    Args:
        train: profile of the trips that the model was fitted to.
        valid: profile of the validation trips.
        predicted: [n] minutes, of the validation trips.
        rmse: on the validation trips, minutes.
    """
    zones, pairs = unseen_shares(train, valid)
    return DriftReference(train, count_predictions(predicted), zones, pairs, rmse)


def refit_reference(
    chosen: DriftReference, valid: Profile, predicted: np.ndarray
) -> DriftReference:
    """Build the reference of a model that was refitted to train and valid.

    The shares of unseen zones and pairs and the RMSE stay those of `chosen`: only a model that has
    not seen the validation trips can be measured on them.

    Args:
        chosen: reference of the model that was fitted to train alone.
        valid: profile of the validation trips.
        predicted: [n] minutes that the refitted model predicts for them.
    """
    both = join_profiles((chosen.train, valid))
    return chosen._replace(train=both, predictions=count_predictions(predicted))


def count_predictions(predicted: np.ndarray) -> np.ndarray:
    """Count predicted minutes [n] in the bins of PREDICTION_EDGES."""
    return np.histogram(predicted, PREDICTION_EDGES)[0]


def measure_drift(
    reference: DriftReference,
    month: Profile,
    predictions: np.ndarray,
    *,
    errors: MonthScores | None,
    rmse_before: float,
    thresholds: DriftThresholds,
) -> list[DriftMeasure]:
    """Measure how far a month has drifted from what the model was fitted to.

    Args:
        reference: stored with the model.
        month: profile of the month's trips.
        predictions: their predicted minutes, counted in PREDICTION_EDGES.
        errors: scores on the month; None if no drop-off is known.
        rmse_before: on the months the model was judged on, minutes.
        thresholds: values above them are drift.
    """
    counts = {
        name: (reference.train.counts[name], month.counts[name]) for name in COMPARED_HISTOGRAMS
    }
    counts["prediction"] = (reference.predictions, predictions)
    measures = [
        _measure(PSI, name, psi(*pair), thresholds.max_psi, chance=psi_by_chance(*pair))
        for name, pair in counts.items()
    ]
    measures += _measure_shares(reference, month, thresholds.max_unseen)
    if errors:
        measures += _measure_errors(errors, rmse_before, thresholds)
    return measures


def _measure_shares(
    reference: DriftReference, month: Profile, max_unseen: float
) -> Iterator[DriftMeasure]:
    """Compare the shares of trips with unseen zones or pairs, and without a distance."""
    zones, pairs = unseen_shares(reference.train, month)
    shares = [
        ("unseen above valid", "zone", zones, reference.unseen_zones),
        ("unseen above valid", "pair of zones", pairs, reference.unseen_pairs),
    ]
    if HAS_DISTANCE in reference.train.counts:
        now, then = map(share_without_distance, (month, reference.train))
        shares.append(("above fitted", "trips without distance", now, then))
    for measure, of, now, then in shares:
        chance = share_by_chance(then, month.n_trips)
        yield _measure(measure, of, now - then, max_unseen, chance=chance)


def _measure_errors(
    errors: MonthScores, rmse_before: float, thresholds: DriftThresholds
) -> Iterator[DriftMeasure]:
    """Compare the RMSE with the one before, and the intervals' coverage with the nominal one."""
    if rmse_before:  # if there was no error, any is infinitely more
        rise, chance = errors.rmse / rmse_before - 1, N_DEVIATIONS * errors.rmse_relative_se
        yield _measure("rise", RMSE, rise, thresholds.max_rmse_rise, chance=chance)
    if errors.coverage is not None:
        gap = round(abs(errors.coverage - NOMINAL_COVERAGE), 9)  # as in the gate
        chance = share_by_chance(NOMINAL_COVERAGE, errors.n_trips)
        yield _measure(GAP, INTERVAL, gap, thresholds.max_coverage_gap, chance=chance)


def psi(expected: np.ndarray, observed: np.ndarray) -> float:
    """Compute the population stability index between two histograms of the same bins, counts [b].

    Source: Siddiqi, Credit Risk Scorecards, 2006.
    """
    is_rare = _is_rare(expected, observed)
    shares = []
    for counts in (expected, observed):
        pooled = np.append(counts[~is_rare], counts[is_rare].sum()) + 0.5  # no bin is empty
        shares.append(pooled / pooled.sum())
    index = np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0]))
    return round(float(index), PSI_DECIMALS)


def psi_by_chance(expected: np.ndarray, observed: np.ndarray) -> float:
    """Return the PSI that two samples of one distribution exceed only beyond N_DEVIATIONS.

    Without a shift, PSI is distributed as chi-squared (a degree of freedom per bin but one) times
    the sum of 1 / n over both samples.

    Args:
        expected, observed: counts [b] in the same bins.
    Source: Yurdakul, Statistical properties of population stability index, 2018; Wilson and
    Hilferty, The distribution of chi-square, 1931.
    """
    sizes = [counts.sum() for counts in (expected, observed)]
    # the pooled rare bins are one more bin, for which there is no degree of freedom
    n_free = np.count_nonzero(~_is_rare(expected, observed))
    if not (n_free and all(sizes)):
        return 0.0
    ninth = 2 / (9 * n_free)
    chi_squared = n_free * (1 - ninth + N_DEVIATIONS * sqrt(ninth)) ** 3
    return chi_squared * sum(1 / float(size) for size in sizes)


def share_by_chance(share: float, n_trips: int) -> float:
    """Return how far chance may move a share of n trips, at N_DEVIATIONS (Bernstein's bound)."""
    n = max(n_trips, 1)
    return N_DEVIATIONS * sqrt(share * (1 - share) / n) + N_DEVIATIONS**2 / (3 * n)


def _is_rare(expected: np.ndarray, observed: np.ndarray) -> np.ndarray:
    return (expected < RARE_SHARE * expected.sum()) & (observed <= GROWN_SHARE * observed.sum())


def unseen_shares(train: Profile, month: Profile) -> tuple[float, float]:
    """Compute the shares of a month's trips with a zone, and with a pair, that train lacks."""
    pairs = month.pairs.reshape(len(month.counts["pickup_zone"]), -1)
    unseen_at = [train.counts[name] == 0 for name in TRIP_ENDS]
    with_zone = pairs[unseen_at[0][:, None] | unseen_at[1][None, :]].sum()
    with_pair = month.pairs[train.pairs == 0].sum()
    n_trips = max(month.n_trips, 1)
    return float(with_zone / n_trips), float(with_pair / n_trips)


def share_without_distance(profile: Profile) -> float:
    """Return the share of trips without a clean distance."""
    return float(profile.shares(HAS_DISTANCE)[0])


@styled
def draw_drift(
    reference: DriftReference,
    months: Mapping[str, tuple[Profile, np.ndarray]],
    measures: Mapping[str, Sequence[DriftMeasure]],
) -> Figure:
    """Draw each month's histograms over those of the training trips, and the measures.

    Args:
        reference: stored with the model.
        months: month -> its profile and its predictions, counted in PREDICTION_EDGES.
        measures: month -> its measures of `measure_drift`.
    """
    figure = Figure(figsize=(12, 10), layout="constrained")
    axes = figure.subplots(3, 2).flat
    edges = {name: EDGES[name] for name in ("distance_miles", "hour", "weekday")}
    for axis, (name, bins) in zip(axes, edges.items(), strict=False):
        counts = {"fitted": reference.train.counts[name]}
        counts |= {month: profile.counts[name] for month, (profile, _) in months.items()}
        _draw_counts(axis, HISTOGRAM_LABELS[name], bins, counts)
        axis.set_title(_describe_furthest(name, measures))
    figure.axes[2].set_xticks(range(len(WEEKDAYS)), [day[:3] for day in WEEKDAYS])
    counts = {"valid": reference.predictions}
    counts |= {month: predictions for month, (_, predictions) in months.items()}
    _draw_counts(figure.axes[3], "predicted duration, min", PREDICTION_EDGES, counts)
    figure.axes[3].set_title(_describe_furthest("prediction", measures))
    for axis, is_psi in ((figure.axes[4], True), (figure.axes[5], False)):
        _draw_measures(axis, measures, is_psi=is_psi)
    return figure


def _describe_furthest(name: str, measures: Mapping[str, Sequence[DriftMeasure]]) -> str:
    """Say which month's histogram has the largest PSI."""
    psi_by_month = {
        month: one.value
        for month, of_month in measures.items()
        for one in of_month
        if (one.measure, one.of) == (PSI, name)
    }
    month = max(psi_by_month, key=psi_by_month.__getitem__)
    return f"Furthest off: {month}, PSI {psi_by_month[month]:.3f}"


def _draw_counts(axis: Any, name: str, edges: np.ndarray, counts: Mapping[str, np.ndarray]) -> None:
    inner = edges[np.isfinite(edges)]
    width = inner[1] - inner[0]
    finite = np.clip(edges, inner[0] - width, inner[-1] + width)  # end bins as wide as the others
    for (label, values), dashes in zip(counts.items(), cycle(("-", "--", ":")), strict=False):
        shares = 100 * values / max(values.sum(), 1)
        axis.stairs(shares, finite, label=f"{label} ({values.sum():,})", linestyle=dashes)
    axis.set(xlabel=name, ylabel="share of trips, %")
    axis.legend(fontsize="small")


def _draw_measures(
    axis: Any, measures: Mapping[str, Sequence[DriftMeasure]], *, is_psi: bool
) -> None:
    drifted: list[str] = []
    for number, (month, of_month) in enumerate(measures.items(), start=1):
        shown = [m for m in of_month if (m.measure == PSI) == is_psi]
        drifted += [month] if any(m.drifted for m in shown) else []
        # values with a threshold of 0 are drawn unscaled
        sizes = [m.value / m.threshold if m.threshold else m.value for m in shown]
        names = [f"{m.measure}, {drift_subject(m.of)}" for m in shown]
        mark = MARKS[number % len(MARKS)]
        axis.plot(sizes, names, f"C{number}{mark}", label=month)  # the month's colour above
    axis.axvline(1.0, color=GREY, linestyle="--", linewidth=0.8)
    title = f"Drifted by this: {', '.join(drifted)}" if drifted else "No month has drifted by this"
    axis.set(xlabel="value / threshold (beyond the line: drift)", title=title)
    axis.legend(fontsize="small")


def _measure(
    measure: str, of: str, value: float, threshold: float, *, chance: float
) -> DriftMeasure:
    """Compare a value with its threshold, or with what chance explains if that is more.

    With a threshold of 0 every rise counts as drift, even one by chance.
    """
    limit = max(threshold, round(chance, 3)) if threshold else threshold
    return DriftMeasure(measure, of, value, limit, value > limit)
