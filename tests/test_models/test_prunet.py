import pytest
import torch
from mmengine.config import Config
from torch import nn

from prunet_mm.errors import ConfigError, SpecError
from prunet_mm.models import PRUNet
from prunet_mm.spec import NetworkSpec, SearchSpace, load_zoo


@pytest.fixture
def arch():
    common = dict(kernel=3, act='relu')

    def irb(in_channels, out_channels, stride, stage):
        return dict(
            op='irb',
            in_channels=in_channels,
            out_channels=out_channels,
            hidden=16,
            stride=stride,
            stage=stage,
            **common,
        )

    return dict(
        name='tiny',
        resolution=16,
        stem=[dict(op='conv', in_channels=3, out_channels=8, stride=2, stage=0, **common)],
        # numbered like GPUNet-0, which has no stage 3
        layers=[irb(8, 8, 1, 1), irb(8, 12, 2, 2), irb(12, 12, 1, 2), irb(12, 20, 2, 4)],
        tail=dict(num_classes=10),
    )


def test_default_is_the_last_stage(arch):
    net = PRUNet(arch)
    (out,) = net(torch.rand(2, 3, 16, 16))
    assert out.shape == (2, 20, 2, 2)
    assert (net.out_channels, net.out_strides) == ((20,), (8,))


@pytest.mark.parametrize('indices', [(1, 2, 4), (-3, -2, -1), [4, -2, 1]])
def test_out_indices_are_stage_numbers_or_count_from_the_last(arch, indices):
    net = PRUNet(arch, out_indices=indices)
    outs = net(torch.rand(1, 3, 16, 16))
    assert [tuple(out.shape[1:]) for out in outs] == [(8, 8, 8), (12, 4, 4), (20, 2, 2)]
    assert net.out_channels == (8, 12, 20)
    assert net.out_strides == (2, 4, 8)


@pytest.mark.parametrize('indices', [(3,), (0,), (5,), (-4,), ('last',)])
def test_a_stage_that_is_not_there_is_refused(arch, indices):
    with pytest.raises(ConfigError, match=r'stages of .tiny. are \[1, 2, 4\]'):
        PRUNet(arch, out_indices=indices)


def test_arch_is_a_dict_a_file_or_a_name(arch, tmp_path):
    path = tmp_path / 'subnet.json'
    NetworkSpec.from_dict(arch).save(path)
    assert PRUNet(str(path)).spec == PRUNet(path).spec == PRUNet(arch).spec
    assert PRUNet('prunet_p0').spec == load_zoo('prunet_p0')


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(SpecError, match=r'prunet_p9.*prunet_p0, prunet_p1'):
        PRUNet('prunet_p9')


def test_wrong_dict_names_the_field(arch):
    arch['layers'][2]['kernel'] = 4
    with pytest.raises(SpecError, match=r'layers\[2\].kernel'):
        PRUNet(arch)


def test_released_network_has_its_published_parameters():
    net = PRUNet('prunet_p0')
    tail_and_head = 704 * 1984 + 2 * 1984 + 1984 * 1000 + 1000
    assert sum(p.numel() for p in net.parameters()) == 22_815_080 - tail_and_head


def test_frozen_stages_neither_train_nor_move_their_statistics(arch):
    net = PRUNet(arch, frozen_stages=1).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(torch.rand(4, 3, 16, 16))[0].sum().backward()
    for name, parameter in net.named_parameters():
        assert (parameter.grad is None) == name.startswith(('stem', 'stage1'))
    moved = {n.split('.')[0] for n, v in net.state_dict().items() if not torch.equal(v, before[n])}
    assert moved == {'stage2', 'stage4'}


@pytest.mark.parametrize('frozen', [-2, 5])
def test_frozen_stages_outside_of_the_network_are_refused(arch, frozen):
    with pytest.raises(ConfigError, match='frozen_stages'):
        PRUNet(arch, frozen_stages=frozen)


def test_norm_eval_keeps_statistics_but_trains_weights(arch):
    net = PRUNet(arch, norm_eval=True).train()
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert norms
    assert not any(m.training for m in norms)
    assert net.stage1.training
    assert all(p.requires_grad for p in net.parameters())


def test_init_is_kaiming_for_convolutions_and_one_for_norms(arch):
    torch.manual_seed(0)
    net = PRUNet(arch)
    for parameter in net.parameters():
        nn.init.constant_(parameter, 7)
    net.init_weights()
    conv = net.stage4[0].project.conv.weight
    expected = (2 / conv[:, 0].numel()) ** 0.5  # mmengine's default: fan out
    assert conv.std().item() == pytest.approx(expected, rel=0.2)
    assert net.stage4[0].project.bn.weight.eq(1).all()
    assert net.stage4[0].project.bn.bias.eq(0).all()


def test_digits_default_is_one_network_of_the_space_that_the_search_explores(root):
    space = SearchSpace.from_dict(Config.fromfile(root / 'configs/search/prunet_digits.py').space)
    default = NetworkSpec.load(root / 'configs/cls/prunet_digits.json')
    assert space.why_not(default) is None
