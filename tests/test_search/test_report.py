import json
import shlex
import sys
from functools import partial

import pytest

from prunet_mm.errors import SearchError
from prunet_mm.latency.promise import Promise
from prunet_mm.search import report as module
from prunet_mm.search.finalists import Finalist
from prunet_mm.search.report import Outcome, pictures, write_report
from prunet_mm.search.rounding import Rounding
from prunet_mm.spec import SearchSpace

PICTURES = ['widths.png', 'candidates.png', 'latency.png', 'network.png']
SPACE = SearchSpace.from_dict(
    dict(
        name='small',
        resolution=8,
        stem=dict(out_channels=8),
        stages=[dict(width=8, stride=2, depth=3, max_expansion=4, granularity=8)],
        tail=dict(num_classes=10),
    )
)


def row(step, layers, events=(), chance=0.5):
    """A row in which each layer has the candidates that are given."""
    chances = [chance, 1 - chance]
    return dict(
        step=step,
        progress=step / 9,
        loss=1.0,
        expected_ms=1.0,
        budget_ms=0.9,
        target_ms=0.9,
        multiplier=0.5,
        multiplier_average=0.5,
        temperature=1.0,
        widths={
            f'{layer}.{candidate}': dict(expected=12.0, lo=8, hi=16, widest=32)
            for layer, candidates in layers.items()
            for candidate in candidates
        },
        probabilities={
            layer: dict(zip(names, chances if len(names) > 1 else [1.0], strict=True))
            for layer, names in layers.items()
        },
        keep={},
        events=list(events),
    )


def candidate_gone(layer, probability, kind='candidate'):
    if kind == 'candidate':
        why = dict(threshold=0.4)
    else:
        why = dict(share=0.62, rival='irb_k5', rise=0.0123, rise_se=0.004)
    event = dict(kind=kind, layer=layer, candidate='irb_k5', probability=probability)
    return event | dict(multiplier=0.71) | why


BOTH, ONE = ['irb_k5', 'irb_k3'], ['irb_k3']
LAYER_GONE = dict(
    kind='layer',
    layer='stage1.layer3',
    probability=0.41,
    threshold=0.5,
    loss_rise=0.02,
    loss_rise_se=0.003,
    worth=0.05,
    freed_ms=0.123,
    multiplier=0.8,
)
HISTORY = [
    row(1, {'stage1.layer1': BOTH, 'stage1.layer2': BOTH, 'stage1.layer3': ONE}, chance=0.3),
    row(
        2,
        {'stage1.layer1': ONE, 'stage1.layer2': BOTH, 'stage1.layer3': ONE},
        [candidate_gone('stage1.layer1', 0.3)],
        chance=0.49,
    ),
    row(3, {'stage1.layer1': ONE, 'stage1.layer2': BOTH}, [LAYER_GONE], chance=0.49),
    row(
        4,
        {'stage1.layer1': ONE, 'stage1.layer2': ONE},
        [candidate_gone('stage1.layer2', 0.49, 'settled')],
    ),
]


def network():
    places = SPACE.positions()[:2]
    return SPACE.network([(p, p.candidates[0], 16) for p in places])


def promised(measured_ms, iqr_ms):
    """What was measured, on a machine that is slower by a tenth than on the table's day."""
    then_ms = measured_ms / 1.1
    ends = 0.99 * then_ms, 1.01 * then_ms
    return Promise(then_ms, measured_ms, iqr_ms, 300, 1.1, (1.09, 1.11), then_ms, ends)


def report(work_dir, history=HISTORY, **changes):
    """Write a report on a history, as the one of a network of two layers."""
    if history is not None:
        text = ''.join(json.dumps(row) + '\n' for row in history)
        (work_dir / 'history.jsonl').write_text(text)
    outcome = dict(
        budget_ms=0.9,
        predicted_ms=0.891,
        table_kind='measured',
        table_device='measured on Some Device: eager, float32, batch 64, 1 thread',
        space=SPACE,
    )
    return write_report(work_dir, network(), Outcome(**(outcome | changes)))


@pytest.fixture
def words(tmp_path, monkeypatch):
    """`report` without the time that pictures take."""
    monkeypatch.setattr(module, '_draw', lambda *args: None)
    return partial(report, tmp_path)


def line(text, start):
    return next(line for line in text.splitlines() if line.lstrip().startswith(start))


def test_it_says_what_was_found(words):
    text = words(derived_loss=0.1234)
    assert network().describe() in text
    assert f'{network().params():,} parameters' in text
    assert '0.1234' in line(text, 'Loss')


