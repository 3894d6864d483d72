"""How well a latency table predicts whole networks that were timed beside its blocks."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from prunet_mm.spec import NetworkSpec
from prunet_mm.spec.validation import Many, NonNegativeInt, Spec, expecting, problem

# What it takes to search by a table: Kendall's tau, and the mean absolute error.
LEAST_TAU, MOST_MAPE = 0.95, 0.03

Milliseconds = Annotated[
    float, Field(gt=0, allow_inf_nan=False), expecting('a positive number of milliseconds')
]


class Validation(Spec):
    """Whole networks, drawn from the space at random: the table's prediction against the clock.

    Attributes:
        fitted_on: Number of *other* networks that the table's ``network_overhead_ms`` and
            ``network_scale`` were fitted on.
        predicted_ms: The prediction for each network.
        measured_ms: Its measured median, in the same order.
        near_ms: The budgets near which they were drawn; None for all of the space.
        networks: The networks themselves, for whoever measures them again.
    """

    fitted_on: NonNegativeInt
    predicted_ms: Many[Milliseconds]
    measured_ms: Many[Milliseconds]
    near_ms: Many[Milliseconds] | None = None
    networks: Many[NetworkSpec] | None = None

    @model_validator(mode='after')
    def _one_of_each(self) -> Validation:
        predicted, measured = len(self.predicted_ms), len(self.measured_ms)
        if predicted != measured:
            raise problem((), f'{predicted} latencies are predicted and {measured} are measured')
        if self.networks is not None and len(self.networks) != measured:
            raise problem((), f'{measured} latencies are of {len(self.networks)} networks')
        return self

    @property
    def errors(self) -> np.ndarray:
        """Predicted over measured, less 1, of each network."""
        return np.divide(self.predicted_ms, self.measured_ms) - 1

    @property
    def tau(self) -> float | None:
        """Kendall's rank correlation, tau-b: 1 where all are put in order; None of equal ones.

        After *The Treatment of Ties in Ranking Problems* (Kendall, 1945).
        """
        from scipy.stats import kendalltau  # not above, since it takes a second

        tau = float(kendalltau(self.predicted_ms, self.measured_ms).statistic)
        return None if np.isnan(tau) else tau

    @property
    def mape(self) -> float:
        """Mean absolute error of the predictions, relatively."""
        return float(np.abs(self.errors).mean())

    @property
    def good(self) -> bool:
        """Whether networks like these are ranked and predicted well enough to search by it."""
        return len(self.measured_ms) > 1 and (self.tau or 0) >= LEAST_TAU and self.mape <= MOST_MAPE

    def describe(self) -> str:
        """Mean absolute error, bias, worst error and rank correlation in one line."""
        errors = self.errors
        known = 'undefined' if self.tau is None else f'{self.tau:.3f}'
        near = ' or '.join(f'{ms:.4g}' for ms in self.near_ms or ())
        where = f' near {near} ms' if near else ''
        ranks = f', Kendall tau {known}' if len(errors) > 1 else ''
        return (
            f'{len(errors)} random networks{where}, predicted against measured: mean absolute '
            f'error {self.mape:.1%}, bias {errors.mean():+.1%}, '
            f'worst {errors[np.abs(errors).argmax()]:+.1%}{ranks}'
        )
