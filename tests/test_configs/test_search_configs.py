"""Every search config describes a space that is possible, with a head that fits it."""

from pathlib import Path

import pytest
from mmengine.config import Config

from prunet_mm.spec import SearchSpace, load_zoo

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/search').glob('*.py'))


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_model_and_space_belong_together(path):
    config = Config.fromfile(path)
    space = SearchSpace.from_dict(config.space)
    architecture = config.model.architecture
    assert architecture.backbone.space == config.space
    assert architecture.head.num_classes == space.tail.num_classes
    width = space.stages[-1].width
    assert architecture.head.in_channels == (space.tail.channels or width)
    assert architecture.neck.get('in_channels', width) == width


def test_the_v100_space_contains_the_released_prunets():
    space = SearchSpace.from_dict(Config.fromfile(ROOT / 'configs/search/prunet_v100.py').space)
    for name in ('prunet_p0', 'prunet_p1'):
        assert space.why_not(load_zoo(name)) is None
