import json

import pytest

from prunet_mm.errors import ConfigError
from prunet_mm.inference.metadata import Usage
from prunet_mm.inference.preparing import Preparation, Resizing
from prunet_mm.inference.reading import Selection

PREPARATION = Preparation(
    (32, 64), 'rgb', (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), Resizing('fit', (60, 30))
)
USAGE = Usage('raw', ('cat', 'dog'), PREPARATION, Selection(0.05, 100, 0.5, 10, (12, 3)))


@pytest.mark.parametrize(
    'usage', [USAGE, Usage('logits', ('a',), Preparation((8, 8), 'gray')), USAGE]
)
def test_what_is_written_is_read(usage):
    metadata = usage.to_metadata()
    assert all(isinstance(value, str) for value in metadata.values())
    assert Usage.from_metadata(metadata, 'x.onnx') == usage


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (dict(part='backbone'), 'a backbone alone'),
        (dict(output='something'), 'does not say how images are prepared'),
        (dict(preprocessing=None), 'does not say how images are prepared'),
        (dict(preprocessing='{'), 'damaged'),
        (dict(preprocessing='{}'), 'damaged'),
        (dict(preprocessing='[]'), 'damaged'),
        (dict(preprocessing=json.dumps(dict(size=[1, 1], channels='blue'))), "'blue'"),
        (dict(preprocessing=json.dumps(dict(size=[1], channels='rgb', more=1))), 'damaged'),
        (dict(classes=None), 'damaged'),
        (dict(postprocessing='{"levels": []}'), 'damaged'),
    ],
)
def test_what_something_else_wrote_is_refused(change, words):
    metadata = {k: v for k, v in (USAGE.to_metadata() | change).items() if v is not None}
    with pytest.raises(ConfigError, match=f'^x.onnx: .*{words}'):
        Usage.from_metadata(metadata, 'x.onnx')
