"""Candidates that cannot be had from a trained network learn to do what its layers do."""

import copy
import random
from pathlib import Path

import pytest
import torch

from prunet_mm.engine.checkpoint import load_checkpoint_file
from prunet_mm.errors import ConfigError, SearchError
from prunet_mm.models.unexplained import unexplained
from prunet_mm.search.imitation import imitate, imitators, learn, remaining
from prunet_mm.search.rules import choices
from prunet_mm.search.trace import Trace
from prunet_mm.supernet import Prunode
from prunet_mm.supernet.paths import at_widths

# 8 px, two stages of two inverted residuals
ARCH = str(Path(__file__).parents[1] / 'data/trained_network.json')
SPACE = dict(type='around', arch=ARCH, granularity=8, fused=True)
FOREIGN = {
    ('stage1.layer1', 'fused_irb_k3'),
    ('stage1.layer1', 'fused_irb_k5'),
    ('stage1.layer2', 'fused_irb_k3'),
    ('stage1.layer2', 'fused_irb_k5'),
    ('stage2.layer1', 'fused_irb_k3'),
    ('stage2.layer1', 'fused_irb_k5'),
    ('stage2.layer1', 'irb_k3'),  # the centre of its kernel does something else
    ('stage2.layer2', 'fused_irb_k3'),
    ('stage2.layer2', 'fused_irb_k5'),
}


@pytest.fixture
def options(lively, tmp_path):
    network = lively(ARCH)
    with torch.no_grad():  # statistics of digits, which a trained network has
        network.train()
        for _ in range(30):
            network(torch.rand(32, 1, 8, 8))
    state = {f'backbone.{name}': tensor for name, tensor in network.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'trained.pth')
    init = dict(type='TrainedNetwork', arch=ARCH, checkpoint=str(tmp_path / 'trained.pth'))
    init |= dict(imitation=60, importance='magnitude')
    return {'model.architecture.backbone.init_cfg': init, 'model.latency.budget_ratio': 0.75}


@pytest.fixture
def trained(make_search, started, options):
    """The runner of a search that starts as the trained network."""
    return started(make_search(options, space=SPACE))


def trained_tensors(supernet):
    """Copies of all that is no imitating candidate's, by name."""
    others = tuple(f'{name}.candidates.{option}.' for name, option in imitators(supernet))
    return {
        name: tensor.clone()
        for name, tensor in supernet.state_dict().items()
        if not name.startswith(others)
    }


def test_who_imitates(trained):
    assert set(imitators(trained.model.supernet)) == FOREIGN


def test_candidates_learn_and_what_is_trained_stays_bit_identical(trained):
    model = trained.model
    supernet, data = model.supernet, trained.train_loop.dataloader
    x = torch.randn(4, 1, 8, 8)
    probe = data.probe('architecture', 2)
    before, kept = remaining(model, probe), trained_tensors(supernet)
    output = supernet.eval()(x)[0]
    model.train()
    imitate(trained)
    assert model.training
    after = remaining(model, probe)
    assert set(after) == FOREIGN
    assert all(after[pair] < before[pair] for pair in FOREIGN)
    assert sum(after.values()) < 0.6 * sum(before.values())
    now = trained_tensors(supernet)
    assert all(torch.equal(now[name], tensor) for name, tensor in kept.items())
    assert (supernet.eval()(x)[0] - output).abs().max() <= 1e-5 * output.abs().max()
    assert all(p.grad is None for p in model.parameters())
    path = supernet.likeliest_path()
    assert [path[name] for name in path] == ['irb_k3', 'irb_k3', 'irb_k5', 'irb_k3']


def test_narrow_widths_are_learnt_too_and_channels_out_of_use_stay(trained, monkeypatch):
    model, data = trained.model, trained.train_loop.dataloader
    blocks = imitators(model.supernet)
    block = blocks['stage2.layer2', 'fused_irb_k3']
    before = block.block.project.conv.weight.detach().clone()
    with monkeypatch.context() as only:  # the first step has every second one at its narrowest
        only.setattr(random.Random, 'choice', lambda _, widths: widths[0])
        list(learn(model, data.stream('weights', 0), 1))
    changed = (block.block.project.conv.weight != before).flatten(2).any(2).any(0)
    at = [one for one in blocks.values() if isinstance(one, Prunode)].index(block)
    assert int(changed.sum()) == (8 if at % 2 else 32)

    @torch.no_grad()
    def at_half():
        x = model.data_preprocessor(next(data.stream('weights', 0)), True)['inputs']
        *before, last = model.supernet.eval().layers().values()
        for part in (model.supernet.stem, *before):
            x = part(x)
        with at_widths({block: 16}):
            return float(unexplained(block.train()(x), last(x), x))

    start = at_half()
    model.train()
    list(learn(model, data.stream('weights', 0), 60))
    assert at_half() < 0.8 * start


def test_the_share_unexplained():
    wanted = torch.randn(4, 3, 5, 5) * torch.tensor([1.0, 3.0, 0.1]).view(3, 1, 1)
    assert float(unexplained(wanted, wanted)) == 0
    constant = wanted.mean((0, 2, 3), keepdim=True).expand_as(wanted)
    assert float(unexplained(constant, wanted)) == pytest.approx(1)
    assert float(unexplained(100 * constant, 100 * wanted)) == pytest.approx(1)
    passed = 10 * torch.randn(4, 3, 5, 5)  # what a residual adds explains nothing
    assert float(unexplained(passed, passed + wanted - constant, passed)) == pytest.approx(1)
    assert float(unexplained(wanted + 1, torch.zeros_like(wanted))) > 1  # and no division by 0


