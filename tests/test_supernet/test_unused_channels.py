import random

import pytest
import torch
from torch import nn

from prunet_mm.supernet import Prunode
from prunet_mm.supernet.unused_channels import UnusedChannels, forget_removed, reset_state


class FromOnes(torch.optim.Optimizer):
    """Divides by a mean of squares that starts at one, as TensorFlow's RMSprop does."""

    def __init__(self, params, lr, weight_decay):
        super().__init__(params, dict(lr=lr, weight_decay=weight_decay))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group['params']:
                gradient = p.grad + group['weight_decay'] * p
                mean = self.state[p].setdefault('mean', torch.ones_like(p))
                mean.mul_(0.75).addcmul_(gradient, gradient, value=0.25)
                p.addcdiv_(gradient, mean.sqrt(), value=-group['lr'])


OPTIMIZERS = {
    'sgd': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
    'nesterov': lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    'adam': lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.1),
    'adamw': lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.1),
    'rmsprop': lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, weight_decay=0.1),
    'from_ones': lambda p: FromOnes(p, lr=0.01, weight_decay=0.1),
}
optimizers = pytest.mark.parametrize('make_optimizer', OPTIMIZERS.values(), ids=OPTIMIZERS)
kinds = pytest.mark.parametrize('options', [dict(op='irb', se=3), dict(op='fused_irb', se=3)])


def step(prunode, optimizer, x):
    optimizer.zero_grad()
    prunode(x).square().mean().backward()
    optimizer.step()


def state(prunode, optimizer, first, count):
    """Bytes of some hidden channels, of weights, norms and the optimiser's state of them."""
    found = {}
    for i, (parameter, dim) in enumerate(prunode.hidden_tensors()):
        tensors = dict(optimizer.state.get(parameter, {}), weight=parameter.detach())
        for name, value in tensors.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                found[i, name] = value.narrow(dim, first, count).clone()
    norms = [m for m in prunode.modules() if isinstance(m, nn.BatchNorm2d)][:-1]
    for i, norm in enumerate(norms):
        found[i, 'mean'] = norm.running_mean[first : first + count].clone()
        found[i, 'var'] = norm.running_var[first : first + count].clone()
    return found


def shielded(make_prunode, make_optimizer, **options):
    prunode = make_prunode(**options)
    optimizer = make_optimizer(list(prunode.block.parameters()))
    UnusedChannels(lambda: [prunode], optimizer)
    return prunode, optimizer


@optimizers
@kinds
def test_channels_beyond_hi_stay_bit_identical(make_prunode, images, make_optimizer, options):
    prunode, optimizer = shielded(make_prunode, make_optimizer, **options)
    prunode.fixed_width = 24
    for _ in range(3):  # build up momentum and second moments everywhere
        step(prunode, optimizer, images)
    prunode.fixed_width = None
    prunode.rule.jump(10.0)
    before = state(prunode, optimizer, 12, 12)
    used = state(prunode, optimizer, 0, 12)
    assert any(name != 'weight' for _, name in before)
    for _ in range(5):
        step(prunode, optimizer, images)
    after = state(prunode, optimizer, 12, 12)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    now = state(prunode, optimizer, 0, 12)
    assert all(not torch.equal(used[key], now[key]) for key in used)


@pytest.mark.parametrize('make_optimizer', [OPTIMIZERS['sgd']], ids=['sgd'])
def test_without_the_shield_plain_sgd_changes_them(make_prunode, images, make_optimizer):
    """What the shield is for: a gradient of zero is not "leave alone"."""
    prunode = make_prunode()
    optimizer = make_optimizer(list(prunode.block.parameters()))
    prunode.rule.jump(10.0)
    before = state(prunode, optimizer, 12, 12)
    step(prunode, optimizer, images)
    after = state(prunode, optimizer, 12, 12)
    assert any(not torch.equal(before[key], after[key]) for key in before)


@optimizers
def test_a_step_equals_that_of_a_separate_narrow_block(make_prunode, images, make_optimizer):
    """So the shield changes nothing of the channels in use, from the very first step."""
    wide, wide_optimizer = shielded(make_prunode, make_optimizer)
    wide.fixed_width = 12
    narrow = make_prunode(widths=(4, 8, 12))
    narrow.fixed_width = 12
    full = {**dict(wide.block.named_parameters()), **dict(wide.block.named_buffers())}
    for name, tensor in [*narrow.block.named_parameters(), *narrow.block.named_buffers()]:
        tensor.data.copy_(full[name].detach()[tuple(map(slice, tensor.shape))])
    narrow_optimizer = make_optimizer(list(narrow.block.parameters()))
    for _ in range(4):
        step(wide, wide_optimizer, images)
        step(narrow, narrow_optimizer, images)
    for name, tensor in narrow.block.named_parameters():
        part = full[name].detach()[tuple(map(slice, tensor.shape))]
        torch.testing.assert_close(part, tensor.detach(), rtol=1e-9, atol=1e-9)