def test_latency_stands_against_budget_and_clock(words):
    text = words(promise=promised(0.9801, 0.0098))
    assert '0.9000 ms' in line(text, 'budget')
    assert '0.8910 ms' in line(text, 'predicted') and '99.00%' in line(text, 'predicted')
    for words in ('0.9801 ms', '110.00%', 'median of 300', 'IQR 0.0098 ms (1.0%)'):
        assert words in line(text, 'measured')
    assert 'measured on Some Device: eager, float32, batch 64, 1 thread' in text
    assert 'The machine takes 1.100 times as long as on the day of the table (1.09 to 1.11;' in text
    assert "At the table's state the network takes 0.8910 ms (0.8821 to 0.8999)" in text
    assert 'rounded once more' not in text


def test_a_correction_is_told(words):
    text = words(promise=promised(0.9801, 0.0098), rescaled_by=0.925)
    assert 'by the table times 0.925' in ' '.join(text.split())


def test_the_command_that_trains_it_can_be_pasted(monkeypatch, tmp_path):
    monkeypatch.setattr(module, '_draw', lambda *args: None)
    folder = tmp_path / "my runs, it's"
    folder.mkdir()
    command = line(report(folder, train_config='my configs/a.py'), 'python tools/train.py')
    assert shlex.split(command)[2:] == [
        *('my configs/a.py', '--cfg-options'),
        f'model.backbone.arch={folder}/subnet.json',
    ]


def test_images_of_another_size_are_told(words):
    warning = 'Images of 6 x 8 px are searched on.'
    assert warning in words(other_size=warning)


def test_what_imitation_left_is_told(words):
    event = dict(kind='imitation', layer='stage1.layer2', candidate='irb_k5', unexplained=0.1234)
    text = words([dict(HISTORY[0], events=[event]), *HISTORY[1:]])
    assert 'Imitated before the first step' in text
    assert line(text, 'stage1.layer2   irb_k5').split()[-2:] == ['leaves', '12.3%']
    assert 'Imitated' not in words() and 'Imitated' not in words([])


def test_an_estimate_is_called_one(words):
    assert 'estimated, not measured' in line(words(table_kind='estimated'), 'predicted')
    assert 'estimated' not in words()


def test_a_granule_that_does_not_fit_is_named(words):
    rounding = Rounding({}, 0.85, blocked=('stage1.layer2', 24, 0.0625))
    text = words(predicted_ms=0.85, rounding=rounding)
    assert 'stage1.layer2 to 24 channels' in text.replace('\n', ' ')
    assert '0.0625 ms' in text and '0.0500 ms' in text
    assert 'No single granule' not in words()
    rest = words(predicted_ms=0.85, rounding=Rounding({}, 0.85)).replace('\n', ' ')
    assert 'too fast for it' in rest and 'too fast for it' not in text + words()


def test_rounded_widths_are_listed_and_more_than_one_granule_is_no_convergence(words):
    moves = (('stage1.layer1', 8, 16), ('stage1.layer2', 32, 24))
    text = words(rounding=Rounding({}, 0.891, moves, granules=1))
    assert line(text, 'stage1.layer1   ').split()[1:4] == ['8', '->', '16']
    assert 'has not converged' not in text
    text = words(rounding=Rounding({}, 0.891, moves, granules=3))
    assert 'has not converged to the budget: a layer moved by 3 granules' in text
    assert 'Widths rounded' not in words(rounding=Rounding({}, 0.891))


FINALISTS = [
    Finalist({'stage1.layer1': 'irb_k3', 'stage1.layer2': 'skip'},
             Rounding({'stage1.layer1': 16}, 0.891), 1.25),
    Finalist({'stage1.layer1': 'irb_k5', 'stage1.layer2': 'irb_k3'},
             Rounding({'stage1.layer1': 8, 'stage1.layer2': 8}, 0.895), 1.5, (0.25, 0.03)),
]  # fmt: skip


def test_finalists_are_listed_the_best_first_if_there_was_a_choice(words):
    text = words(finalists=FINALISTS)
    best, other = line(text, '1.2500'), line(text, '1.5000')
    assert text.index(best) < text.index(other)
    assert best.endswith('stage1.layer1 irb_k3 16') and '0.8910' in best
    assert '0.2500 +- 0.0300' in other and 'stage1.layer2 irb_k3 8' in other
    assert 'Finalists' not in words(finalists=FINALISTS[:1])


def test_the_first_sentence_is_whether_the_budget_binds(words):
    title, _, sentence = words().splitlines()[1:4]
    assert title == 'The budget' and sentence.startswith('The budget binds: lambda ended at 0.500')
    free = [one | dict(multiplier=-0.1) for one in HISTORY]
    assert 'Latency has no price' in words(free)


