"""Streams of batches that are pure functions of a seed, the stream's name and a position.

A search draws from two parts of the training set. Which image comes at a position of a stream, and
how it is augmented, depends on nothing else: not on workers, not on the other stream, not on what
ran before. So a resumed search goes on exactly where it was, without any state of a loader.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import signal
from collections.abc import Callable, Iterator, Sequence
from itertools import count, islice
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_rank, get_world_size
from torch.utils.data import DataLoader, Dataset, Sampler

from prunet_mm.errors import DataError


def split_indices(
    labels_or_len: Sequence[int] | int, architecture_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a training set into a part for the weights and one for the architecture.

    Args:
        labels_or_len: The label of every image, to keep the share of every class, or their number.
        architecture_fraction: Share of the second part, between 0 and 1.
        seed: Of the choice.

    Returns:
        The indices of both parts, sorted and disjoint. Every class is divided by the fraction to
        within one image.

    Raises:
        DataError: One of the parts would be empty.
    """
    labels = np.zeros(labels_or_len) if np.ndim(labels_or_len) == 0 else labels_or_len
    total = len(labels)
    chosen = round(total * architecture_fraction)
    if not 0 < chosen < total:
        raise DataError(
            f'{total} training images cannot be split with {architecture_fraction:g} of them for '
            'the architecture: both parts need at least one'
        )
    shuffled = _shuffle(total, seed, 'split')
    by_class = shuffled[np.argsort(np.asarray(labels)[shuffled], kind='stable')]
    # Evenly spaced through images sorted by class: proportional in each, exact in total.
    ranks = np.arange(total + 1) * chosen // total
    architecture = ranks[1:] > ranks[:-1]
    return np.sort(by_class[~architecture]), np.sort(by_class[architecture])


