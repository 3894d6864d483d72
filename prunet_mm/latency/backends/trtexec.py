"""``trtexec``, TensorRT's own program, for where its Python package is not installed."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from prunet_mm.errors import PrunetError
from prunet_mm.latency.backends.base import SelfTimed

FLAGS = {torch.float32: [], torch.float16: ['--fp16'], torch.bfloat16: ['--bf16']}
FORMATS = {torch.float32: 'fp32', torch.float16: 'fp16', torch.bfloat16: 'bf16'}
# Of one visit: milliseconds of warm-up, then seconds that are timed.
WARM_UP_MS, SECONDS = 200, 1


class TrtExec(SelfTimed):
    """An engine that ``trtexec`` builds once, and runs and times anew for each visit.

    The times are trtexec's "GPU compute time": a CUDA graph, data on the device already.

    Args:
        data: An ONNX model of fixed shapes in float32.
        dtype: What inputs and outputs are, and layers may be computed in.
        device: Number of the GPU.

    Raises:
        PrunetError: trtexec fails; with the last thing it says.
    """

    def __init__(self, data: bytes, dtype: torch.dtype, device: int = 0) -> None:
        self.dtype = dtype
        self._place = TemporaryDirectory(prefix='trtexec')
        self._folder = Path(self._place.name)
        self._device = f'--device={device}'
        self._input = _input_name(data)
        (self._folder / 'model.onnx').write_bytes(data)
        self._trtexec(
            *('--onnx=model.onnx', '--saveEngine=engine', '--skipInference', *FLAGS[dtype]),
            f'--inputIOFormats={FORMATS[dtype]}:chw',
            f'--outputIOFormats={FORMATS[dtype]}:chw',
        )

    def __call__(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        x.contiguous().view(torch.uint8).numpy().tofile(self._folder / 'input')
        self._trtexec(
            *('--loadEngine=engine', f'--loadInputs={self._input}:input'),
            *('--exportOutput=output.json', '--iterations=1', '--duration=0', '--warmUp=0'),
        )
        outputs = tuple(map(_tensor, self._read('output.json')))
        return outputs[0] if len(outputs) == 1 else outputs

    def samples_ms(self, x: Tensor) -> list[float]:
        self._trtexec(
            *('--loadEngine=engine', '--exportTimes=times.json', '--useCudaGraph'),
            *('--noDataTransfers', '--useSpinWait', f'--warmUp={WARM_UP_MS}'),
            f'--duration={SECONDS}',
        )
        return [float(record['computeMs']) for record in self._read('times.json')]

    def _trtexec(self, *args: str) -> None:
        command = ['trtexec', *args, self._device]
        done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip() or 'nothing').splitlines()[-1]
            raise PrunetError(f'trtexec ended with code {done.returncode}: {said}')

    def _read(self, name: str) -> list[dict]:
        try:
            text = (self._folder / name).read_text()
            return json.loads(re.sub(r'-?\bnan\b', 'NaN', re.sub(r'\binf\b', 'Infinity', text)))
        except (OSError, ValueError) as error:
            raise PrunetError(f'trtexec wrote no {name} that can be read') from error


def _input_name(data: bytes) -> str:
    import onnx

    graph = onnx.load_from_string(data).graph
    weights = {x.name for x in graph.initializer}
    return next(x.name for x in graph.input if x.name not in weights)


def _tensor(record: dict) -> Tensor:
    shape = [int(side) for side in record['dimensions'].split('x')]
    return torch.tensor(record['values'], dtype=torch.float32).reshape(shape)
