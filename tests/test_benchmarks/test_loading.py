import runpy
from pathlib import Path

import pytest

BENCHMARKS = sorted((Path(__file__).resolve().parents[2] / 'benchmarks').glob('*.py'))


@pytest.mark.parametrize('path', BENCHMARKS, ids=lambda path: path.stem)
def test_a_benchmark_finds_all_that_it_imports(path, monkeypatch):
    monkeypatch.syspath_prepend(path.parent)
    assert runpy.run_path(str(path))['__doc__']
