"""Runs the shell commands of README and docs, as somebody who follows them would.

    python benchmarks/run_docs.py [--work-dir work_dirs/docs]

In an empty folder beside links to configs/ and tools/, page by page. What takes longer than a
minute on two cores is made shorter by options that are told, words in capitals become files that
are there, and what cannot be run here is told with its reason. The results go to
benchmarks/results/docs_commands.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from prunet_mm.engine.files import write_atomic
from prunet_mm.timing.device import device_name, software

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / 'benchmarks/results/docs_commands.json'
# In an order in which one finds what it takes of those before it.
PAGES = ['index', 'search', 'detection', 'deployment', 'latency', 'your_device', 'your_data']
PAGES = ['README.md', *(f'docs/{page}.md' for page in [*PAGES, 'training', 'trained_weights'])]

# Why a command is not run, by what is in it; the first that fits counts.
LEFT_OUT = {
    r'^make ': 'CI or a target of its own runs it',
    r'^pip ': 'installs',
    r'tensorrt|trtexec|--device cuda|my_card': 'needs a GPU and TensorRT',
    r'_in1k|prunet_coco|resnet50_coco': 'ImageNet or COCO networks, or longer than a minute',
    r'DOWNLOADED': 'no checkpoint of NVIDIA is at hand',
    r'lite0_cifar10|lite0_bccd|--weights FILE|--rule': '`make shrink` runs such, for minutes',
    r'prunet_v100/subnet': 'needs a search on ImageNet',
}
# Options that make a command short, likewise.
SEARCH = (
    'train_cfg.max_iters=40 train_cfg.warmup_iters=10 train_dataloader.num_workers=0 '
    'train_dataloader.batch_size=8 train_cfg.architecture_batch_size=8'
)
SHORTER = {
    r'(build_latency_table|prunet table)': '--max-seconds 15',
    r'(tools/search\.py|prunet search).*(digits_det)': SEARCH.replace('=40', '=14').replace(
        '=8', '=2'
    ),
    r'(tools/search\.py|prunet search)': SEARCH,
    r'train\.py configs/det': 'train_cfg.max_iters=4 default_hooks.checkpoint.interval=4 '
    'train_dataloader.num_workers=0 train_dataloader.batch_size=2',
    r'(train\.py|prunet train)': 'train_cfg.max_epochs=1 default_hooks.checkpoint.interval=1',
    r'benchmark': '--max-seconds 15',
    r'digits_to_coco': '--train 24 --val 4',
}
WORDS = {
    r'\bmy_search\.py|\bMY_SEARCH_CONFIG\.py': 'my_search.py',
    r'\biter_2500\b': 'iter_4',
    r'retinanet_prunet_digits\.onnx IMAGE': 'work_dirs/retinanet_prunet_digits/'
    'retinanet_prunet_digits.onnx IMAGE',
    r'\bCHECKPOINT\b': 'work_dirs/retinanet_prunet_digits/iter_4.pth',
    r'\bIMAGE FOLDER VIDEO\b': 'data/digits_coco/val/000001.jpg data/digits_coco/val clip.avi',
    r'\bCONFIG\b': 'configs/search/prunet_digits.py',
    r'\b(old|new|a|b)\.json': 'work_dirs/tables/digits_cpu.json',
}


def commands(page: str) -> Iterator[str]:
    """The commands of a page's shell blocks, without comments."""
    for block in re.findall(r'```sh\n(.*?)```', (ROOT / page).read_text(), re.S):
        for line in block.replace('\\\n', ' ').splitlines():
            if words := shlex.split(line, comments=True):
                yield shlex.join(words)


def plan(page: str, command: str) -> tuple[str, str]:
    """What is run in place of a command, or nothing, and why.

    Raises:
        ValueError: It has a word that stands for something, and nothing says for what.
    """
    reason = next((why for what, why in LEFT_OUT.items() if re.search(what, command)), None)
    if reason:
        return '', reason
    run = command
    for what, word in WORDS.items():
        run = re.sub(what, word, run)
    options = next((more for what, more in SHORTER.items() if re.search(what, run)), '')
    if '=' in options and '--cfg-options' not in run:
        options = f'--cfg-options {options}'
    if unknown := re.findall(r'(?<![\w/])[A-Z_]{4,}(?![\w/=])', run):
        raise ValueError(f'{page}: {command}: nothing is known of {unknown[0]}')
    return f'{run} {options}'.strip(), options and 'made shorter'


