import pytest
import torch
from torch import nn

from prunet_mm.models.recompute import frozen_statistics
from prunet_mm.models.statistics import recalibrate


def buffers(model):
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def assert_unchanged(model, before):
    after = dict(model.named_buffers())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize('with_cp', [False, True])
def test_frozen_statistics_change_no_buffer(make_supernet, with_cp):
    supernet = make_supernet(with_cp=with_cp).train()
    x = torch.randn(4, 3, 8, 8)
    before = buffers(supernet)
    with frozen_statistics(supernet):
        supernet(x)[0].square().mean().backward()
    assert_unchanged(supernet, before)
    supernet(x)
    after = buffers(supernet)
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_frozen_statistics_still_normalise_with_the_batch(make_supernet):
    supernet = make_supernet().train()
    x = 3 * torch.randn(4, 3, 8, 8) + 1
    with frozen_statistics(supernet):
        frozen = supernet(x)[0]
    torch.testing.assert_close(supernet(x)[0], frozen)


def test_frozen_statistics_may_be_nested_and_end_with_an_exception(make_supernet):
    supernet = make_supernet().train()
    x = torch.randn(4, 3, 8, 8)
    before = buffers(supernet)
    with pytest.raises(RuntimeError, match='on purpose'), frozen_statistics(supernet):
        with frozen_statistics(supernet):
            supernet(x)
        supernet(x)
        raise RuntimeError('on purpose')
    assert_unchanged(supernet, before)
    supernet(x)
    norm = supernet.stem[0].conv.bn
    assert norm.momentum == 0.1
    assert int(norm.num_batches_tracked) == 1


def test_recalibration_replaces_statistics_by_plain_averages():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.9))
    model[0].running_mean.fill_(100.0)
    batches = [torch.randn(8, 3, 4, 4) * (i + 1) + i for i in range(5)]
    recalibrate(model, batches, model)
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.var((0, 2, 3), unbiased=True) for batch in batches])
    torch.testing.assert_close(model[0].running_mean, means.mean(0))
    torch.testing.assert_close(model[0].running_var, variances.mean(0))
    assert model[0].momentum == 0.1


def test_a_norm_that_all_levels_of_a_head_share_averages_over_all_of_them():
    norm = nn.BatchNorm2d(3)
    batches = [[torch.randn(8, 3, 4, 4) + 3 * level for level in range(3)] for _ in range(2)]
    recalibrate(norm, batches, lambda levels: [norm(x) for x in levels])
    means = torch.stack([x.mean((0, 2, 3)) for levels in batches for x in levels])
    torch.testing.assert_close(norm.running_mean, means.mean(0))


def test_norms_of_hidden_channels_average_too(make_prunode, images):
    prunode = make_prunode()
    prunode.fixed_width = 12
    batches = [images * factor for factor in (1, 2, 3)]
    recalibrate(prunode, batches, prunode)
    conv, norm = prunode.block.expand.conv, prunode.block.expand.bn
    means = torch.stack([conv(x).mean((0, 2, 3)) for x in batches])
    torch.testing.assert_close(norm.running_mean[:12], means.mean(0)[:12])
    assert norm.momentum == 0.1


@pytest.mark.parametrize('training', [True, False])
def test_recalibration_leaves_mode_and_weights_as_they_were(make_supernet, training):
    supernet = make_supernet().train(training)
    weights = {name: p.clone() for name, p in supernet.named_parameters()}
    recalibrate(supernet, [torch.randn(4, 3, 8, 8) for _ in range(2)], supernet)
    assert supernet.training is training
    assert all(m.training is training for m in supernet.modules())
    assert all(torch.equal(weights[name], p) for name, p in supernet.named_parameters())


def test_recalibration_keeps_drop_out_off():
    """Statistics are those of the network as it is used."""
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm2d(3))
    batch = torch.randn(8, 3, 4, 4) + 5
    recalibrate(model, [batch], model)
    torch.testing.assert_close(model[1].running_mean, batch.mean((0, 2, 3)))


def test_after_recalibration_a_supernet_normalises_each_channel_in_use(make_supernet):
    """On the very batch it was recalibrated with, eval and training mode give the same."""
    supernet = make_supernet().train()
    supernet.settle()
    x = torch.randn(256, 3, 8, 8)
    recalibrate(supernet, [x], supernet)
    with frozen_statistics(supernet):
        expected = supernet(x)[0]
    found = supernet.eval()(x)[0]
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
