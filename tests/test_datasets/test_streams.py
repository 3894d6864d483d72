import os
import random
import signal
from itertools import islice

import numpy as np
import pytest
import torch
from mmcv.transforms import LoadImageFromFile
from mmengine.dataset import (
    BaseDataset,
    ClassBalancedDataset,
    ConcatDataset,
    RepeatDataset,
)
from mmpretrain.datasets.transforms import ColorJitter, PackInputs, RandomCrop, RandomErasing

from prunet_mm.datasets.streams import (
    StreamDataset,
    StreamItem,
    StreamSampler,
    build_stream,
    sample_batch,
    split_dataset,
    split_indices,
)
from prunet_mm.errors import DataError


def jitter_with_each_generator(results):
    """Draws from the three generators that transforms in the field draw from."""
    results['img'] = results['img'] + random.random() + np.random.rand() + torch.rand(()).item()
    return results


class Images(BaseDataset):
    METAINFO = dict(classes=('even', 'odd'))

    def __init__(self, count=10, **kwargs):
        self.count = count
        pipeline = [
            RandomCrop(6, padding=1),
            ColorJitter(brightness=0.5),
            RandomErasing(erase_prob=0.5),
            jitter_with_each_generator,
            PackInputs(),
        ]
        super().__init__(pipeline=kwargs.pop('pipeline', pipeline), **kwargs)

    def load_data_list(self):
        rng = np.random.default_rng(0)
        return [
            dict(img=rng.integers(0, 255, (6, 6, 3), np.uint8), gt_label=i % 2)
            for i in range(self.count)
        ]

    def get_cat_ids(self, idx):
        return [idx % 4 // 3]


def first(count, sampler):
    return list(islice(sampler, count))


def draw(stream, count):
    batches = [torch.stack(next(stream)['inputs']) for _ in range(count)]
    stream.close()
    return batches


def start_stream(**changes):
    arguments = dict(batch_size=4, num_workers=0, seed=1, stream='weights') | changes
    return build_stream(Images(), range(10), **arguments)


class TestSplit:
    def test_parts_are_disjoint_sorted_and_cover_everything(self):
        weights, architecture = split_indices(50, 0.2, seed=0)
        assert len(architecture) == 10
        assert sorted([*weights, *architecture]) == list(range(50))
        for part in (weights, architecture):
            assert (np.diff(part) > 0).all()

    def test_every_class_keeps_its_share(self):
        labels = [0] * 40 + [1] * 35 + [2] * 5
        _, architecture = split_indices(labels, 0.2, seed=3)
        assert np.bincount(np.array(labels)[architecture]).tolist() == [8, 7, 1]

    def test_only_the_seed_decides(self):
        np.random.seed(1)
        one = split_indices([0, 1] * 20, 0.2, seed=5)[1]
        np.random.seed(2)
        same = split_indices(np.array([0, 1] * 20), 0.2, seed=5)[1]
        other = split_indices([0, 1] * 20, 0.2, seed=6)[1]
        assert one.tolist() == same.tolist() != other.tolist()

    @pytest.mark.parametrize(('count', 'fraction'), [(2, 0.1), (2, 0.9), (0, 0.2), (10, 1.5)])
    def test_an_empty_part_is_refused(self, count, fraction):
        with pytest.raises(DataError, match=f'{count} training images cannot be split'):
            split_indices(count, fraction, seed=0)


class TestSplitOfADataSet:
    """Of samples whose images may repeat themselves."""

    @staticmethod
    def images(dataset, part):
        return [dataset.get_data_info(int(i))['img'].tobytes() for i in part]

    @pytest.mark.parametrize(
        'wrap',
        [
            lambda: RepeatDataset(Images(20), times=3),
            lambda: ConcatDataset([Images(12), Images(20)]),  # twelve images are in both
            lambda: ClassBalancedDataset(Images(20), oversample_thr=0.9),
            lambda: ConcatDataset([dict(type='RepeatDataset', dataset=Images(20), times=2)]),
        ],
    )
    def test_no_image_is_on_both_sides(self, wrap):
        dataset = wrap()
        weights, architecture = split_dataset(dataset, 0.25, seed=0)
        assert sorted([*weights, *architecture]) == list(range(len(dataset)))
        assert not set(self.images(dataset, weights)) & set(self.images(dataset, architecture))
        assert len(set(self.images(dataset, architecture))) == 5
        for part in (weights, architecture):
            assert (np.diff(part) > 0).all()

    def test_files_are_told_apart_by_their_paths(self):
        class Files(Images):
            def load_data_list(self):
                return [dict(img_path=f'{i % 7}.png') for i in range(self.count)]

        dataset = RepeatDataset(Files(28), times=2)
        parts = split_dataset(dataset, 0.3, seed=1)
        paths = [{dataset.get_data_info(int(i))['img_path'] for i in part} for part in parts]
        assert [len(of_part) for of_part in paths] == [5, 2]

    def test_a_list_that_names_files_twice_is_split_by_its_files(self):
        class Files(Images):
            def load_data_list(self):
                return [dict(img_path=f'{i % 20}.png', gt_label=i % 2) for i in range(self.count)]

        once = split_dataset(Files(20), 0.2, seed=5)
        expected = split_indices([i % 2 for i in range(20)], 0.2, seed=5)
        assert [part.tolist() for part in once] == [part.tolist() for part in expected]
        twice = split_dataset(Files(40), 0.2, seed=5)
        assert [part.tolist() for part in twice] == [[*part, *(part + 20)] for part in expected]

    def test_without_a_wrapper_it_is_the_split_by_index_and_label(self):
        dataset = Images(20)
        dataset.get_gt_labels = lambda: [i % 2 for i in range(20)]
        found = split_dataset(dataset, 0.2, seed=5)
        expected = split_indices(dataset.get_gt_labels(), 0.2, seed=5)
        assert [part.tolist() for part in found] == [part.tolist() for part in expected]
        repeated = split_dataset(RepeatDataset(dataset, times=2), 0.2, seed=5)[1]
        assert repeated.tolist() == [*expected[1], *(expected[1] + 20)]

    def test_an_empty_part_is_refused(self):
        with pytest.raises(DataError, match='2 training images cannot be split'):
            split_dataset(RepeatDataset(Images(2), times=50), 0.1, seed=0)


class TestSampler:
    def test_each_epoch_is_another_permutation_of_the_images(self):
        items = first(8, StreamSampler([3, 5, 7, 9], seed=0, stream='a'))
        assert [item.position for item in items] == list(range(8))
        epochs = [[item.index for item in items[i : i + 4]] for i in (0, 4)]
        assert sorted(epochs[0]) == sorted(epochs[1]) == [3, 5, 7, 9]
        assert epochs[0] != epochs[1]

    @pytest.mark.parametrize('start', [0, 3, 4, 13, np.int64(21)])
    def test_a_start_continues_the_sequence(self, start):
        whole = first(30, StreamSampler(range(4), seed=0, stream='a'))
        assert first(5, StreamSampler(range(4), 0, 'a', start)) == whole[start : start + 5]

    def test_ranks_share_the_positions(self):
        whole = first(12, StreamSampler(range(5), seed=0, stream='a', start=2))
        ranks = [first(4, StreamSampler(range(5), 0, 'a', 2, r, 3)) for r in range(3)]
        assert [item for turn in zip(*ranks, strict=True) for item in turn] == whole

    def test_streams_and_seeds_are_independent(self):
        orders = {
            tuple(item.index for item in first(20, StreamSampler(range(20), seed, stream)))
            for seed in (0, 1)
            for stream in ('weights', 'architecture', 1)
        }
        assert len(orders) == 6

    def test_the_order_is_the_same_on_every_machine_and_release(self):
        # Stored, because a resumed search may run on other versions of numpy and Python.
        order = [item.index for item in first(10, StreamSampler(range(10), 0, 'weights'))]
        assert order == [3, 8, 4, 9, 5, 0, 7, 2, 1, 6]

    def test_no_images_are_refused(self):
        with pytest.raises(DataError, match="'weights' has no images"):
            StreamSampler([], seed=0, stream='weights')


class TestDataset:
    def test_augmentation_depends_on_seed_stream_and_position_alone(self):
        def augmented(seed=0, stream='a', position=7):
            item = StreamItem(position, index=2)
            return StreamDataset(Images(), seed, stream)[item]['inputs'].numpy().tobytes()

        assert augmented() == augmented()
        different = {augmented(), augmented(seed=1), augmented(stream='b'), augmented(position=8)}
        assert len(different) == 4

    def test_the_main_process_keeps_its_random_numbers(self):
        def numbers(work):
            random.seed(0)
            np.random.seed(0)
            torch.manual_seed(0)
            np.random.randn()  # half of a pair: numpy now holds the other half back
            work()
            return random.random(), np.random.randn(), torch.rand(()).item()

        def work():
            draw(start_stream(), 2)
            draw(start_stream(num_workers=1), 1)
            sample_batch(Images(), range(10), 4, seed=0, stream='probe', step=0)

        assert numbers(work) == numbers(lambda: None)

    def test_generators_are_restored_after_an_error(self):
        dataset = StreamDataset(Images(pipeline=[lambda _: 1 / 0]), seed=0, stream='a')
        state = random.getstate()
        with pytest.raises(ZeroDivisionError):
            dataset[StreamItem(0, 0)]
        assert random.getstate() == state

    def test_it_looks_like_the_data_set(self):
        dataset = StreamDataset(Images(), seed=0, stream='a')
        assert dataset.metainfo['classes'] == ('even', 'odd')
        assert len(dataset) == 10


class TestStream:
    def test_batches_do_not_depend_on_workers(self):
        alone, two = (draw(start_stream(num_workers=workers), 5) for workers in (0, 2))
        assert all(torch.equal(*pair) for pair in zip(alone, two, strict=True))
        assert not torch.equal(alone[0], alone[1])

    @pytest.mark.parametrize('workers', [0, 2])
    def test_a_start_continues_the_batches(self, workers):
        whole = draw(start_stream(), 5)
        rest = draw(start_stream(start=3 * 4, num_workers=workers), 2)
        assert all(torch.equal(*pair) for pair in zip(whole[3:], rest, strict=True))

    def test_a_sampled_batch_is_the_batch_of_the_stream(self):
        batch = sample_batch(Images(), range(10), 4, seed=1, stream='weights', step=3)
        assert torch.equal(torch.stack(batch['inputs']), draw(start_stream(), 4)[3])

    def test_the_collate_function_makes_the_batch(self):
        assert next(start_stream(collate=len)) == 4

    def test_close_ends_the_workers_also_after_an_error(self):
        with pytest.raises(KeyboardInterrupt), start_stream(num_workers=2) as stream:
            workers = stream._batches._workers
            next(stream)
            raise KeyboardInterrupt
        assert not any(worker.is_alive() for worker in workers)
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)

    @pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
    def test_workers_survive_what_ends_all_processes_of_a_search(self, number):
        with start_stream(num_workers=1) as stream:
            next(stream)
            os.kill(stream._batches._workers[0].pid, number)
            for _ in range(5):  # more than are loaded ahead
                next(stream)

    @pytest.mark.parametrize('workers', [0, 1])
    @pytest.mark.parametrize('content', [None, b'', b'not an image'])
    def test_an_unreadable_image_is_one_sentence(self, workers, content, tmp_path):
        file = tmp_path / 'image.png'
        if content is not None:
            file.write_bytes(content)
        load = LoadImageFromFile()
        dataset = Images(pipeline=[lambda results: load(results | dict(img_path=str(file)))])
        stream = build_stream(dataset, [6], 1, workers, seed=0, stream='a')
        with stream, pytest.raises(DataError, match=r'\Atraining image 6 cannot be read: .*\Z'):
            next(stream)

    def test_an_unreadable_image_is_named(self, tmp_path):
        class Files(Images):
            def load_data_list(self):
                return [dict(img_path=str(tmp_path / f'{i}.png')) for i in range(self.count)]

        stream = build_stream(Files(pipeline=[LoadImageFromFile()]), [6], 1, 0, seed=0, stream='a')
        sentence = f'training image {tmp_path}/6.png cannot be read'
        with stream, pytest.raises(DataError, match=sentence):
            next(stream)
