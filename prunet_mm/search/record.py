"""What a search was asked and what it found, as JSON in its work dir, for reports made later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunet_mm.engine.files import write_atomic

if TYPE_CHECKING:
    from prunet_mm.search.report import Outcome

ASKED, FOUND = 'asked.json', 'found.json'
SCHEMA_VERSION = 1


def write_asked(runner) -> None:
    """Write down what a search is asked: space, budget, length, and the latency table itself."""
    model, loop = runner.model, runner.train_loop
    asked = dict(
        schema_version=SCHEMA_VERSION,
        config=runner.cfg.filename,
        train_config=runner.cfg.get('train_config'),
        seed=runner.seed,
        max_iters=loop.max_iters,
        warmup_iters=loop.warmup_iters,
        targets_ms=model.budget.targets_ms,
        smallest_ms=model.budget.smallest_ms,
        largest_ms=model.budget.largest_ms,
        space=model.supernet.space.to_dict(),
        device=model.latency.get('device', 'cpu'),
        table_path=model.table.source,
        table=model.table.to_dict(),
    )
    write_atomic(Path(runner.work_dir) / ASKED, json.dumps(asked) + '\n')


def write_found(work_dir: str | Path, outcome: Outcome, step: int) -> None:
    """Write down what a search has found, beside the network itself.

    Args:
        work_dir: Of the search.
        outcome: What its summary tells, too.
        step: Iterations done when it was derived.
    """
    from prunet_mm.search.finalists import describe  # not above, since it imports torch

    measured = outcome.measured
    found = dict(
        schema_version=SCHEMA_VERSION,
        step=step,
        budget_ms=outcome.budget_ms,
        predicted_ms=outcome.predicted_ms,
        measured_ms=measured and measured.latency_ms,
        measured_iqr_ms=measured and measured.iqr_ms,
        promise=outcome.promise and outcome.promise.to_dict(),
        table_rescaled_by=outcome.rescaled_by,
        granules=outcome.rounding.granules if outcome.rounding else 0,
        loss=outcome.derived_loss,
        trained=outcome.trained,
        other_size=outcome.other_size,
        finalists=[
            dict(
                network=describe(one),
                predicted_ms=one.rounding.predicted_ms,
                loss=one.loss,
                behind=one.behind[0],
                behind_se=one.behind[1],
                scored=one.scored,
            )
            for one in outcome.finalists
        ],
    )
    write_atomic(Path(work_dir) / FOUND, json.dumps(found, indent=1) + '\n')


def training_options(work_dir: str | Path, trained: Sequence[str] | None) -> list[str]:
    """Return the options by which ``tools/train.py`` trains a found network.

    Args:
        work_dir: Of the search.
        trained: What has weights beside the backbone, such as ``'neck'``, where the network is to
            keep those of a search that began with a trained one; else None.
    """
    work_dir = Path(work_dir)
    options = [f'model.backbone.arch={work_dir / "subnet.json"}']
    for part in () if trained is None else ('backbone', *trained):
        start = f'model.{part}.init_cfg'
        options += [
            f'{start}.type={"SuperNet" if part == "backbone" else "Pretrained"}',
            f'{start}.checkpoint={work_dir / "searched.pth"}',
            f'{start}.prefix=architecture.{part}.',
        ]
    return options
