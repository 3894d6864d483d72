"""Mutated files through what loads them: an answer or one sentence, never a traceback.

    python benchmarks/fuzz_loaders.py [--examples 2000] [--only KIND ...]

Subnet files, latency tables, annotations in COCO's format and configs are changed at random, as
JSON values and as bytes, by hypothesis, which also makes what fails small. A failure is any
exception that is no `PrunetError`, and a sentence with a line break in it. Results go to
benchmarks/results/fuzz_loaders.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import shlex
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from prunet_mm.datasets.coco_check import check_annotations
from prunet_mm.engine.files import write_atomic
from prunet_mm.errors import DataError, PrunetError
from prunet_mm.spec import NetworkSpec, SearchSpace

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/fuzz_loaders.json'
DIGITS = 'configs/search/prunet_digits.py'

JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([-1, 0, 2**31, 2**63, 10**400])
    | st.floats()
    | st.sampled_from(['', '\n', '..', '/', '\x00', '𝒙' * 300, '__import__("os")', '1'])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
BYTES = st.sampled_from(
    [
        lambda data, at: data[:at],
        lambda data, at: data[:at] + b'\xff' + data[at + 1 :],
        lambda data, at: data[:at] + data[at:] * 2,
        lambda data, at: b'\xef\xbb\xbf' + data,
        lambda data, at: data.decode().encode('utf-16'),
        lambda data, at: b'[' * 100_000 + data,
        lambda data, at: b'',
    ]
)


def places(value: Any, path: tuple = ()) -> list[tuple]:
    """The paths of all values inside of nested dicts and lists."""
    inner = []
    if isinstance(value, (dict, list, tuple)):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    own = [path] if path else []
    return own + [place for key, part in inner for place in places(part, (*path, key))]


@st.composite
def mutated(draw: Callable, document: dict) -> dict:
    """A document with one to three values replaced, gone, twice there, or under other names."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        if not (found := places(document)):
            break
        *parents, key = draw(st.sampled_from(found))
        parent = document
        for step in parents:
            parent = parent[step]
        action = draw(st.sampled_from(['replace', 'replace', 'delete', 'repeat', 'rename']))
        if action == 'replace':
            parent[key] = draw(JUNK)
        elif action == 'delete':
            del parent[key]
        elif isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        else:
            parent[draw(st.text(max_size=4)) if action == 'rename' else f'{key}2'] = parent[key]
    return document


@st.composite
def as_json(draw: Callable, document: dict) -> bytes:
    """The bytes of a mutated document; of one in four, mutated once more."""
    data = json.dumps(draw(mutated(document))).encode()
    if draw(st.integers(0, 3)):
        return data
    return draw(BYTES)(data, draw(st.integers(0, len(data))))


@st.composite
def as_config(draw: Callable, document: dict) -> bytes:
    """A config that sets what is in a mutated document; no text of it is run but its values."""
    changed = draw(mutated(document))
    lines = [f'{key} = {value!r}\n' for key, value in changed.items() if key.isidentifier()]
    return ''.join(lines).encode('utf-8', 'surrogatepass')


class Kind(NamedTuple):
    """What is mutated, how it becomes a file, and what is done with that file."""

    document: Callable[[], dict]
    write: Callable
    load: Callable[[Path], Any]


def network(path: Path) -> None:
    """Loads a network and asks it for all that it knows."""
    spec = NetworkSpec.load(path)
    spec.describe()
    assert NetworkSpec.from_dict(spec.to_dict()) == spec


def table(path: Path) -> None:
    """Loads a latency table and predicts by it."""
    from prunet_mm.latency import LatencyTable

    loaded = LatencyTable.load(path)
    loaded.describe(), loaded.digest
    for entry in loaded.entries:
        assert loaded.block_ms(entry.key) > -1e300


def coco(path: Path) -> None:
    """Checks annotations, without and with those fields that an evaluation needs."""
    for test_mode in (False, True):
        report = check_annotations(
            dict(
                type='CocoDataset',
                data_root=str(path.parent),
                ann_file=path.name,
                data_prefix=dict(img=''),
                metainfo=dict(classes=('cat', 'dog')),
                test_mode=test_mode,
            )
        )
        for sentence in (*report.errors, *report.warnings):
            assert '\n' not in str(sentence), sentence
        if report.errors:
            raise DataError(report.errors[0])