def split_dataset(
    dataset: Any, architecture_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Splits a training set by its images: one that is there more than once is in one part alone.

    Args:
        dataset: An mmengine data set, or a wrapper of some, such as `RepeatDataset`.
        architecture_fraction: Share of the images in the second part, between 0 and 1.
        seed: Of the choice.

    Returns:
        The indices into ``dataset`` of both parts, as of :func:`split_indices`, which divides the
        images of a wrapper as it does those of what is wrapped.

    Raises:
        DataError: One of the parts would be empty.
    """
    wrapped = hasattr(dataset, 'dataset') or hasattr(dataset, 'datasets')
    if not wrapped and not _has_files(dataset):
        labels = getattr(dataset, 'get_gt_labels', None)
        return split_indices(labels() if labels else len(dataset), architecture_fraction, seed)
    samples: dict[Any, list[int]] = {}
    labels = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        of_image = samples.setdefault(_identity(info), [])
        if not of_image:
            labels.append(info.get('gt_label'))
        of_image.append(index)
    labelled = all(np.ndim(label) == 0 and label is not None for label in labels)
    parts = split_indices(labels if labelled else len(labels), architecture_fraction, seed)
    indices = list(samples.values())
    return tuple(np.sort(np.concatenate([indices[i] for i in part])) for part in parts)


def _has_files(dataset: Any) -> bool:
    """Whether its images are files, of which a list may name one twice."""
    return hasattr(dataset, 'get_data_info') and 'img_path' in dataset.get_data_info(0)


def _identity(info: dict) -> Any:
    """What two samples of one image have in common: its file or, where it has none, its pixels."""
    if 'img_path' in info:
        return os.path.abspath(info['img_path'])
    if 'img' in info:
        return np.shape(info['img']), np.asarray(info['img']).tobytes()
    return info.get('sample_idx')


class StreamItem(NamedTuple):
    """One element of a stream: its position, and the index of its image in the data set."""

    position: int
    index: int


class StreamSampler(Sampler):
    """The endless order of images in a stream, one random permutation after the other.

    Positions count over all processes. Rank r takes every world_size-th one from ``start + r`` on,
    so each image of a permutation is drawn once, whatever their number.

    Args:
        indices: The images of the stream, as indices into the data set.
        seed: Of the permutations.
        stream: Name of the stream; streams of other names are independent.
        start: Position of the first element, over all processes.
        rank: Of this process.
        world_size: Number of processes.

    Raises:
        DataError: There are no images.
    """

    def __init__(
        self,
        indices: Sequence[int],
        seed: int,
        stream: str | int,
        start: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if len(indices) == 0:
            raise DataError(f'the data stream {stream!r} has no images')
        self.indices, self.seed, self.stream = np.asarray(indices), seed, stream
        self.first, self.step = start + rank, world_size

    def __iter__(self) -> Iterator[StreamItem]:
        size, epoch, order = len(self.indices), None, None
        for position in count(self.first, self.step):
            if position // size != epoch:
                epoch = position // size
                order = self.indices[_shuffle(size, self.seed, self.stream, epoch)]
            yield StreamItem(position, int(order[position % size]))


class StreamDataset(Dataset):
    """A data set whose augmentation of a :class:`StreamItem` depends on its position alone.

    Covers what mmcv's, mmpretrain's and torchvision's transforms draw from: the global generators
    of Python, numpy and torch. What keeps a generator or samples of its own (albumentations, cached
    mosaics) is not covered.

    Args:
        dataset: An mmengine data set, or any with ``__getitem__``.
        seed: Of the augmentation.
        stream: Name of the stream.
    """

    def __init__(self, dataset: Any, seed: int, stream: str | int) -> None:
        self.dataset, self.seed, self.stream = dataset, seed, stream

    @property
    def metainfo(self) -> dict:
        """What the data set says about its classes."""
        return self.dataset.metainfo

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: StreamItem) -> Any:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[StreamItem]) -> list:
        """The augmented samples of a batch; torch's loaders call this where they find it.

        Raises:
            DataError: An image is missing or cannot be decoded.
        """
        with _generators_restored():  # once per batch, since it takes longer than to seed them
            return [self._load(item) for item in items]

    def _load(self, item: StreamItem) -> Any:
        _seed_generators(self.seed, self.stream, item.position)
        try:
            return self.dataset[item.index]
        # mmcv reports by an assertion what a decoder returns nothing for.
        except (OSError, AssertionError, cv2.error) as error:
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())
            name = self._name(item.index)
            raise DataError(f'training image {name} cannot be read: {reason}') from error

    def _name(self, index: int) -> str:
        """The file of an image, or its number where it has none."""
        info = self.dataset.get_data_info(index) if hasattr(self.dataset, 'get_data_info') else {}
        return str(info.get('img_path', index))


@contextlib.contextmanager
def _generators_restored() -> Iterator[None]:
    before = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


@contextlib.contextmanager
def same_draws(*key: Any) -> Iterator[None]:
    """What is drawn on the CPU inside depends on the key only, and nothing outside on it."""
    with _generators_restored():
        _seed_generators(*key)
        yield


def _seed_generators(*key: Any) -> None:
    python, numpy, pytorch, _ = _digest(*key).tolist()
    random.seed(python)
    np.random.seed(numpy)
    torch.default_generator.manual_seed(pytorch)  # `torch.manual_seed` reaches for every GPU too


class Stream:
    """Endless batches with an end that can be called for: use it as an iterator or a context.

    Args:
        loader: A loader over a :class:`StreamSampler`; its workers start at once.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._batches = iter(loader)

    def __iter__(self) -> Stream:
        return self

    def __next__(self) -> Any:
        try:
            return next(self._batches)
        except DataError as error:
            # From a worker it comes as the text of a traceback, which ends in the sentence.
            raise DataError(str(error).strip().rpartition('DataError: ')[2]) from None

    def close(self) -> None:
        """Ends the workers; may be called more than once."""
        if hasattr(self._batches, '_shutdown_workers'):
            self._batches._shutdown_workers()
        self._batches = iter(())

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def build_stream(
    dataset: Any,
    indices: Sequence[int],
    batch_size: int,
    num_workers: int,
    seed: int,
    stream: str | int,
    start: int = 0,
    collate: Callable = pseudo_collate,
) -> Stream:
    """Starts a stream of batches for this process.

    Args:
        dataset: The training set.
        indices: The part of it that the stream draws from.
        batch_size: Images per batch and process.
        num_workers: Processes that load images, 0 for none; the batches do not depend on it.
        seed: Of the order and the augmentation.
        stream: Name of the stream; streams of other names are independent.
        start: Images drawn so far, over all processes.
        collate: Makes a batch from a list of samples.

    Returns:
        An endless iterator with ``close()``. Raises DataError where an image cannot be read.
    """
    sampler = StreamSampler(indices, seed, stream, start, get_rank(), get_world_size())
    loader = DataLoader(
        StreamDataset(dataset, seed, stream),
        batch_size=batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        worker_init_fn=_leave_signals_to_main,
        # Without one, every new loader draws a number from torch's global generator.
        generator=torch.Generator(),
    )
    return Stream(loader)


def sample_batch(
    dataset: Any,
    indices: Sequence[int],
    batch_size: int,
    seed: int,
    stream: str | int,
    step: int,
    collate: Callable = pseudo_collate,
) -> Any:
    """This process's share of batch number ``step`` of a stream, loaded here and now.

    Arguments as for :func:`build_stream`.

    Raises:
        DataError: An image is missing or cannot be decoded.
    """
    samples, processes = StreamDataset(dataset, seed, stream), get_world_size()
    start = step * batch_size * processes
    sampler = StreamSampler(indices, seed, stream, start, get_rank(), processes)
    return collate(samples.__getitems__(list(islice(sampler, batch_size))))


def _leave_signals_to_main(_: int) -> None:
    # Ctrl-C, and whatever ends a whole group of processes, reaches workers too, while the main
    # process may still want batches to end its step. They end with it, whatever it ends of.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _shuffle(size: int, *key: Any) -> np.ndarray:
    """A permutation that depends on ``key`` alone; numpy keeps `RandomState` as it is for good."""
    return np.random.RandomState(_digest(*key)).permutation(size)


def _digest(*key: Any) -> np.ndarray:
    """Four well-mixed 32-bit numbers that depend on ``key``, texts and whole numbers, alone."""
    text = repr([part if isinstance(part, str) else int(part) for part in key])
    return np.frombuffer(hashlib.blake2b(text.encode(), digest_size=16).digest(), '<u4')
