"""The examples of docs/extending.md that reach the command lines, as they stand there."""

import shutil
import subprocess
import sys

from prunet_mm.timing.backends import BACKENDS

USE = """
import sys
import torch
import prunet_mm
assert prunet_mm.__file__.startswith(sys.argv[1])
from prunet_mm.models import PRUNet
from prunet_mm.spec import SearchSpace
from prunet_mm.supernet import SuperNet

grid = dict(kernels=[3], max_expansion=4, granularity=8)
stage = dict(width=8, stride=2, depth=2, ops=['irb', 'double'], **grid)
tail = dict(num_classes=4)
space = dict(name='s', resolution=16, stem=dict(out_channels=8), stages=[stage], tail=tail)
found = SearchSpace.from_dict(space).network(
    [(place, place.candidates[1], 0) for place in SearchSpace.from_dict(space).positions()]
)
found.save(sys.argv[1] + '/subnet.json')
network = PRUNet(sys.argv[1] + '/subnet.json')
network(torch.randn(2, 3, 16, 16))
learned = sum(weight.numel() for weight in network.parameters())
assert learned == found.params() - found.block_keys()[-1].params(), (learned, found.params())
supernet = SuperNet(space)
assert 'double_k3' in supernet.layers()['stage1.layer2'].candidates
path = {name: 'double_k3' for name in supernet.layers()}
with supernet.on(path):
    supernet(torch.randn(2, 3, 16, 16))
"""


def test_the_backend_is_timed_like_any_other(code_blocks, tool):
    (code,) = code_blocks('extending.md', 'A backend')
    before = dict(BACKENDS)
    try:
        exec(code, {})
        code, out, err = tool(
            *('benchmark_latency', 'configs/det/prunet_digits.json', '--input-size', '32'),
            *('--backend', 'eager,script-optimized', '--max-seconds', '0.5', '--precision', '50'),
        )
    finally:
        BACKENDS.clear()
        BACKENDS.update(before)
    assert code == 0, err
    assert 'script-optimized' in out


def test_the_op_is_a_candidate_once_the_patch_is_applied(code_blocks, root, tmp_path):
    (patch,) = code_blocks('extending.md', 'An op', 'diff')
    shutil.copytree(root / 'prunet_mm', tmp_path / 'prunet_mm', symlinks=True)
    (tmp_path / 'op.diff').write_text(patch)
    subprocess.run(['git', 'init', '-q', '.'], cwd=tmp_path, check=True)
    subprocess.run(['git', 'apply', '-C1', 'op.diff'], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, '-c', USE, str(tmp_path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
