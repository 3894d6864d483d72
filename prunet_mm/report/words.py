"""What a report says in words: the sentence on top, decisions, commands."""

from __future__ import annotations

import shlex
from pathlib import Path

from prunet_mm.engine.shipped import in_this_command
from prunet_mm.report.source import Source
from prunet_mm.search.record import training_options

SIGNS = dict(candidate='✕', settled='◆', layer='■', target='⚑')
KINDS = dict(
    candidate='candidate removed',
    settled='removed in settling',
    layer='layer removed',
    target='network taken',
)


def ms(value: float) -> str:
    """Return a latency with four digits and its unit."""
    return f'{value:.4g} ms'


def lead(source: Source) -> str:
    """Return in one sentence what was asked and what was found, or how far it is."""
    targets, kind = source.targets_ms, source.last['table_kind']
    asked, of = f'{", ".join(f"{target:.4g}" for target in targets)} ms', ''
    if source.asked:
        ends = sorted({targets[0], targets[-1]})
        shares = ' to '.join(f'{target / source.asked["largest_ms"]:.0%}' for target in ends)
        of = f' ({shares} of the largest network of the space)'
    if not source.ended:
        return (
            f'Asked for {asked}{of}; {progress(source)}, and the networks that are still possible '
            f'take {ms(source.last["expected_ms"])} on average by the {kind} table.'
        )
    one = 'found a network' if len(targets) == 1 else 'found one for each, the fastest a network'
    parts = [f'Asked for {asked}{of}; {one}']
    if source.spec and source.space:
        parts.append(f' of {len(source.spec.layers)} of {len(source.space.positions())} layers')
    if source.spec:
        parts.append(f' with {source.spec.params():,} parameters')
    predicted, budget = source.predicted_ms, targets[0]
    if predicted is not None:
        parts.append(f', {kind} to take' if kind == 'estimated' else ', predicted to take')
        parts.append(f' {ms(predicted)}, {predicted / budget:.1%} of the budget')
    if source.found.get('measured_ms'):
        measured, iqr = source.found['measured_ms'], source.found['measured_iqr_ms']
        parts.append(
            f', and measured at {ms(measured)} ({measured / predicted:.1%} of the prediction, IQR '
            f'{iqr:.2g} ms)'
        )
        if kept := source.found.get('promise'):
            low, high = kept['interval_ms']
            ends = '' if low is None else f' ({ms(low)} to {ms(high)})'
            parts.append(f"; at the table's state that is {ms(kept['at_table_state_ms'])}{ends}")
    elif predicted is not None:
        parts.append(', and not measured')
    if (granules := source.found.get('granules', 0)) > 1:
        parts.append(
            f'. Rounding moved the widths of a layer by {granules} granules, where one should do: '
            'the search had not converged'
        )
    return ''.join(parts) + '.'


def progress(source: Source) -> str:
    """Return how far a search is."""
    step = source.last['step']
    if source.asked:
        return f'the search is at step {step} of {source.asked["max_iters"]}'
    return f'the search is at step {step}'


def decision(event: dict) -> dict[str, str]:
    """Return the cells of a decision's row."""
    what = {
        'target': f'network for {ms(event["target_ms"])}' if 'target_ms' in event else '',
        'layer': 'the layer',
    }.get(event['kind'], event.get('candidate', ''))
    chance = event.get('probability')
    return dict(
        sign=SIGNS[event['kind']],
        kind=KINDS[event['kind']],
        step=str(event['step']),
        layer=event.get('layer', ''),
        what=what,
        chance='' if chance is None else f'{chance:.3f}',
        price=f'{event["multiplier"]:.3f}',
        expected=f'{event["expected_ms"]:.4g}' if 'expected_ms' in event else '',
        why=why(event),
    )


def why(event: dict) -> str:
    """Return the reason of a decision, with its numbers."""
    if event['kind'] == 'target':
        return 'the budget rested here'
    if 'share' in event:
        text = f'exact choice of {event["share"]:.0%} of the draws'
        if event.get('rise') is None:
            return text
        rival = event.get('rival') or 'the other one'
        return f'{text}; with {rival} loss {event["rise"]:+.4f} ± {event["rise_se"]:.4f}'
    if event['kind'] == 'candidate':
        return f'probability below {event["threshold"]:.3f}'
    return (
        f'keep below {event["threshold"]:.3g}; without it loss {event["loss_rise"]:+.4f} ± '
        f'{event["loss_rise_se"]:.4f}, its latency worth {event["worth"]:.4f}'
    )


def commands(source: Source) -> list[tuple[str, str]]:
    """Return what can be done next: a title and a command that works when pasted."""
    folder, found = source.work_dir, []
    config = source.asked.get('config')
    if not source.ended:
        if config:
            argv = ['python', 'tools/search.py', config, '--work-dir', folder, '--resume']
            found.append(('Go on, if it was interrupted', _join(argv)))
        again = _join(['python', 'tools/report.py', folder])
        return [*found, ('Make this report again', again)]
    subnet, trained = folder / 'subnet.json', folder / 'trained'
    option = f'model.backbone.arch={subnet}'
    train = source.asked.get('train_config')
    if train:
        options = training_options(folder, source.found.get('trained'))
        argv = ['python', 'tools/train.py', train, '--work-dir', trained, '--cfg-options', *options]
        found.append(('Train it', _join(argv)))
    found.append(('Measure it', _join(_measure(source, subnet))))
    if train:
        latest = f'"$(cat {shlex.quote(str(trained / "last_checkpoint"))})"'
        head = _join(['python', 'tools/export.py', train])
        tail = _join(['--out', folder / 'network.onnx', '--cfg-options', option])
        found.append(('Export it, once it is trained', f'{head} {latest} {tail}'))
    return found


def _measure(source: Source, subnet: Path) -> list:
    argv, asked = ['python', 'tools/benchmark_latency.py', subnet], source.asked
    if asked and source.table.kind == 'measured':
        argv += ['--table', asked['table_path'], '--device', asked['device']]
    return argv


def _join(argv: list) -> str:
    return in_this_command(shlex.join(map(str, argv)))