def prepare(folder: Path) -> None:
    """A folder to be in, with pictures to be searched on and a clip."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in ('configs', 'tools'):
        (folder / name).symlink_to(ROOT / name)
    text = (ROOT / 'docs/your_data.md').read_text()
    (folder / 'my_search.py').write_text(re.search(r'```python\n(.*?)```', text, re.S)[1])
    make = (
        'import cv2, numpy as np, pathlib\n'
        'rng = np.random.default_rng(0)\n'
        'for part in ("train", "test"):\n'
        '    for name in "abc":\n'
        '        path = pathlib.Path("data/mine", part, name)\n'
        '        path.mkdir(parents=True)\n'
        '        for i in range(20):\n'
        '            image = rng.integers(0, 255, (32, 32, 3), np.uint8)\n'
        '            cv2.imwrite(str(path / f"{i}.png"), image)\n'
        'clip = cv2.VideoWriter("clip.avi", cv2.VideoWriter_fourcc(*"MJPG"), 5, (128, 128))\n'
        'for _ in range(3):\n'
        '    clip.write(rng.integers(0, 255, (128, 128, 3), np.uint8))\n'
        'clip.release()\n'
    )
    subprocess.run([sys.executable, '-c', make], cwd=folder, check=True)


def call(run: str, folder: Path) -> dict:
    """Run a command in the folder; returns how it ended and what it took."""
    name = re.search(r'prunet_digits_det|prunet_digits|my_search', run)
    if re.search(r'search(\.py)? ', run) and name:  # a reader goes one of several ways
        shutil.rmtree(folder / 'work_dirs' / name[0], ignore_errors=True)
    run = re.sub(r'(?<=targets-ms )[\d. ]+(?= |$)', lambda _: targets(folder), run)
    words = shlex.split(run)
    if words[0] == 'prunet':
        words = ['python', '-m', *words]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(
        [sys.executable if word == 'python' else word for word in words],
        cwd=folder,
        env=os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1'),
        capture_output=True,
        text=True,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    said = (done.stderr if done.returncode else done.stdout).strip().splitlines()
    return dict(
        exit_code=done.returncode,
        said=(said or [''])[-1].replace(str(ROOT), '.')[:300],
        seconds=round(time.monotonic() - started, 1),
        processor_seconds=round(processor, 1),
    )


def targets(folder: Path) -> str:
    """Three latencies in the space of the digits, by the table of this machine."""
    table = ('--table', 'work_dirs/tables/digits_cpu.json', '--json')
    done = subprocess.run(
        [sys.executable, 'tools/predict_latency.py', 'prunet_digits', *table],
        cwd=folder,
        env=os.environ | dict(PYTHONPATH=str(ROOT)),
        capture_output=True,
        check=True,
    )
    least, most = (record['latency_ms'] for record in json.loads(done.stdout))
    return ' '.join(f'{least + share * (most - least):.4g}' for share in (0.4, 0.6, 0.8))


def main() -> None:
    """Run them, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs/docs')
    parser.add_argument('--out', type=Path, default=RESULT)
    args = parser.parse_args()
    folder = args.work_dir.resolve()
    prepare(folder)
    about = dict(command='make docs-run', device=device_name('cpu'), software=software('cpu'))
    results: dict[str, dict] = {}
    for page in PAGES:
        for command in commands(page):
            run, why = plan(page, command)
            if run and run not in results:
                results[run] = call(run, folder)
                print(f'{results[run]["exit_code"]} {run}', flush=True)
            elif not run:
                results.setdefault(command, dict(left_out=why))
            write_atomic(args.out, json.dumps(about | dict(results=results), indent=1) + '\n')
    raise SystemExit(any(row.get('exit_code') for row in results.values()))


if __name__ == '__main__':
    main()
