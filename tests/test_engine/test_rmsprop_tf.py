import copy

import pytest
import torch
from mmengine.registry import OPTIMIZERS

from prunet_mm.engine.rmsprop_tf import RMSpropTF
from prunet_mm.errors import ConfigError


def train(model, optimizer, steps, rate=lambda step: 0.01):
    """Train on the same random targets, whichever the optimizer."""
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group['lr'] = rate(step)
        x = torch.randn(16, 6, generator=generator)
        y = torch.randn(16, 2, generator=generator)
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture
def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


@pytest.mark.parametrize('momentum', [0.0, 0.9])
@pytest.mark.parametrize('eps', [1e-3, 1e-10])
def test_steps_are_those_of_timm(model, momentum, eps):
    timm_optim = pytest.importorskip('timm.optim')
    settings = dict(lr=0.01, alpha=0.9, eps=eps, momentum=momentum, weight_decay=1e-2)
    other = copy.deepcopy(model)

    def rate(step):
        return 0.01 * 0.97 ** (step // 10)

    ours = train(model, RMSpropTF(model.parameters(), **settings), 200, rate)
    theirs = train(other, timm_optim.RMSpropTF(other.parameters(), **settings), 200, rate)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_two_steps_computed_by_hand():
    param = torch.nn.Parameter(torch.tensor([2.0]))
    optimizer = RMSpropTF([param], lr=0.1, alpha=0.9, eps=0.5, momentum=0.8, weight_decay=0.1)
    param.grad = torch.tensor([3.0])
    optimizer.step()
    square = 0.9 * 1 + 0.1 * 3.2**2  # the mean starts at one; 3.2 is gradient and decay
    first = 0.1 * 3.2 / (square + 0.5) ** 0.5
    assert param.item() == pytest.approx(2 - first)

    optimizer.param_groups[0]['lr'] = 0.01
    decayed = 3 + 0.1 * param.item()
    square = 0.9 * square + 0.1 * decayed**2
    second = 0.8 * first + 0.01 * decayed / (square + 0.5) ** 0.5  # the old rate stays in `first`
    before = param.item()
    optimizer.step()
    assert param.item() == pytest.approx(before - second)
    assert param.grad.item() == 3  # decay leaves the gradient as it was


def test_goes_on_exactly_from_its_state(model):
    settings = dict(lr=0.01, eps=1e-3, momentum=0.9)
    half = RMSpropTF(model.parameters(), **settings)
    train(model, half, 5)
    resumed_model, saved = copy.deepcopy(model), copy.deepcopy(half.state_dict())
    resumed = RMSpropTF(resumed_model.parameters(), **settings)
    resumed.load_state_dict(saved)
    assert torch.equal(train(resumed_model, resumed, 5), train(model, half, 5))


def test_parameters_without_gradient_stay():
    used, unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = RMSpropTF([used, unused], weight_decay=0.1)
    loss = optimizer.step(lambda: used.sum().backward() or torch.tensor(7.0))
    assert loss == 7
    assert torch.equal(unused, torch.ones(2))
    assert not torch.equal(used, torch.ones(2))


@pytest.mark.parametrize(
    ('name', 'value', 'allowed'),
    [('lr', -0.1, 'at least 0'), ('alpha', 1.5, 'from 0 to 1'), ('momentum', -1, 'from 0 to 1')],
)
def test_a_number_out_of_range_is_one_sentence(name, value, allowed):
    config = dict(type='RMSpropTF', params=[torch.nn.Parameter(torch.ones(1))])
    with pytest.raises(ConfigError, match=f'RMSpropTF: {name} is {value}, but has to be {allowed}'):
        OPTIMIZERS.build(config | {name: value})
