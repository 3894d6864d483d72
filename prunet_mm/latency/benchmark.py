"""Measures models against each other: targets by backends by batches, taking turns."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prunet_mm.errors import ConfigError, PrunetError
from prunet_mm.latency.agreement import check, tensors
from prunet_mm.latency.backends import BACKENDS, require
from prunet_mm.latency.backends.onnx_model import OnnxFile
from prunet_mm.latency.device import require_device
from prunet_mm.latency.measure import (
    Measurement,
    Protocol,
    Target,
    deployed,
    measure,
    stopwatch_for,
)
from prunet_mm.latency.memory import failing_allocations, give_back_freed_memory
from prunet_mm.latency.network import random_inputs
from prunet_mm.latency.targets import Subject, load_spec, one_line
from prunet_mm.spec import NetworkSpec

PROTOCOL = Protocol(visit_ms=20, max_seconds=20)
NO_MEMORY = re.compile(r"(can't|cannot|could not|failed to) allocate|out of memory|bad_alloc", re.I)


@dataclass(eq=False)
class Job:
    """One row of a comparison.

    Attributes:
        subject: What is timed.
        backend: What runs it: a key of `BACKENDS`.
        batch: Images per pass.
        error: Why there are no samples of it, or none any more, in one line.
    """

    subject: Subject
    backend: str
    batch: int
    error: str | None = None

    def __str__(self) -> str:
        return f'{self.subject} ({self.backend}, batch {self.batch})'


class Benchmark:
    """A comparison on one device; it can be interrupted, and has then what was measured so far.

    Args:
        subjects: What to compare.
        device: 'cpu', 'cuda' or 'cuda:N'.
        backends: Keys of `BACKENDS`; None for eager, and ONNX Runtime for ONNX files.
        dtype: What to compute in: 'float32', 'float16' or 'bfloat16'.
        batches: Images per pass.
        threads: CPU threads.

    Attributes:
        jobs: The rows: subjects by backends by batches.
        measurement: The samples; the label of a job is its index.

    Raises:
        ConfigError: There is no such device here, a backend is not installed, or runs neither on
            that device nor in that type, or none of them runs one of the subjects.
    """

    def __init__(
        self,
        subjects: Sequence[Subject],
        device: str = 'cpu',
        backends: Sequence[str] | None = None,
        dtype: str = 'float32',
        batches: Sequence[int] = (1,),
        threads: int = 1,
    ) -> None:
        require_device(device)
        self.device, self.dtype, self.threads = device, dtype, threads
        self.jobs = [
            Job(subject, backend, batch)
            for subject in subjects
            for backend in _backends(subject, backends)
            for batch in batches
        ]
        require(dict.fromkeys(job.backend for job in self.jobs), device, dtype)
        if any(isinstance(subject.model, OnnxFile) for subject in subjects):
            require(['onnxruntime'], 'cpu')  # what the outputs are checked against
        self.stopwatch = stopwatch_for(device, threads)
        self.measurement = Measurement(clock=self.stopwatch.name)

    def run(
        self,
        protocol: Protocol = PROTOCOL,
        progress: Callable[[float, str], None] = lambda done, doing: None,
    ) -> None:
        """Prepares, checks and times all jobs.

        What goes wrong with one of them, such as no memory, goes to its `Job.error`, and the others
        go on without it.

        Args:
            protocol: How long to measure.
            progress: Gets the part that is done, from 0 to 1, and what is being done.
        """
        targets: dict[int, Target] = {}
        given: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # by batch, of one subject

        def failed(target: Target, error: Exception) -> None:
            ((index, _),) = target.steps
            del targets[index]
            self._fail(index, error)

        with deployed(self.device, self.threads):
            for index, job in enumerate(self.jobs):
                progress(0.0, f'preparing {job}')
                if job.subject is not self.jobs[index - 1].subject:
                    given.clear()
                try:
                    with failing_allocations(self.device):
                        if job.batch not in given:
                            given[job.batch] = self._given(job)
                        targets[index] = self._target(index, job, *given[job.batch])
                except Exception as error:  # models and backends may raise anything
                    self._fail(index, error)
                if job.error:  # only now, since the error held on to what it came across
                    self._give_back()
            given.clear()
            measure(
                lambda: list(targets.values()),
                protocol,
                self.stopwatch,
                lambda done: progress(done, 'measuring'),
                into=self.measurement,
                failed=failed,
            )

    def _given(self, job: Job) -> tuple[list[Tensor], list[Tensor]]:
        """Random images, and what the model makes of the last of them in eager float32."""
        model, images = job.subject.model, random_inputs((job.batch, *job.subject.shape))
        if isinstance(model, OnnxFile):
            backend = BACKENDS['onnxruntime']('cpu', self.threads)
        else:
            backend = BACKENDS['eager'](self.device)
        x = backend.convert(images[-1], torch.float32)
        return images, list(tensors(backend.prepare(model, [x], torch.float32)(x)))

    def _target(self, index: int, job: Job, images: list[Tensor], expected: list[Tensor]) -> Target:
        backend = BACKENDS[job.backend](self.device, self.threads)
        dtype = getattr(torch, self.dtype)
        inputs = [backend.convert(image, dtype) for image in images]
        call = backend.prepare(job.subject.model, inputs, dtype)
        # Of the last one, since some backends have seen the first already.
        outputs = call(inputs[-1])
        check(outputs, expected, self.dtype)
        if job.subject.after:
            call = job.subject.after.behind(call, outputs)
        return Target([(index, call)], inputs)

    def _fail(self, index: int, error: Exception) -> None:
        self.jobs[index].error = _sentence(error)
        self.measurement.forget(index)

    def _give_back(self) -> None:
        """Leaves the memory of what failed to the others."""
        gc.collect()
        if self.device == 'cpu':
            give_back_freed_memory()
        else:
            torch.cuda.empty_cache()


def _backends(subject: Subject, names: Sequence[str] | None) -> list[str]:
    """Those of the backends that run a subject."""
    is_file = isinstance(subject.model, OnnxFile)
    if names is None:
        return ['onnxruntime' if is_file else 'eager']
    found = [name for name in names if BACKENDS[name].reads_onnx or not is_file]
    if not found:
        readers = [name for name, backend in BACKENDS.items() if backend.reads_onnx]
        raise ConfigError(
            f'{subject.name} is run by {", ".join(readers)}, not by {" or ".join(names)}: '
            f'say --backend {readers[0]}'
        )
    return found


def _sentence(error: Exception) -> str:
    if isinstance(error, PrunetError):
        return str(error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        wanted = re.search(r'tried to allocate (\d+) bytes', str(error))
        more = f' when {int(wanted[1]) / 2**30:.1f} GiB were asked for' if wanted else ''
        return f'out of memory{more}'
    return one_line(error)


def measure_networks(
    specs: Sequence[NetworkSpec],
    device: str = 'cpu',
    batch: int = 1,
    threads: int = 1,
    backend: str = 'eager',
    dtype: str = 'float32',
    protocol: Protocol = PROTOCOL,
) -> Measurement:
    """Times networks with random weights, taking turns.

    Args:
        specs: The networks; each gets images of its own resolution.
        device: 'cpu', 'cuda' or 'cuda:N'.
        batch: Images per pass.
        threads: CPU threads.
        backend: A key of `BACKENDS`.
        dtype: What to compute in: 'float32', 'float16' or 'bfloat16'.
        protocol: How long to measure.

    Returns:
        The samples; the label of a network is its index in ``specs``.

    Raises:
        ConfigError: There is no such device here, or the backend is not installed.
        PrunetError: A network cannot be run so; says why.
    """
    subjects = [load_spec(spec) for spec in specs]
    bench = Benchmark(subjects, device, [backend], dtype, [batch], threads)
    bench.run(protocol)
    for job in bench.jobs:
        if job.error:
            raise PrunetError(f'{job}: {job.error}')
    return bench.measurement