def test_a_frontier_has_a_row_for_every_target(tmp_path, words):
    assert 'The frontier' not in words()
    rows = [
        dict(
            target_ms=target, predicted_ms=target - 0.01, loss=loss, subnet=f'subnet_{target}.json'
        )
        for target, loss in [(0.4, 1.5), (0.9, 1.25)]
    ]
    rows[1] |= dict(measured_ms=0.91, measured_iqr_ms=0.01)
    (tmp_path / 'frontier.json').write_text(json.dumps(rows))
    text = words()
    assert line(text, '0.4000').split() == [
        '0.4000',
        '0.3900',
        '-',
        '1.5000',
        f'{tmp_path}/subnet_0.4.json',
    ]
    assert line(text, '0.9000').split()[1:4] == ['0.8900', '0.9100', '1.2500']


def test_removals_are_listed_with_step_and_probability(words):
    text = words()
    assert line(text, '2  stage1.layer1').split() == [
        *('2', 'stage1.layer1', 'irb_k5', '0.300', '0.710', 'probability', '<', '0.400')
    ]
    layer = line(text, '3  stage1.layer3')
    for told in ('0.410', '0.800', '+0.0200 +- 0.0030', 'worth 0.0500'):
        assert told in layer
    settled = line(text, '4  stage1.layer2')
    assert 'settled, 62%; else loss +0.0123 +- 0.0040' in settled
    assert 'Nothing.' in words(HISTORY[:1])


def test_near_ties_are_marked(words):
    text = words()
    assert line(text, '4  stage1.layer2').endswith('*') and '* Nearly a tie' in text
    assert not line(text, '2  stage1.layer1').endswith('*')
    assert '*' not in words(HISTORY[:2])


def test_of_very_many_removals_the_telling_ones_are_listed(words):
    layers = {f'stage{i}.layer1': BOTH for i in range(60)}
    gone = [candidate_gone(layer, 0.3) for layer in layers]
    last = [row(2, dict.fromkeys(layers, ONE), [*gone, LAYER_GONE])]
    text = words([row(1, layers, chance=0.3), *last])
    assert '... and 60 more candidates' in text and '2  stage1.layer3' in text
    assert len(text.splitlines()) < 50


def test_the_command_comes_last_and_can_be_copied(tmp_path, words):
    last = words(train_config='configs/cls/some.py').splitlines()[-1]
    subnet = tmp_path / 'subnet.json'
    assert last == (
        f'python tools/train.py configs/cls/some.py --cfg-options model.backbone.arch={subnet}'
    )


def test_it_fits_any_terminal(tmp_path, words):
    text = words(
        rounding=Rounding({}, 0.85, blocked=('stage1.layer2', 24, 0.0625)),
        finalists=FINALISTS,
        table_device='measured on ' + 'a very long name ' * 10,
        promise=promised(12345.9801, 12345.0098),
    )
    assert text.isascii()
    *lines, _ = (line for line in text.splitlines() if str(tmp_path) not in line)
    assert max(map(len, lines)) <= 100


def test_pictures_are_drawn_named_and_handed_out(tmp_path):
    text = report(tmp_path)
    assert pictures(tmp_path) == [tmp_path / name for name in PICTURES]
    assert all(str(path) in text for path in pictures(tmp_path))


def test_without_matplotlib_there_is_a_sentence_and_no_picture(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib', None)
    text = report(tmp_path)
    assert 'no pictures, since matplotlib cannot be imported' in text
    assert 'Next: train it' in text
    assert pictures(tmp_path) == []


@pytest.mark.parametrize('history', [None, []])
def test_without_a_history_the_network_is_drawn(tmp_path, history):
    text = report(tmp_path, history)
    assert pictures(tmp_path) == [tmp_path / 'network.png']
    assert 'no history.jsonl' in text or history == []


def test_a_damaged_history_is_an_error_that_names_it(tmp_path):
    (tmp_path / 'history.jsonl').write_text('{"step": 1')
    with pytest.raises(SearchError, match='history.jsonl: damaged'):
        report(tmp_path, None)


def test_it_says_what_is_left_of_the_network_that_it_came_from(words):
    places = SPACE.positions()
    whole = SPACE.network([(p, p.candidates[0], max(p.candidates[0].widths)) for p in places])
    space = SPACE.model_copy(update=dict(origin=whole))
    text = words(space=space, origin_ms=1.782)
    assert line(text, 'network    ') == f'network    {whole.name}'
    assert line(text, 'predicted       0.891 of').endswith('0.891 of 1.782 ms, 50.0%')
    assert line(text, 'layers').endswith(f'2 of {len(places)}, {2 / len(places):.1%}')
    assert 'in one run' not in text and 'came from' not in words()
    measured = dict(promise=promised(0.9, 0.01), measured_origin=promised(1.5, 0.01).timing)
    text = words(space=space, origin_ms=1.782, **measured)
    assert '0.9 of 1.5 ms, in one run, 60.0%' in text
    train = words(trained=['neck']).splitlines()[-1]
    assert 'model.backbone.init_cfg.type=SuperNet' in train
    assert 'model.neck.init_cfg.prefix=architecture.neck.' in train
