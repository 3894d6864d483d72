"""Every search config describes a space that is possible, with a head that fits it."""

from pathlib import Path

import pytest
from mmengine.config import Config

from prunet_mm.spec import NetworkSpec, SearchSpace, load_zoo

ROOT = Path(__file__).parents[2]
DETECTION = ROOT / 'configs/search/prunet_digits_det.py'
CLASSIFICATION = sorted({*(ROOT / 'configs/search').glob('*.py')} - {DETECTION})


@pytest.mark.parametrize('path', CLASSIFICATION, ids=lambda path: path.stem)
def test_model_and_space_belong_together(path):
    config = Config.fromfile(path)
    space = SearchSpace.from_dict(config.space)
    architecture = config.model.architecture
    assert architecture.backbone.space == config.space
    assert architecture.head.num_classes == space.tail.num_classes
    width = space.stages[-1].width
    assert architecture.head.in_channels == (space.tail.channels or width)
    assert architecture.neck.get('in_channels', width) == width


def test_what_is_searched_in_a_detector_is_trained_in_the_same_one():
    config = Config.fromfile(DETECTION)
    training = Config.fromfile(ROOT / config.train_config)
    searched, trained = config.model.architecture, training.model
    supernet, network = searched.pop('backbone'), trained.pop('backbone')
    assert searched == trained
    assert config.train_dataloader.dataset == training.train_dataloader.dataset
    assert supernet.space == config.space
    assert supernet.out_indices == network.out_indices
    space = SearchSpace.from_dict(config.space)
    widths = [space.stages[stage - 1].width for stage in supernet.out_indices]
    assert searched.neck.in_channels == widths
    assert space.why_not(NetworkSpec.load(network.arch)) is None


def test_the_v100_space_contains_the_released_prunets():
    space = SearchSpace.from_dict(Config.fromfile(ROOT / 'configs/search/prunet_v100.py').space)
    for name in ('prunet_p0', 'prunet_p1'):
        assert space.why_not(load_zoo(name)) is None
