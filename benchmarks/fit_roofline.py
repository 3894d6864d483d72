"""Fits the model of `prunet_mm.estimates.roofline` to the published latencies, and tests it.

The test leaves one network out, on all devices, fits on the others and predicts it. Writes the
parameters and the estimated table that come with the package, and a report with every prediction.

    python benchmarks/fit_roofline.py
"""

from __future__ import annotations

import argparse
import datetime
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from mmengine.config import Config
from scipy.optimize import lsq_linear

from prunet_mm.engine.files import write_atomic
from prunet_mm.estimates import published, roofline
from prunet_mm.estimates.roofline import DEVICES, Roofline
from prunet_mm.spec import SearchSpace, load_zoo

ROOT = Path(__file__).parents[1]
TABLES = ROOT / 'prunet_mm/latency/tables'
CONFIG = 'configs/search/prunet_v100.py'
# Not fitted: what NVIDIA's GPUNet-0 takes on a V100 by this protocol, 0.63 ms, less what plain
# trtexec reports for it, 0.564 ms.
OVERHEAD_MS = 0.066
LAUNCH, MEMORY, TENSOR, DEPTHWISE, DEPTH = range(5)
# A launch takes some time, and no efficiency is above 1.
LOWEST = np.array([0.0, 1.0, 1.0, 1.0, 0.0])


class Data:
    """The published figures as arrays, (n,) each; ``terms`` is (n, 5).

    Args:
        swish: Whether a swish is a kernel of its own.
    """

    def __init__(self, swish: bool = True) -> None:
        self.figures = published.load_published()
        self.network, self.device, self.batch, self.latency_ms = (
            np.array(column) for column in zip(*self.figures, strict=True)
        )
        by_name = {device.published_as: device for device in DEVICES.values()}
        keys = {name: load_zoo(name).block_keys() for name in set(self.network)}
        if not swish:
            keys = {name: [k._replace(act='relu') for k in found] for name, found in keys.items()}
        self.terms = np.array(
            [
                sum(roofline.terms(key, by_name[figure.device], figure.batch) for key in keys[name])
                for figure, name in zip(self.figures, self.network, strict=True)
            ]
        )

    def errors(self, model: np.ndarray) -> np.ndarray:
        """Predicted over published, less 1, (n,), for coefficients and overhead, (6,)."""
        return (self.terms @ model[:5] + model[5]) / self.latency_ms - 1


def fit(data: Data, rows: np.ndarray, overhead_ms: float | None, without=()) -> np.ndarray:
    """Minimises the sum of squared relative errors; the minimum is unique.

    Args:
        data: All figures.
        rows: (n,) bool: those to fit on.
        overhead_ms: Of a network; None to fit it too.
        without: Columns of ``data.terms`` to leave out.

    Returns:
        (6,): coefficients and overhead in ms.
    """
    scale = data.latency_ms[rows]
    matrix = np.column_stack([data.terms[rows], np.ones(rows.sum())]) / scale[:, None]
    fixed = 0.0 if overhead_ms is None else overhead_ms
    free = [c for c in range(6) if c not in without and (c < 5 or overhead_ms is None)]
    bounds = np.append(LOWEST, 0.0)[free], np.inf
    found = lsq_linear(matrix[:, free], 1 - fixed / scale, bounds, method='bvls', tol=1e-14)
    model = np.append(np.zeros(5), fixed)
    model[free] = found.x
    return model


def left_out(data: Data, rows: np.ndarray, overhead_ms: float | None, without=()) -> np.ndarray:
    """Errors, (n,), each from a fit on those of ``rows`` that are of other networks."""
    errors = np.zeros(len(rows))
    for name in np.unique(data.network):
        own = data.network == name
        errors[own] = data.errors(fit(data, rows & ~own, overhead_ms, without))[own]
    return errors


def summary(data: Data, inside: np.ndarray, outside: np.ndarray) -> dict[str, dict[str, float]]:
    """Mean absolute errors by device: in sample, and of networks left out."""
    found = {}
    for device in DEVICES.values():
        here = data.device == device.published_as
        one = here & (data.batch == 1)
        found[device.published_as] = dict(
            in_sample=_mean(inside[here]),
            in_sample_batch_1=_mean(inside[one]),
            left_out=_mean(outside[here]),
            left_out_batch_1=_mean(outside[one]),
            left_out_bias=round(float(outside[here].mean()), 4),
            left_out_worst=round(float(np.abs(outside[here]).max()), 4),
        )
    return found


