import pytest
import torch
from mmcv.cnn.bricks import DropPath
from mmengine.config import Config
from torch import nn

from prunet_mm.errors import CheckpointError, ConfigError, SpecError
from prunet_mm.models import PRUNet
from prunet_mm.spec import NetworkSpec, SearchSpace, load_zoo, zoo_names


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


def test_a_base_is_changed_field_by_field():
    stem = load_zoo('prunet_p0').to_dict()['stem']
    stem[0]['stride'] = 1
    net = PRUNet(dict(base='prunet_p0', name='mine', resolution=32, stem=stem), out_indices=(6,))
    assert (net.spec.name, net.spec.resolution) == ('mine', 32)
    assert net.spec.layers == load_zoo('prunet_p0').layers
    assert net.out_strides == (32,)
    with pytest.raises(SpecError, match=r'PRUNet: arch: resolutoin: unknown field'):
        PRUNet(dict(base='prunet_p0', resolutoin=32))


def test_norms_have_the_spec_s_eps_unless_told_otherwise(arch):
    def eps(**kwargs):
        net = PRUNet({**arch, 'norm_eps': 1e-5}, **kwargs)
        return {m.eps for m in net.modules() if isinstance(m, nn.BatchNorm2d)}

    assert eps() == eps(norm_cfg=dict(type='BN')) == {1e-5}
    assert eps(norm_cfg=dict(type='BN', eps=0.1)) == {0.1}


def test_drop_path_rises_from_nothing_to_its_rate(arch):
    net = PRUNet(arch, drop_path_rate=0.3)
    rates = [m.drop_prob for m in net.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])
    with pytest.raises(ConfigError, match='drop_path_rate is 1'):
        PRUNet(arch, drop_path_rate=1)


def test_recomputing_activations_changes_neither_gradients_nor_statistics(arch):
    plain, saving = PRUNet(arch).train(), PRUNet(arch, with_cp=True).train()
    saving.load_state_dict(plain.state_dict())
    x = torch.rand(4, 3, 16, 16)
    for net in (plain, saving):
        net(x)[0].square().sum().backward()
    for one, two in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad)
    for one, two in zip(plain.buffers(), saving.buffers(), strict=True):
        torch.testing.assert_close(one, two)


def test_recomputing_saves_memory(arch):
    def saved(net):
        sizes = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda x: sizes.append(x.numel()) or x, lambda x: x
        ):
            net(torch.rand(4, 3, 16, 16, requires_grad=True))
        return sum(sizes)

    assert saved(PRUNet(arch, with_cp=True)) < 0.5 * saved(PRUNet(arch))


@pytest.mark.parametrize('name', zoo_names())
def test_every_network_of_the_zoo_at_two_resolutions(name):
    net = PRUNet(name, out_indices=sorted(load_zoo(name).out_channels), frozen_stages=1).train()
    for size in (96, 128):
        outs = net(torch.rand(2, 3, size, size))
        spec = NetworkSpec.from_dict({**net.spec.to_dict(), 'resolution': size})
        last = {
            layer.stage: pixels
            for layer, pixels in zip(
                spec.layers, spec.feature_sizes()[len(spec.stem) :], strict=True
            )
        }
        assert [tuple(out.shape[1:]) for out in outs] == [
            (channels, *pixels)
            for channels, pixels in zip(net.out_channels, last.values(), strict=True)
        ]
    sum(out.mean() for out in outs).backward()
    for key, parameter in net.named_parameters():
        assert (parameter.grad is None) == key.startswith(('stem', 'stage1.'))


@pytest.mark.parametrize('name', zoo_names())
def test_every_network_of_the_zoo_deploys_to_the_same_outputs(name):
    net = randomised(PRUNet(name)).eval()
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        before = net(x)[0]
        net.switch_to_deploy()
        after = net(x)[0]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert (after - before).abs().max() <= 1e-5 * before.abs().max()
    PRUNet(name, deploy=True).load_state_dict(net.state_dict())


def randomised(net):
    """Statistics and affine weights as a training leaves them: not zero and one."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return net


def test_weights_of_another_network_are_refused(arch):
    weights = {f'backbone.{key}': value for key, value in PRUNet(arch).state_dict().items()}
    other = dict(arch, layers=[*arch['layers'][:3], dict(arch['layers'][3], hidden=24)])
    model = nn.ModuleDict(dict(backbone=PRUNet(other)))
    with pytest.raises(CheckpointError, match=r"'backbone.stage4.0.expand.conv.weight' has shape"):
        model.load_state_dict(weights, strict=False)
    missing = {key: value for key, value in weights.items() if 'stage4' not in key}
    with pytest.raises(CheckpointError, match=r"'backbone.stage4.0.expand.conv.weight' is missing"):
        model.load_state_dict(missing, strict=False)
    with pytest.raises(CheckpointError, match=r'none of its keys .*gpunet_to_prunet'):
        model.load_state_dict({'network.head: 2.net.0.weight': torch.zeros(1)}, strict=False)


def test_weights_that_init_cfg_names_are_refused_with_their_file(arch, tmp_path):
    path = str(tmp_path / 'other.pth')
    torch.save({f'backbone.{key}': x for key, x in PRUNet(arch).state_dict().items()}, path)
    init_cfg = dict(type='Pretrained', checkpoint=path, prefix='backbone.')
    same = PRUNet(arch, init_cfg=init_cfg)
    same.init_weights()
    for key, value in same.state_dict().items():
        assert torch.equal(value, torch.load(path)[f'backbone.{key}'])
    with pytest.raises(CheckpointError, match='other.pth.*do not fit the network .prunet_p0'):
        PRUNet('prunet_p0', init_cfg=init_cfg).init_weights()


def test_stages_that_no_output_needs_are_not_built(arch):
    whole = PRUNet(arch)
    part = PRUNet(arch, out_indices=(1, 2), frozen_stages=4).train()
    assert not hasattr(part, 'stage4')
    assert part.load_state_dict(whole.state_dict()).missing_keys == []
    x = torch.rand(2, 3, 16, 16)
    first = whole.eval().stage1(whole.stem(x))
    torch.testing.assert_close(part.eval()(x), (first, whole.stage2(first)))


def test_weights_of_a_larger_network_are_refused(arch):
    weights = PRUNet(arch).state_dict()
    shorter = PRUNet(dict(arch, layers=arch['layers'][:3]))
    with pytest.raises(CheckpointError, match=r"'stage4.0.expand.conv.weight' is no part of it"):
        shorter.load_state_dict(weights, strict=False)


def test_digits_default_is_one_network_of_the_space_that_the_search_explores(root):
    space = SearchSpace.from_dict(Config.fromfile(root / 'configs/search/prunet_digits.py').space)
    default = NetworkSpec.load(root / 'configs/cls/prunet_digits.json')
    assert space.why_not(default) is None
