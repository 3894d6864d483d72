import pytest

from prunet_mm.latency import Entry, LatencyTable
from prunet_mm.spec import BlockKey, SearchSpace

WIDTHS = (8, 16, 24)
# Not monotone, as measured latencies are not: 16 is dearer than 24.
LATENCIES_MS = (1.0, 3.0, 2.0)


@pytest.fixture
def space() -> SearchSpace:
    return SearchSpace.from_dict(
        dict(
            name='tiny',
            resolution=4,
            in_channels=1,
            stem=dict(out_channels=4, stride=1),
            stages=[
                dict(width=4, stride=2, depth=2, ops=['irb', 'conv'], kernels=[3], granularity=8)
            ],
            tail=dict(num_classes=2),
        )
    )


@pytest.fixture
def irb() -> BlockKey:
    return BlockKey('irb', 4, 4, 8, 3, 1, 'relu', 0, 8, 8)


@pytest.fixture
def make_table(irb):
    """A table of one irb at three hidden widths and one conv; fields can be replaced."""

    def make(entries=None, iqr_ms=0.0, **fields) -> LatencyTable:
        entries = entries or {
            irb._replace(op='conv', hidden=0): 0.5,
            **{irb._replace(hidden=w): ms for w, ms in zip(WIDTHS, LATENCIES_MS, strict=True)},
        }
        head = dict(
            kind='measured',
            device='a device',
            backend='eager',
            dtype='float32',
            batch=64,
            threads=1,
            software=dict(torch='2'),
            date='2026-01-31',
            protocol=dict(rounds=3),
        )
        rows = [
            Entry(**key._asdict(), latency_ms=ms, iqr_ms=iqr_ms, samples=12)
            for key, ms in entries.items()
        ]
        return LatencyTable(**(head | dict(entries=rows) | fields))

    return make
