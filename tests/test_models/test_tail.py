import pytest
import torch

from prunet_mm.models import PRUNet, PRUNetTail
from prunet_mm.spec import load_zoo, zoo_names


def test_tail_takes_the_last_output_to_a_vector():
    tail = PRUNetTail(in_channels=6, channels=10).eval()
    first, last = torch.rand(2, 4, 8, 8), torch.rand(2, 6, 4, 4)
    (out,) = tail((first, last))
    torch.testing.assert_close(out, tail.conv(last).mean((2, 3)))
    assert out.shape == (2, 10)


def test_without_channels_it_only_pools():
    tail = PRUNetTail(in_channels=6)
    x = torch.rand(2, 6, 4, 4)
    torch.testing.assert_close(tail((x,))[0], x.mean((2, 3)))
    assert not list(tail.parameters())


def test_dropout_acts_in_training_only():
    tail = PRUNetTail(in_channels=64, dropout=0.5)
    x = torch.ones(1, 64, 2, 2)
    assert 0 < tail.train()((x,))[0].eq(0).sum() < 64
    assert tail.eval()((x,))[0].eq(1).all()


@pytest.mark.parametrize('name', zoo_names())
def test_backbone_tail_and_linear_layer_are_the_whole_published_network(name):
    spec = load_zoo(name)
    fields = spec.tail.to_dict()
    classes = fields.pop('num_classes')
    net = PRUNet(name)
    tail = PRUNetTail(net.out_channels[-1], **fields)
    linear = torch.nn.Linear(tail.out_channels, classes)
    assert (
        sum(p.numel() for part in (net, tail, linear) for p in part.parameters()) == spec.params()
    )


def test_features_follow_the_pool_with_neither_norm_nor_bias():
    tail = PRUNetTail(in_channels=6, channels=10, features=14).eval()
    (out,) = tail(torch.rand(2, 6, 4, 4))
    assert out.shape == (2, tail.out_channels) == (2, 14)
    assert [name for name in tail.state_dict() if 'features' in name] == ['features.conv.weight']
