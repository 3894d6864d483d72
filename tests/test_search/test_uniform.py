from prunet_mm.latency import LatencyTable
from prunet_mm.search.uniform import uniform_networks
from prunet_mm.spec import SearchSpace

SPACE = dict(
    name='tiny',
    resolution=8,
    stem=dict(out_channels=4, stride=1),
    stages=[dict(width=8, stride=2, depth=2, ops=['irb'], kernels=[3], granularity=8)],
    tail=dict(num_classes=2),
)


def test_they_fit_and_a_larger_share_counts_although_a_smaller_one_does_not(synthetic_table):
    space, table = SearchSpace.from_dict(SPACE), synthetic_table(SPACE)
    widest = space.largest()
    budget_ms = table.predict_ms(widest)
    largest, second = (sorted({one.hidden for one in table.entries})[n] for n in (-1, -2))
    entries = [
        one.model_copy(
            update=dict(latency_ms=one.latency_ms * (100 if one.hidden == second else 1))
        )
        for one in table.entries
    ]
    uneven = LatencyTable.from_dict(table.model_copy(update=dict(entries=entries)).to_dict())
    found = uniform_networks(space, uneven, budget_ms)
    assert all(uneven.predict_ms(spec) <= budget_ms * (1 + 1e-9) for spec in found.values())
    assert {layer.hidden for layer in found['depth2_irb_k3'].layers} <= {
        layer.hidden for layer in widest.layers
    }
    assert max(layer.hidden for layer in found['depth2_irb_k3'].layers) == largest
