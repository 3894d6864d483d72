"""Writes down what the search does, one row per architecture step."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from prunet_mm.search.history import History
from prunet_mm.search.record import write_asked


@HOOKS.register_module()
class HistoryHook(Hook):
    """Appends a row per architecture step to ``history.jsonl`` in the work dir.

    What the search is asked goes to ``asked.json`` beside it, for reports in the middle of it. The
    same numbers go to mmengine's visualizer, every ``interval`` steps. Rows that lie beyond the
    checkpoint that a search resumes from are cut.

    Args:
        interval: Architecture steps from one entry in the visualizer to the next.
    """

    priority = 'BELOW_NORMAL'  # after the tiers of pruning, before the checkpoint

    def __init__(self, interval: int = 10) -> None:
        self.interval = interval

    def before_train(self, runner) -> None:
        """Open the file at the step from which the search goes on."""
        loop = runner.train_loop
        if runner.rank == 0:
            write_asked(runner)
            self.history = History.open(runner.work_dir, loop.iter, loop.architecture_steps)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Write the row of an architecture step."""
        loop = runner.train_loop
        if not loop.stepped:
            return
        row = snapshot(runner, outputs)
        if runner.rank != 0:
            return
        self.history.append(row)
        if (loop.iter - loop.warmup_iters) // loop.interval % self.interval == 0:
            runner.visualizer.add_scalars(flat(row), step=loop.iter + 1)

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Make sure that no checkpoint is ahead of the rows on disk."""
        if hasattr(self, 'history'):
            self.history.sync()


def snapshot(runner, outputs: dict) -> dict:
    """Return the row of the present step: plain numbers, strings, lists and dicts."""
    loop, model = runner.train_loop, runner.model
    widths, probabilities, keep = {}, {}, {}
    for name, layer in model.supernet.layers().items():
        chances = layer.probabilities().detach().tolist()
        probabilities[name] = dict(zip(layer.candidates, chances, strict=True))
        if layer.skip_open:
            keep[name] = float(layer.keep.detach())
        for candidate, block in layer.candidates.items():
            if hasattr(block, 'rule'):
                lo, hi, _ = block.pair()
                widths[f'{name}.{candidate}'] = dict(
                    expected=block.expected_width(), lo=lo, hi=hi, widest=block.widths[-1]
                )
    return dict(
        step=loop.iter + 1,
        progress=loop.progress,
        loss=float(outputs['architecture/loss']),
        table_kind=model.table.kind,
        **model.price(),
        target_ms=model.ramp.target_ms,
        steady=model.steady,
        temperature=next(iter(model.supernet.layers().values())).temperature,
        widths=widths,
        probabilities=probabilities,
        keep=keep,
        events=loop.take_events(),
    )


def flat(row: dict) -> dict[str, float]:
    """Return a row's numbers under one-level names, as a visualizer wants them."""
    named = {
        f'search/{key}': row[key] for key in ('loss', 'target_ms', 'multiplier', 'temperature')
    }
    if row['budget_ms']:
        named['search/budget_ms'] = row['budget_ms']
    estimated = 'estimated_' if row['table_kind'] == 'estimated' else ''
    named[f'search/{estimated}expected_ms'] = row['expected_ms']
    named |= {f'width/{name}': value['expected'] for name, value in row['widths'].items()}
    named |= {
        f'probability/{layer}.{candidate}': value
        for layer, chances in row['probabilities'].items()
        for candidate, value in chances.items()
    }
    named |= {f'keep/{layer}': value for layer, value in row['keep'].items()}
    named['structure/layers'] = float(len(row['probabilities']))
    named['structure/candidates'] = float(sum(map(len, row['probabilities'].values())))
    return named
