import importlib.util

import pytest


@pytest.fixture(scope='module')
def bench(root):
    spec = importlib.util.spec_from_file_location('f', root / 'benchmarks/fuzz_loaders.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ('kind', 'examples'), [('subnet', 100), ('table', 100), ('coco', 100), ('config', 25)]
)
def test_a_mutated_file_is_loaded_or_refused_in_one_sentence(bench, kind, examples):
    counts = bench.fuzz(bench.KINDS[kind], examples)  # the same ones every time
    assert counts['refused']
    assert counts.total() >= examples


def test_a_traceback_is_found_and_made_small(bench):
    def load(path):
        document = bench.json.loads(path.read_bytes())
        return 1 / bool(document['images'])

    with pytest.raises((ValueError, TypeError, KeyError, ZeroDivisionError)):
        bench.fuzz(bench.KINDS['coco']._replace(load=load), 100)
