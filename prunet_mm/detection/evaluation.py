"""Our metric in the place of mmdet's."""

from __future__ import annotations

from collections.abc import MutableMapping

from prunet_mm.datasets.dataset_config import type_name


def use_exact_metric(cfg: MutableMapping) -> None:
    """Has every `CocoMetric` of a config's evaluators be our `ExactCocoMetric`."""
    for split in ('val', 'test'):
        evaluators = cfg.get(f'{split}_evaluator') or []
        for metric in evaluators if isinstance(evaluators, list) else [evaluators]:
            if type_name(metric) == 'CocoMetric':
                metric['type'] = 'mmdet.ExactCocoMetric'
