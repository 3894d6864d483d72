"""Measures models against each other: targets by backends by batches, taking turns."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from prunet_mm.comparing.targets import Subject
from prunet_mm.errors import PrunetError, one_line
from prunet_mm.timing import Settings
from prunet_mm.timing.agreement import check, tensors
from prunet_mm.timing.backends import BACKENDS
from prunet_mm.timing.conditions import watched
from prunet_mm.timing.engine import Protocol, Stop, Target, deployed, measure, stopwatch_for
from prunet_mm.timing.journal import Journal
from prunet_mm.timing.memory import NO_MEMORY
from prunet_mm.timing.samples import Measurement

PROTOCOL = Protocol(visit_ms=20, max_seconds=20)
INPUTS = 4


@dataclass(eq=False)
class Job:
    """One row of a comparison.

    Attributes:
        subject: What is timed.
        settings: What runs it, and how.
        error: Why there are no samples of it, or none any more, in one line.
    """

    subject: Subject
    settings: Settings
    error: str | None = None

    def __str__(self) -> str:
        return f'{self.subject} ({self.settings.backend}, batch {self.settings.batch})'


class Benchmark:
    """A comparison on one device; it can be interrupted, and has then what was measured so far.

    Args:
        subjects: What to compare.
        settings: How to run each, by backend and batch; of one device, dtype and number of threads.

    Attributes:
        jobs: The rows: subjects by settings.
        clocks: What a GPU's clock did meanwhile, in a sentence, if it told.

    Raises:
        ConfigError: There is no such device here, or a backend is not installed, or runs neither on
            that device nor in that type.
    """

    def __init__(self, subjects: Sequence[Subject], settings: Sequence[Settings]) -> None:
        for one in settings:
            one.require()
        self.common = settings[0]
        self.jobs = [Job(subject, one) for subject in subjects for one in settings]
        self.stopwatch = stopwatch_for(self.common)
        self.journal, self.clocks = Journal(None, {}), []

    @property
    def measurement(self) -> Measurement:
        """The samples so far; the label of a job is its index, and a failed one has none."""
        visits = self.journal.visits
        return Measurement([one for one in visits if not self.jobs[one.labels[0]].error])

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

        def failed(stop: Stop, error: Exception) -> None:
            del targets[stop.labels[0]]
            self.jobs[stop.labels[0]].error = _sentence(error)

        with deployed(self.common):
            given: dict[int, tuple[list[Tensor], list[Tensor]]] = {}  # by batch, of one subject
            for index, job in enumerate(self.jobs):
                progress(0.0, f'preparing {job}')
                if job.subject is not self.jobs[index - 1].subject:
                    given.clear()
                try:
                    if job.settings.batch not in given:
                        given[job.settings.batch] = self._given(job)
                    targets[index] = self._target(job, *given[job.settings.batch])
                except Exception as error:  # models and backends may raise anything
                    job.error = _sentence(error)
                if job.error:  # only now, since the error held on to what it came across
                    gc.collect()
                    torch.cuda.empty_cache()
            given.clear()
            with watched(self.common.device) as self.clocks:
                measure(
                    lambda number: [Stop([i], partial(targets.get, i)) for i in targets],
                    protocol,
                    self.stopwatch,
                    self.journal,
                    progress=lambda done: progress(done, 'measuring'),
                    failed=failed,
                    enough=lambda visits: self.measurement.uncertainty <= protocol.precision,
                )

    def _given(self, job: Job) -> tuple[list[Tensor], list[Tensor]]:
        """Random images, and what the model makes of the last of them in eager float32."""
        shape = job.settings.batch, *job.subject.shape
        images = [torch.randn(shape) for _ in range(INPUTS)]
        backend = BACKENDS['eager'](job.settings.device)
        x = backend.convert(images[-1], torch.float32)
        model = backend.prepare(job.subject.model, [x], torch.float32)
        return images, list(tensors(model(x)))

    def _target(self, job: Job, images: list[Tensor], expected: list[Tensor]) -> Target:
        settings = job.settings
        backend = BACKENDS[settings.backend](settings.device, settings.threads)
        dtype = getattr(torch, settings.dtype)
        inputs = [backend.convert(image, dtype) for image in images]
        call = backend.prepare(job.subject.model, inputs, dtype)
        # Of the last one, since some backends have seen the first already.
        outputs = call(inputs[-1])
        check(outputs, expected, settings.dtype)
        if job.subject.after:
            call = job.subject.after.behind(call, outputs)
        return Target([call], inputs)


def _sentence(error: Exception) -> str:
    if isinstance(error, PrunetError):
        return str(error)
    if isinstance(error, MemoryError) or NO_MEMORY.search(str(error)):
        wanted = re.search(r'tried to allocate (\d+) bytes', str(error))
        more = f' when {int(wanted[1]) / 2**30:.1f} GiB were asked for' if wanted else ''
        return f'out of memory{more}'
    return one_line(error)
