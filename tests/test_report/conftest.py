"""A work dir as a search leaves it, without a search."""

import json
import shutil

import pytest

from prunet_mm.spec import SearchSpace

SPACE = dict(
    name='small',
    resolution=16,
    stem=dict(out_channels=8),
    stages=[
        dict(width=8, stride=2, depth=3, kernels=[3, 5], max_expansion=4, granularity=8),
        dict(width=16, stride=2, depth=2, ops=['irb', 'fused_irb'], max_expansion=4, granularity=8),
    ],
    tail=dict(num_classes=10),
)
GONE = dict(
    kind='candidate', layer='stage1.layer1', candidate='irb_k5', probability=0.03, threshold=0.05
)
LAYER = dict(
    kind='layer', layer='stage1.layer3', probability=0.3, threshold=0.5, loss_rise=0.01,
    loss_rise_se=0.002, worth=0.03, freed_ms=0.1,
)  # fmt: skip
SETTLED = dict(
    kind='settled', layer='stage2.layer1', candidate='fused_irb_k3', probability=0.2, share=0.7,
    rival='fused_irb_k3', rise=0.02, rise_se=0.01,
)  # fmt: skip
MOVE = dict(kind='move', candidate='stage1.layer1.irb_k3', old=[16, 32], new=[8, 24])
DECISIONS = {30: [GONE, MOVE], 50: [LAYER], 80: [SETTLED]}


def rows(space, steps, decisions=DECISIONS):
    """Rows of a history: widths that walk, a budget that falls, and what is removed."""
    gone, history = set(), []
    for step in range(1, steps + 1):
        share = step / steps
        for event in decisions.get(step, ()):
            gone.add((event.get('layer'), event.get('candidate')))
        widths, chances, keep = {}, {}, {}
        for position in space.positions():
            if (position.name, None) in gone:
                continue
            left = [c for c in position.candidates if (position.name, c.name) not in gone]
            chances[position.name] = {c.name: 1 / len(left) for c in left}
            if position.skippable and share > 0.3:
                keep[position.name] = 1 - share / 3
            for one in (one for one in left if one.widths):
                wide = one.widths[-1]
                widths[f'{position.name}.{one.name}'] = dict(
                    expected=wide * (1 - share / 2) + step % 7, lo=wide // 2, hi=wide, widest=wide
                )
        budget_ms = 1.5 - 0.5 * share if share > 0.1 else None
        facts = dict(
            multiplier=share, multiplier_average=share / 2, budget_ms=budget_ms,
            expected_ms=1.6 - 0.6 * share,
        )  # fmt: skip
        events = [
            event if event['kind'] == 'move' else event | facts | dict(derived_ms=1.2)
            for event in decisions.get(step, ())
        ]
        history.append(
            dict(
                step=step, progress=share, loss=1 - share / 2, table_kind='measured', **facts,
                target_ms=1.0, steady=True, temperature=1.0, widths=widths, probabilities=chances,
                keep=keep, events=events,
            )
        )  # fmt: skip
    return history


@pytest.fixture
def make_work_dir(tmp_path, synthetic_table):
    """Write a work dir; call it with a name, and what is to be otherwise."""

    def make(name='a search', steps=100, ended=True, space=SPACE, targets_ms=(1.0,), **asked):
        folder = tmp_path / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        parsed = SearchSpace.from_dict(space)
        validation = dict(fitted_on=2, predicted_ms=[1.0, 2.0, 3.1], measured_ms=[1.0, 2.2, 3.0])
        table = synthetic_table(space, validation=validation)
        history = rows(parsed, steps)
        text = ''.join(json.dumps(row) + '\n' for row in history)
        (folder / 'history.jsonl').write_text(text)
        asked = dict(
            schema_version=1, config='configs/search/prunet_digits.py',
            train_config='configs/cls/prunet_digits.py', seed=3, max_iters=100, warmup_iters=0,
            targets_ms=targets_ms, smallest_ms=0.2, largest_ms=2.0, space=parsed.to_dict(),
            device='cpu', table_path='tables/my table.json', table=table.to_dict(),
        ) | asked  # fmt: skip
        (folder / 'asked.json').write_text(json.dumps(asked))
        if not ended:
            return folder
        spec = parsed.smallest()
        spec.save(folder / 'subnet.json')
        frontier = [
            dict(
                target_ms=target, predicted_ms=0.99 * target, loss=0.5 / target,
                subnet=f'subnet_{target:g}ms.json',
            )
            for target in targets_ms
        ]  # fmt: skip
        if len(targets_ms) > 1:
            (folder / 'frontier.json').write_text(json.dumps(frontier))
            for row in frontier:
                spec.save(folder / row['subnet'])
        found = dict(
            schema_version=1, step=steps, budget_ms=1.0, predicted_ms=0.99, measured_ms=0.9,
            measured_iqr_ms=0.05, loss=0.5, other_size='', finalists=[],
        )  # fmt: skip
        (folder / 'found.json').write_text(json.dumps(found))
        return folder

    return make
