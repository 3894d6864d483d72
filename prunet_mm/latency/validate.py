"""Holds a table against whole networks: fits two numbers on some of them, tests on the others."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from prunet_mm.engine.files import save_figure
from prunet_mm.latency.table import LatencyTable
from prunet_mm.latency.validation import Validation
from prunet_mm.spec import NetworkSpec

# (noise of a network's error / how far overhead and scale are from 0 and 1) squared: 4 % and 20 %.
PRIOR = 0.04


def validated(
    table: LatencyTable, specs: Sequence[NetworkSpec], measured_ms: Sequence[float]
) -> LatencyTable:
    """The table with overhead and scale fitted on the first half, tested on the second.

    Args:
        table: A table without overhead and scale.
        specs: (n,) networks; fewer than two leave the table as it is.
        measured_ms: (n,) what they take as a whole.
    """
    half = len(specs) // 2
    if half == 0:
        return table
    measured_ms = np.asarray(measured_ms)
    predicted_ms = np.array([table.predict_ms(spec) for spec in specs])
    overhead_ms, scale = fit(predicted_ms, measured_ms[:half], measured_ms.min())
    validation = Validation(
        fitted_on=half,
        predicted_ms=(overhead_ms + scale * predicted_ms[half:]).round(6).tolist(),
        measured_ms=measured_ms[half:].round(6).tolist(),
        networks=specs[half:],
    )
    return table.model_copy(
        update=dict(network_overhead_ms=overhead_ms, network_scale=scale, validation=validation)
    )


def fit(
    predicted_ms: np.ndarray, measured_ms: np.ndarray, fastest_ms: float = np.inf
) -> tuple[float, float]:
    """Overhead in ms and scale: ridge regression of the relative error.

    Without evidence they are 0 and 1; `PRIOR` says how much it takes to move them, so that a few
    networks of about one size do not send them anywhere.

    Args:
        predicted_ms: (n,) sums over the blocks of n networks.
        measured_ms: (k,) latencies of the first k of them, on which the fit is done.
        fastest_ms: The least latency of a network; no overhead saves more than that.
    """
    unit, ratio = np.median(measured_ms), predicted_ms[: len(measured_ms)] / measured_ms
    terms, error = np.stack([unit / measured_ms, ratio], axis=1), 1 - ratio
    shift = np.linalg.solve(terms.T @ terms + PRIOR * np.eye(2), terms.T @ error)
    overhead_ms, scale = np.round([unit * shift[0], 1 + shift[1]], 6).tolist()
    fits = scale > 0 and (overhead_ms + scale * predicted_ms).min() > 0
    if not fits or overhead_ms < -0.9 * fastest_ms:
        return 0.0, 1.0  # samples too disturbed to tell big networks from small ones
    return overhead_ms, scale


def plot_validation(table: LatencyTable, path: str | os.PathLike) -> None:
    """Draws what the table predicts for its validation's networks over what they took.

    Args:
        table: A table with a validation.
        path: Where the PNG goes.

    Raises:
        PrunetError: The file cannot be written.
    """
    # Not by pyplot, whose figures and settings belong to whoever runs this.
    from matplotlib.figure import Figure

    found, blue = table.validation, '#0072B2'
    figure = Figure(figsize=(5.6, 5.4), dpi=120, layout='constrained')
    axes = figure.subplots()
    both = found.measured_ms + found.predicted_ms
    ends = np.array([0.9 * min(both), 1.1 * max(both)])
    axes.fill_between(ends, 0.95 * ends, 1.05 * ends, color=blue, alpha=0.12, lw=0, label='5 %')
    axes.plot(ends, ends, color='#8a8a8a', lw=0.8)
    axes.scatter(found.measured_ms, found.predicted_ms, s=18, color=blue, linewidths=0)
    x, y = 'measured as a whole [ms]', f'predicted by the {table.kind} table [ms]'
    axes.set(xlim=ends, ylim=ends, aspect='equal', xlabel=x, ylabel=y)
    axes.legend(loc='upper left', frameon=False)
    title = '\n'.join(text.replace(': ', ':\n', 1) for text in (table.describe(), found.describe()))
    axes.set_title(title, fontsize=7, loc='left')
    save_figure(figure, path)