@optimizers
def test_random_widths_of_the_warm_up_are_shielded_too(make_prunode, images, make_optimizer):
    prunode, optimizer = shielded(make_prunode, make_optimizer, se=3)
    rng = random.Random(0)
    for _ in range(12):
        width = prunode.fixed_width = rng.choice(prunode.widths[:-1])
        before = state(prunode, optimizer, width, 24 - width)
        step(prunode, optimizer, images)
        after = state(prunode, optimizer, width, 24 - width)
        assert all(torch.equal(before[key], after[key]) for key in before)
        fresh = {key for key in after if key not in before}  # state made by this very step
        start = 0.75 if isinstance(optimizer, FromOnes) else 0
        assert all((after[key] == start).all() for key in fresh)


def test_a_state_that_is_a_step_size_starts_where_the_optimiser_puts_it(make_prunode, images):
    """With a size of zero, channels could never move once they come into use."""
    prunode, optimizer = shielded(make_prunode, lambda p: torch.optim.Rprop(p, lr=0.05))
    prunode.fixed_width = 8
    step(prunode, optimizer, images)
    weight = prunode.block.expand.conv.weight
    assert (optimizer.state[weight]['step_size'][8:] == 0.05).all()
    prunode.fixed_width = 24
    before = weight.detach().clone()
    step(prunode, optimizer, images)
    assert (weight[8:] != before[8:]).all()


@optimizers
def test_channels_train_again_when_they_come_into_use(make_prunode, images, make_optimizer):
    prunode, optimizer = shielded(make_prunode, make_optimizer)
    prunode.fixed_width = 8
    for _ in range(3):
        step(prunode, optimizer, images)
    before = state(prunode, optimizer, 8, 8)
    prunode.fixed_width = 16
    for _ in range(2):
        step(prunode, optimizer, images)
    after = state(prunode, optimizer, 8, 8)
    assert all(after[key].isfinite().all() for key in after)
    assert all(not torch.equal(before[key], after[key]) for key in before if key[1] == 'weight')


def test_a_prunode_without_gradients_is_left_alone(make_prunode):
    """A wrapper may hold several Prunodes, of which a step used none."""
    prunode, optimizer = shielded(make_prunode, OPTIMIZERS['sgd'])
    before = state(prunode, optimizer, 0, 24)
    optimizer.step()
    assert all(torch.equal(before[key], value) for key, value in before.items())


# What is removed


def test_removed_parameters_leave_the_optimiser_and_take_their_state_along(make_supernet):
    supernet = make_supernet(sampling='softmax')  # a step moves all candidates
    x = torch.randn(4, 3, 8, 8)
    optimizer = torch.optim.Adam(supernet.parameters(), lr=0.01)
    supernet(x)[0].square().mean().backward()
    optimizer.step()
    layer = supernet.layers()['stage3.layer1']
    removed = [*layer.candidates['irb_k5'].parameters(), layer.logits['irb_k5']]
    neighbours = [*layer.candidates['irb_k3'].parameters(), layer.logits['irb_k3']]
    kept = {p: {k: v.clone() for k, v in optimizer.state[p].items()} for p in neighbours}
    layer.remove('irb_k5')
    supernet.remove_layer('stage2.layer3')

    forget_removed(optimizer, supernet)
    held = {id(p) for group in optimizer.param_groups for p in group['params']}
    assert held == {id(p) for p in supernet.parameters()}
    assert not held & {id(p) for p in removed}
    assert {id(p) for p in optimizer.state} <= held
    for parameter, old in kept.items():
        assert all(torch.equal(old[k], optimizer.state[parameter][k]) for k in old)
    optimizer.zero_grad()
    supernet(x)[0].square().mean().backward()
    optimizer.step()
    assert int(optimizer.state[neighbours[0]]['step']) == 2


def test_reset_state_forgets_these_parameters_only():
    a, b = (nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = torch.optim.Adam([a, b])
    (a.sum() + b.sum()).backward()
    optimizer.step()
    reset_state(optimizer, [a])
    reset_state(optimizer, [a])  # nothing left to forget
    assert set(optimizer.state) == {b}


def test_prunodes_of_a_supernet_are_looked_up_at_every_step(make_supernet):
    """A Prunode that was removed after the shield was made is no concern of it any more."""
    supernet = make_supernet(rule=dict(type='width', initial=0.5))
    optimizer = torch.optim.SGD(supernet.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    UnusedChannels(supernet.prunodes, optimizer)
    supernet.settle()
    forget_removed(optimizer, supernet)
    supernet(torch.randn(4, 3, 8, 8))[0].square().mean().backward()
    (prunode, *_) = supernet.prunodes()
    assert isinstance(prunode, Prunode)
    hi = prunode.pair()[1]
    before = prunode.block.expand.conv.weight[hi:].clone()
    assert len(before)
    optimizer.step()
    assert torch.equal(prunode.block.expand.conv.weight[hi:], before)