def _mean(errors: np.ndarray) -> float:
    return round(float(np.abs(errors).mean()), 4)


def variants() -> dict[str, dict]:
    """The same errors for other ways to fit: what each part of the model is worth."""
    data, flat = Data(), Data(swish=False)
    everything = np.ones(len(data.figures), bool)
    v100, a100 = (data.device == device.published_as for device in DEVICES.values())
    choices = {
        'as shipped': (data, everything, OVERHEAD_MS),
        'overhead fitted too, 6 parameters': (data, everything, None),
        'no overhead': (data, everything, 0.0),
        'swish costs no kernel': (flat, everything, OVERHEAD_MS),
        'no depth': (data, everything, OVERHEAD_MS, [DEPTH]),
        'fitted on V100 alone': (data, v100, OVERHEAD_MS),
        'fitted on A100 alone': (data, a100, OVERHEAD_MS),
    }
    return {
        name: summary(choice[0], choice[0].errors(fit(*choice)), left_out(*choice))
        for name, choice in choices.items()
    }


def report() -> tuple[Roofline, dict]:
    """The fitted model, and all that is to be known about it."""
    data = Data()
    everything = np.ones(len(data.figures), bool)
    model = fit(data, everything, OVERHEAD_MS)
    inside, outside = data.errors(model), left_out(data, everything, OVERHEAD_MS)
    rows = [
        dict(
            figure._asdict(),
            predicted_ms=round(figure.latency_ms * (1 + seen), 4),
            predicted_left_out_ms=round(figure.latency_ms * (1 + unseen), 4),
        )
        for figure, seen, unseen in zip(data.figures, inside, outside, strict=True)
    ]
    found = dict(
        protocol=published.protocol(),
        networks=list(dict.fromkeys(data.network.tolist())),
        errors=summary(data, inside, outside),
        variants=variants(),
        figures=rows,
    )
    return Roofline.from_coefficients(model[:5], OVERHEAD_MS), found


def main() -> None:
    """Fit, print, and write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--out', default=ROOT, type=Path, help='root of the tree to write to')
    out = parser.parse_args().out
    for folder in (roofline.PARAMETERS.parent, TABLES, ROOT / 'benchmarks/results'):
        (out / folder.relative_to(ROOT)).mkdir(parents=True, exist_ok=True)
    model, found = report()
    today = datetime.date.today().isoformat()
    parameters = {name: float(f'{value:.6g}') for name, value in asdict(model).items()}
    shipped = dict(
        command='python benchmarks/fit_roofline.py',
        date=today,
        backend='TensorRT 8',
        protocol=found['protocol'],
        networks=found['networks'],
        parameters=parameters,
        errors=found['errors'],
    )
    for name, value in parameters.items():
        print(f'{name:22} {value:.4g}')
    print(f'\nmean absolute errors{"":21} in sample          left out')
    print(f'{"":41} all   batch 1      all   batch 1    worst')
    for name, errors in found['variants'].items():
        for device, e in errors.items():
            print(
                f'{name if device.startswith("V") else "":34} {device[:4]}  '
                f'{e["in_sample"]:6.1%}  {e["in_sample_batch_1"]:6.1%}  '
                f'{e["left_out"]:7.1%}  {e["left_out_batch_1"]:7.1%}  {e["left_out_worst"]:7.1%}'
            )
    write(out / roofline.PARAMETERS.relative_to(ROOT), shipped)
    write(out / 'benchmarks/results/roofline.json', {**shipped, **found})
    space = SearchSpace.from_dict(Config.fromfile(ROOT / CONFIG).space.to_dict())
    table = roofline.estimated_table(space, DEVICES['v100'], 1, shipped)
    path = out / TABLES.relative_to(ROOT) / 'v100_trt_fp16_b1_estimated.json'
    table.save(path)
    print(f'wrote {path}: {len(table.entries)} blocks')


def write(path: Path, content: dict) -> None:
    """Save as JSON and say so."""
    write_atomic(path, json.dumps(content, indent=2) + '\n')
    print(f'wrote {path}')


if __name__ == '__main__':
    main()