def test_without_imitation_such_candidates_are_refused(make_search, options):
    options['model.architecture.backbone.init_cfg']['imitation'] = 0
    model = make_search(options, space=SPACE).model
    with pytest.raises(ConfigError, match='fused_irb_k3 cannot be had .* init_cfg.imitation'):
        model.init_weights()
    options['model.architecture.backbone.init_cfg']['imitation'] = -1
    with pytest.raises(ConfigError, match='init_cfg.imitation: found -1, expected a number of'):
        make_search(options, space=SPACE).model.init_weights()


def test_what_diverges_is_told(trained):
    model = trained.model
    block = imitators(model.supernet)['stage1.layer2', 'fused_irb_k3'].block
    block.project.bn.bias.data.fill_(torch.nan)
    probe = trained.train_loop.dataloader.probe('architecture', 1)
    with pytest.raises(SearchError, match='of stage1.layer2, fused_irb_k3 leaves nan'):
        remaining(model, probe)


def test_rules_judge_what_has_imitated(make_search, options, monkeypatch):
    options['model.architecture.backbone.init_cfg']['imitation'] = 4
    runner, seen = make_search(options, space=SPACE), []

    def judge(runner, _):
        left = remaining(runner.model, runner.train_loop.dataloader.probe('architecture', 2))
        seen.append((left, choices(runner.model)))

    monkeypatch.setattr('prunet_mm.search.runner.apply_rule', judge)
    monkeypatch.setattr('prunet_mm.search.runner.conclude', lambda *_: None)
    runner.apply_rule('lana')
    ((left, alternatives),) = seen
    told = runner.train_loop.take_events()
    assert left == {(one['layer'], one['candidate']): one['unexplained'] for one in told}
    assert {(name, one.option) for name, some in alternatives.items() for one in some} >= FOREIGN


class ScreenStub:
    """Notes what is shown."""

    def __init__(self):
        self.shown = []

    def progress(self, phase, done, status):
        self.shown.append((phase, done, *status()))


def test_log_screen_history_and_report_tell_the_shares(
    make_search, options, log, history, tmp_path
):
    options |= {'train_cfg.max_iters': 6, 'train_cfg.warmup_iters': 2}
    options['model.architecture.backbone.init_cfg']['imitation'] = 8
    hooks = dict(TrainedStartHook={}, DeriveHook=None)
    runner = make_search(options, space=SPACE, hooks=hooks)
    lines, screen = log(runner), ScreenStub()
    runner.screen = screen
    runner.train()
    rows = history()
    events = [event for event in rows[0]['events'] if event['kind'] == 'imitation']
    assert {(event['layer'], event['candidate']) for event in events} == FOREIGN
    assert all(0 < event['unexplained'] < 2 for event in events)
    assert not any(e['kind'] == 'imitation' for row in rows[1:] for e in row['events'])
    assert list(Trace.of(rows).imitated) == events
    (line,) = (line for line in lines if 'quarter by quarter of 8 steps' in line)
    for event in events:
        assert f'{event["layer"]:14}  {event["candidate"]:13}  {event["unexplained"]:6.1%}' in line
    imitating = [shown for shown in screen.shown if shown[0] == 'imitating']
    assert [done for _, done, *_ in imitating] == [step / 8 for step in range(1, 9)]
    assert imitating[-1][2] == 'imitating 8/8' and imitating[-1][3].endswith('% unexplained')


def test_an_interrupted_search_ends_in_the_same_bits(
    make_search, options, kill_after, monkeypatch, tmp_path
):
    """Killed in the imitation, which leaves nothing, and in the warm-up, where rows wait."""
    options |= {'train_cfg.max_iters': 8, 'train_cfg.warmup_iters': 3}
    options |= {'default_hooks.checkpoint.interval': 1}
    options['model.architecture.backbone.init_cfg']['imitation'] = 6
    search = dict(space=SPACE, hooks=dict(TrainedStartHook={}))
    make_search(options, 'whole', **search).train()

    class KilledError(BaseException):
        pass

    def killed(*_):
        raise KilledError

    with monkeypatch.context() as deadly:
        deadly.setattr('prunet_mm.search.imitation.remaining', killed)
        with pytest.raises(KilledError):
            make_search(options, **search).train()
    kill_after(make_search(options, resume='auto', **search), 2)
    make_search(options, resume='auto', **search).train()
    for name in ('subnet.json', 'history.jsonl'):
        whole, work = (tmp_path / folder / name for folder in ('whole', 'work'))
        assert whole.read_bytes() == work.read_bytes(), name
    whole, work = (
        load_checkpoint_file(tmp_path / folder / 'searched.pth')['state_dict']
        for folder in ('whole', 'work')
    )
    assert whole.keys() == work.keys()
    assert all(torch.equal(tensor, work[name]) for name, tensor in whole.items())


def test_processes_learn_the_same(trained, in_two_processes):
    """And what remains is told alike in all of them."""
    model, data = trained.model, trained.train_loop.dataloader

    def learnt(rank):
        one = copy.deepcopy(model)
        shares = list(learn(one, data.stream('weights', 0), 3))
        left = remaining(one, data.probe('architecture', 1))
        return shares, left, {name: p.detach() for name, p in one.named_parameters()}

    first, second = in_two_processes(learnt)
    assert first[:2] == second[:2]
    assert all(torch.equal(tensor, second[2][name]) for name, tensor in first[2].items())
    assert any(not torch.equal(p.detach(), first[2][n]) for n, p in model.named_parameters())
