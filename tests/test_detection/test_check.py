import pytest
import torch
from mmdet.registry import MODELS
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import init_default_scope
from torch import nn

from prunet_mm.detection.check import require_channels_fit, require_weights
from prunet_mm.errors import CheckpointError, ConfigError

WIDTHS = {1: 4, 2: 6, 3: 8, 4: 10, 5: 12}  # of stages with strides 4, 8, 16, 16 and 32


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def backbone(out_indices, **settings):
    layers, width = [], 4
    for stage, channels in WIDTHS.items():
        layers.append(
            dict(
                op='conv',
                in_channels=width,
                out_channels=channels,
                kernel=3,
                stride=1 if stage == 4 else 2,
                act='relu',
                stage=stage,
                padding=0 if stage == 2 else None,
            )
        )
        width = channels
    stem = dict(op='conv', in_channels=3, out_channels=4, kernel=3, stride=2, act='relu', stage=0)
    arch = dict(schema_version=1, name='tiny', resolution=256, stem=[stem], layers=layers)
    return dict(type='PRUNet', arch=arch, out_indices=out_indices, **settings)


def detector(neck='FPN', out_indices=(2, 4, 5), in_channels=(6, 10, 12), width=8, **head):
    necks = dict(
        FPN=dict(num_outs=5, add_extra_convs='on_input'), BiFPN=dict(num_outs=5, num_cells=1)
    )
    if neck == 'FPN':
        in_channels = list(in_channels)
    return dict(
        type='RetinaNet',
        backbone=backbone(out_indices),
        neck=dict(type=neck, in_channels=in_channels, out_channels=8, **necks[neck]),
        bbox_head=dict(
            type='RetinaHead', num_classes=2, in_channels=width, stacked_convs=1, **head
        ),
    )


@pytest.mark.parametrize('neck', ['FPN', 'BiFPN'])
def test_parts_that_fit_pass_and_stay_as_they_are(neck):
    model = MODELS.build(detector(neck)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    require_channels_fit(model)
    assert model.training and model.neck.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('neck', ['FPN', 'BiFPN'])
@pytest.mark.parametrize('in_channels', [(6, 8, 12), (6, 10), (6, 10, 12, 12)])
def test_a_neck_that_does_not_fit_is_told_what_the_stages_have(neck, in_channels):
    model = MODELS.build(detector(neck, in_channels=in_channels))
    with pytest.raises(ConfigError) as error:
        require_channels_fit(model)
    assert str(error.value) == (
        f'model.neck.in_channels is {list(in_channels)}, but the backbone has 6 in stage 2 (stride '
        '8), 10 in stage 4 (stride 16), 12 in stage 5 (stride 32): list the channels of those in '
        'model.backbone.out_indices'
    )


def test_stages_whose_strides_do_not_double_are_refused():
    model = MODELS.build(detector(out_indices=(2, 3, 4), in_channels=(6, 8, 10)))
    sentence = r'anchors .* \[8, 16, 32, 64, 128\], but the maps of model.neck \[8, 16, 16, 32, 64'
    with pytest.raises(ConfigError, match=sentence):
        require_channels_fit(model)


def test_a_head_of_another_width_is_refused():
    with pytest.raises(ConfigError, match=r'bbox_head.in_channels is 16, .* \[8, 8, 8, 8, 8\]'):
        require_channels_fit(MODELS.build(detector(width=16)))


def test_backbones_of_mmdet_are_checked_too():
    config = detector(in_channels=(128, 256, 512))
    config['backbone'] = dict(type='ResNet', depth=18, out_indices=(1, 2, 3))
    require_channels_fit(MODELS.build(config))
    config['neck']['in_channels'] = [512, 1024, 2048]
    with pytest.raises(ConfigError, match=r'128 in stage 1 \(stride 8\), 256 in stage 2'):
        require_channels_fit(MODELS.build(config))


class Wrapper(MMDistributedDataParallel):
    def __init__(self, module):
        nn.Module.__init__(self)
        self.module = module


class Search(nn.Module):
    def __init__(self, architecture):
        super().__init__()
        self.architecture = architecture


@pytest.mark.parametrize('wrap', [Wrapper, Search, lambda model: Wrapper(Search(model))])
def test_what_wraps_a_detector_is_seen_through(wrap):
    with pytest.raises(ConfigError, match='neck.in_channels'):
        require_channels_fit(wrap(MODELS.build(detector(in_channels=(6, 8, 12)))))


class Picky(nn.Conv2d):
    def forward(self, x):
        raise RuntimeError('images of 224 px only')


def test_what_cannot_be_known_passes():
    model = MODELS.build(detector(in_channels=(6, 8, 12)))
    model.backbone.stem = Picky(3, 4, 1)
    require_channels_fit(model)
    require_channels_fit(nn.Linear(2, 2))


def test_weights_that_are_missing_are_one_sentence(tmp_path):
    path = tmp_path / 'prunet_p0.pth'
    config = detector()
    config['backbone']['init_cfg'] = dict(type='Pretrained', checkpoint=str(path), prefix='a.')
    model = MODELS.build(config)
    with pytest.raises(CheckpointError, match='prunet_p0.pth: there is no such .* the backbone is'):
        require_weights(model)
    path.touch()
    require_weights(model)


def test_weights_that_are_downloaded_or_drawn_pass():
    model = MODELS.build(detector())
    assert model.backbone.init_cfg
    require_weights(model)
    model.backbone.init_cfg = dict(type='Pretrained', checkpoint='torchvision://resnet50')
    require_weights(model)