def config(path: Path) -> None:
    """Loads a config and looks at what a search needs before it builds anything."""
    from prunet_mm.datasets.layout import require_data
    from prunet_mm.engine import cli

    cfg = cli.load_config(path)
    cli.require(cfg, 'model', 'train_dataloader', 'train_cfg', 'optim_wrapper')
    require_data(cfg, 'train')
    SearchSpace.from_dict(cfg.get('space'), source='space')


def a_subnet() -> dict:
    """A network as a search writes it."""
    return json.loads((ROOT / 'configs/cls/prunet_digits.json').read_text())


def a_table() -> dict:
    """A latency table of two blocks."""
    layer = dict(in_channels=8, out_channels=8, kernel=3, stride=1, act='relu')
    entries = [
        dict(layer, op='irb', hidden=hidden, se=0, height=8, width=8)
        | dict(latency_ms=0.1, iqr_ms=0.01, samples=9)
        for hidden in (8, 16)
    ]
    validation = dict(fitted_on=1, predicted_ms=[1.0, 2.0], measured_ms=[1.1, 2.1])
    return dict(
        **dict(schema_version=1, kind='measured', device='a CPU', backend='eager'),
        **dict(dtype='float32', batch=1, threads=1, software=dict(torch='2'), date='2026-01-01'),
        **dict(protocol={}, network_overhead_ms=0.1, network_scale=1.1, validation=validation),
        entries=entries,
    )


def annotations() -> dict:
    """Two images with a box each, in COCO's format."""
    image = dict(file_name='1.png', width=8, height=9)
    box = dict(image_id=1, bbox=[1, 2, 3, 4], area=12, iscrowd=0)
    return dict(
        images=[dict(image, id=1), dict(image, id=2)],
        annotations=[dict(box, id=1, category_id=1), dict(box, id=2, category_id=2)],
        categories=[dict(id=1, name='cat'), dict(id=2, name='dog')],
    )


def a_config() -> dict:
    """The search on digits."""
    from mmengine.config import Config

    cfg = Config.fromfile(ROOT / DIGITS).to_dict()
    del cfg['custom_imports']
    return json.loads(json.dumps(cfg))  # lists in place of tuples, which cannot be changed


KINDS = dict(
    subnet=Kind(a_subnet, as_json, network),
    table=Kind(a_table, as_json, table),
    coco=Kind(annotations, as_json, coco),
    config=Kind(a_config, as_config, config),
)


def fuzz(kind: Kind, examples: int, seed: bool = True) -> Counter:
    """Loads so many mutated files.

    Args:
        kind: What is mutated and loaded.
        examples: How many files.
        seed: Whether the same files come every time.

    Returns:
        How many were ``loaded`` and how many ``refused``.
    """
    counts = Counter()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / '1.png').touch()
        path = Path(folder) / ('fuzzed.py' if kind.write is as_config else 'fuzzed.json')

        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=seed,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        )
        @given(kind.write(kind.document()))
        def load(data: bytes) -> None:
            path.write_bytes(data)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter('ignore')
                    kind.load(path)
                counts['loaded'] += 1
            except PrunetError as error:
                counts['refused'] += 1
                assert '\n' not in str(error), str(error)

        load()
    return counts


def main() -> None:
    """Fuzz, and write what came of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--examples', type=int, default=2000, help='files in all')
    parser.add_argument('--only', nargs='+', choices=list(KINDS), default=list(KINDS))
    args = parser.parse_args()
    results = {}
    for name in args.only:
        results[name] = dict(fuzz(KINDS[name], args.examples // len(args.only), seed=False))
        print(name, results[name], flush=True)
    command = shlex.join(['python', *sys.argv])
    write_atomic(RESULT, json.dumps(dict(command=command, results=results), indent=2) + '\n')


if __name__ == '__main__':
    main()
