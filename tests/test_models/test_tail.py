import torch

from prunet_mm.models import PRUNet, PRUNetTail
from prunet_mm.spec import load_zoo


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


def test_backbone_tail_and_linear_layer_are_the_whole_published_network():
    spec = load_zoo('prunet_p0')
    tail = PRUNetTail(704, spec.tail.channels, spec.tail.act, spec.tail.dropout)
    linear = torch.nn.Linear(spec.tail.channels, spec.tail.num_classes)
    parts = (PRUNet('prunet_p0'), tail, linear)
    assert sum(p.numel() for part in parts for p in part.parameters()) == spec.params()
