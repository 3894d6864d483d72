import itertools
import random

import pytest

from prunet_mm.errors import LatencyTableError
from prunet_mm.latency import LatencyTable, Validation
from prunet_mm.latency.merge import merge


@pytest.fixture
def random_table(make_table, irb):
    """A table of a few random blocks, some of them common to most tables."""

    def make(rng: random.Random) -> LatencyTable:
        keys = [
            irb._replace(hidden=hidden, residual=residual)
            for hidden, residual in itertools.product((8, 16, 24), (None, False))
        ]
        table = make_table(
            {key: rng.choice([0.5, 1.0, 2.0]) for key in rng.sample(keys, rng.randint(1, 6))},
            date=f'2026-01-0{rng.randint(1, 9)}',
            software=dict(torch=rng.choice(['2.10', '2.11']), python='3.11'),
            protocol=dict(rounds=rng.randint(1, 3)),
            network_scale=rng.choice([1.0, 1.1]),
        )
        entries = [
            entry.model_copy(update=dict(samples=rng.randint(1, 3), iqr_ms=rng.choice([0.1, 0.2])))
            for entry in table.entries
        ]
        return table.model_copy(update=dict(entries=tuple(entries)))

    return make


@pytest.mark.parametrize('seed', range(100))
def test_order_and_grouping_do_not_matter(random_table, seed):
    rng = random.Random(seed)
    a, b, c = (random_table(rng) for _ in range(3))
    whole = merge([a, b, c]).to_dict()
    assert merge([merge([a, b]), c]).to_dict() == whole
    assert merge([a, merge([b, c])]).to_dict() == whole
    assert merge([c, a, b]).to_dict() == whole
    assert merge([merge([a, b, c]), b]).to_dict() == whole


def test_the_blocks_are_those_of_all(make_table, irb):
    wide, conv = irb._replace(hidden=16), irb._replace(op='conv', hidden=0)
    merged = merge([make_table({irb: 1.0, wide: 2.0}), make_table({conv: 0.5})])
    assert {entry.key: entry.latency_ms for entry in merged.entries} == {
        irb: 1.0,
        wide: 2.0,
        conv: 0.5,
    }


def test_the_entry_with_more_samples_stays(make_table, irb):
    few, many = make_table({irb: 1.0}), make_table({irb: 2.0})
    (entry,) = many.entries
    many = many.model_copy(update=dict(entries=(entry.model_copy(update=dict(samples=13)),)))
    assert merge([few, many]).block_ms(irb) == merge([many, few]).block_ms(irb) == 2.0


def test_the_provenance_of_every_part_is_kept(make_table, tmp_path):
    old = make_table(date='2026-01-01', software=dict(torch='2.10', python='3.11'))
    new = make_table(date='2026-02-01', software=dict(torch='2.11', python='3.11'))
    merged = merge([old, new])
    merged.save(tmp_path / 'merged.json')
    merged = LatencyTable.load(tmp_path / 'merged.json')
    assert merged.date == '2026-02-01'
    assert merged.software == dict(python='3.11')
    assert [part['software']['torch'] for part in merged.protocol['merged']] == ['2.10', '2.11']


def test_a_fit_that_is_not_of_all_is_left_to_the_parts(make_table):
    validation = Validation(fitted_on=1, predicted_ms=(1.0,), measured_ms=(1.0,))
    fitted = make_table(network_overhead_ms=0.1, network_scale=1.2, validation=validation)
    assert merge([fitted, fitted]).validation == validation
    merged = merge([fitted, make_table(network_overhead_ms=0.1, network_scale=1.1)])
    assert merged.validation is None
    assert (merged.network_overhead_ms, merged.network_scale) == (0.0, 1.0)
    assert {part['network_scale'] for part in merged.protocol['merged']} == {1.1, 1.2}


@pytest.mark.parametrize(
    ('field', 'value', 'sentence'),
    [
        ('kind', 'estimated', 'kind is measured in one and estimated in the other'),
        ('device', 'another', 'device is a device in one and another in the other'),
        ('backend', 'tensorrt', 'backend is eager'),
        ('dtype', 'float16', 'dtype is float32'),
        ('batch', 8, 'batch is 64 in one and 8'),
        ('threads', 2, 'threads is 1 in one and 2'),
    ],
)
def test_tables_that_are_not_alike_are_refused(make_table, field, value, sentence):
    with pytest.raises(LatencyTableError, match=sentence):
        merge([make_table(), make_table(), make_table(**{field: value})])
