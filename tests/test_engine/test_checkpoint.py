import functools
import io
import os
import pickle
import sys
import tarfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from prunet_mm.engine.checkpoint import (
    load_checkpoint_file,
)
from prunet_mm.errors import CheckpointError


class Call:
    """Pickles as the call of a function, which a careless loader then makes."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def history(**state):
    buffer = HistoryBuffer([1.0], [1])
    buffer.__dict__.update(state)
    return buffer


def write_zip(obj, path):
    torch.save(obj, path)


def write_legacy(obj, path):
    torch.save(obj, path, _use_new_zipfile_serialization=False)


def write_raw(obj, path):
    path.write_bytes(pickle.dumps(obj, protocol=2))


def write_tar(obj, path):
    """The format of torch before 0.1.11, which is several pickles in one archive."""
    with tarfile.open(path, 'w') as archive:
        for name in ('sys_info', 'storages', 'tensors', 'pickle'):
            content = pickle.dumps(obj, protocol=2)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def refusal(path):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint_file(path)
    sentence = str(caught.value)
    assert sentence.startswith(str(path))
    assert '\n' not in sentence
    return sentence


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'iter_1.pth'


class TestPlainData:
    def test_what_mmengine_and_we_save_comes_back(self, path):
        generator = torch.get_rng_state()
        saved = dict(
            meta=dict(iter=3, dataset_meta=dict(classes=('a', 'b'), palette=np.eye(3))),
            state_dict=OrderedDict(weight=torch.arange(6.0).view(2, 3)),
            message_hub=dict(
                log_scalars=dict(loss=HistoryBuffer([3, 2.5], [1, 2], 100), none=HistoryBuffer()),
                runtime_info=dict(score=np.float32(0.5), count=np.int64(3), ok=np.bool_(True)),
            ),
            optimizer=dict(state={0: dict(step=torch.tensor(1.0))}, param_groups=[dict(lr=0.1)]),
            random=dict(torch=generator, numpy=np.random.RandomState(0).get_state(legacy=False)),
        )
        torch.save(saved, path)
        loaded = load_checkpoint_file(path)
        assert loaded['meta']['dataset_meta']['classes'] == ('a', 'b')
        assert torch.equal(loaded['state_dict']['weight'], saved['state_dict']['weight'])
        assert torch.equal(loaded['random']['torch'], generator)
        info = loaded['message_hub']['runtime_info']
        assert info == saved['message_hub']['runtime_info']
        assert [type(value) for value in info.values()] == [np.float32, np.int64, np.bool_]
        logs = loaded['message_hub']['log_scalars']
        assert type(logs['loss']) is HistoryBuffer
        assert logs['loss'].data[0].tolist() == [3, 2.5]
        assert logs['loss'].data[1].tolist() == [1, 2]
        assert logs['loss'].max_length == 100
        logs['none'].update(1.0)
        assert logs['none'].mean() == 1
        np.random.RandomState().set_state(loaded['random']['numpy'])

    @pytest.mark.parametrize(
        'array',
        [
            np.arange(6, dtype='>i2').reshape(2, 3),
            np.asfortranarray(np.arange(6.0).reshape(2, 3)),
            np.zeros((0, 3)),
            np.array(1 + 2j),
            np.array(['one', 'three']),
            np.array([True, False]),
        ],
        ids=lambda array: array.dtype.str,
    )
    def test_arrays_come_back_exactly_and_can_be_changed(self, array, path):
        torch.save(dict(arrays=[array, (array,)]), path)
        first, (second,) = load_checkpoint_file(path)['arrays']
        assert type(first) is np.ndarray
        assert first is second  # as they were
        assert (first.dtype, first.shape) == (array.dtype, array.shape)
        assert np.array_equal(first, array)
        first[...] = first

    def test_files_of_numpy_1_and_old_torch_load(self, path):
        write_legacy(dict(array=np.ones(2), number=np.float64(2), none=b''), path)
        content = path.read_bytes().replace(b'numpy._core.', b'numpy.core.')
        path.write_bytes(content)
        loaded = load_checkpoint_file(path)
        assert (loaded['array'].sum(), loaded['number'], loaded['none']) == (2, 2, b'')

    def test_loading_twice_and_saving_again_changes_nothing(self, path):
        torch.save(dict(log=HistoryBuffer([1.0], [1]), scalar=np.float64(1)), path)
        torch.save(load_checkpoint_file(path), path)
        assert load_checkpoint_file(path)['log'].data[0].tolist() == [1.0]

    def test_the_text_that_mmengine_would_run_on_resume_is_left_out(self, path):
        torch.save(dict(meta=dict(config='raise SystemExit', cfg='model = dict()')), path)
        assert load_checkpoint_file(path) == dict(meta=dict(cfg='model = dict()'))

    def test_safetensors(self, tmp_path):
        import safetensors.torch as safetensors

        file = tmp_path / 'weights.safetensors'
        safetensors.save_file(dict(weight=torch.ones(2)), file)
        assert load_checkpoint_file(file)['weight'].tolist() == [1, 1]
        file.write_bytes(file.read_bytes()[:-1])
        assert 'not a complete safetensors file' in refusal(file)

    def test_safetensors_without_the_package(self, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, 'safetensors', None)
        file = tmp_path / 'weights.safetensors'
        file.write_bytes(b'x')
        assert 'pip install safetensors' in refusal(file)


class TestMaliciousFiles:
    """Each would leave a marker behind if anything in it were called."""

    @pytest.fixture
    def marker(self, tmp_path):
        return tmp_path / 'marker'

    def attacks(self, marker):
        command = f'touch {marker}'
        getattr_chain = Call(getattr, HistoryBuffer, '__init__')
        for name in ('__globals__', '__class__'):
            getattr_chain = Call(getattr, getattr_chain, name)
        run = Call(os.system, command)
        return {
            'system': (run, 'posix.system'),
            'eval': (Call(eval, f'open({str(marker)!r}, "w")'), 'eval'),
            'getattr': (getattr_chain, 'builtins.getattr'),
            'getattr of an instance': (Call(getattr, history(), 'mean'), 'builtins.getattr'),
            'partial': (Call(functools.partial, run), 'functools.partial'),
            'torch': (Call(torch.load, 'other.pth'), 'torch.serialization.load'),
            'array of objects': (np.array([1], dtype=object), 'numpy.dtype'),
            'array of fields': (np.zeros(1, dtype=[('x', object)]), 'numpy.dtype'),
            'array that is called': (Call(np.ndarray, (1,), 'O'), 'numpy.ndarray'),
            'type of objects': (np.dtype('O'), 'numpy.dtype'),
            'log of objects': (history(_count_history=np.array([run])), 'posix.system'),
        }

    @pytest.mark.parametrize('write', [write_zip, write_legacy, write_raw])
    def test_is_refused_by_name_and_nothing_runs(self, write, marker, tmp_path):
        for i, (content, name) in enumerate(self.attacks(marker).values()):
            file = tmp_path / f'{i}.pth'
            write(dict(state_dict=content), file)
            sentence = refusal(file)
            if write is not write_raw:  # torch looks into a file only after its header
                assert name in sentence
                assert 'could run code' in sentence
        assert not marker.exists()

    def test_the_same_file_runs_its_command_in_a_careless_loader(self, marker, path):
        torch.save(Call(os.system, f'touch {marker}'), path)
        torch.load(path, weights_only=False)
        assert marker.exists()

    def test_the_old_tar_format_is_refused(self, marker, path):
        write_tar(Call(os.system, f'touch {marker}'), path)
        assert 'cannot be read as plain data' in refusal(path)
        assert not marker.exists()

    def test_torchscript_is_refused(self, path, recwarn):
        torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)
        recwarn.clear()
        assert 'cannot be read as plain data' in refusal(path)
        assert not recwarn.list

    def test_what_others_allow_is_not_allowed_here(self, marker, path):
        torch.save(Call(getattr, Call(eval, f'open({str(marker)!r}, "w")'), 'x'), path)
        before = set(torch.serialization.get_safe_globals())
        torch.serialization.add_safe_globals([getattr, eval])
        try:
            refusal(path)
            assert set(torch.serialization.get_safe_globals()) == before | {getattr, eval}
        finally:
            torch.serialization.clear_safe_globals()
            torch.serialization.add_safe_globals(list(before))
        assert not marker.exists()

    def test_the_environment_does_not_change_the_list(self, marker, path, monkeypatch):
        monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', '1')
        torch.save(Call(os.system, f'touch {marker}'), path)
        assert 'posix.system' in refusal(path)
        assert not marker.exists()

    def test_a_log_cannot_bring_methods_for_all_logs(self, path):
        methods = dict(HistoryBuffer._statistics_methods)
        torch.save(dict(log=history(mean=1, update=2)), path)
        content = path.read_bytes()
        assert b'update' in content
        log = load_checkpoint_file(path)['log']
        assert log.mean() == 1.0
        log.update(3.0)
        assert HistoryBuffer._statistics_methods == methods


class TestBadFiles:
    @pytest.mark.parametrize(
        ('content', 'problem'),
        [
            (b'', 'is empty'),
            (b'\x80\x02}', 'cannot be read as plain data'),
            (b'Not found\n', 'cannot be read as plain data'),
            (os.urandom(1000), 'cannot be read as plain data'),
        ],
        ids=['empty', 'cut pickle', 'text', 'noise'],
    )
    def test_no_checkpoint(self, content, problem, path):
        path.write_bytes(content)
        assert problem in refusal(path)

    def test_truncated_anywhere(self, path):
        torch.save(dict(weight=torch.ones(100)), path)
        content = path.read_bytes()
        for size in range(1, len(content), 101):
            path.write_bytes(content[:size])
            refusal(path)

    def test_missing_file_and_folder(self, tmp_path):
        assert 'there is no such checkpoint' in refusal(tmp_path / 'missing.pth')
        assert 'is a folder' in refusal(tmp_path)

    def test_no_dict(self, path):
        torch.save([torch.ones(1)], path)
        assert 'holds one list' in refusal(path)

    @pytest.mark.parametrize('log', ['text', np.array(['word']), np.ones((1, 1))], ids=str)
    def test_a_log_of_something_other_than_numbers(self, log, path):
        torch.save(dict(log=history(_log_history=log)), path)
        assert 'cannot be read as plain data' in refusal(path)

    def test_a_list_that_holds_itself(self, path):
        content = dict(items=[np.float64(1)])
        content['items'].append(content['items'])
        torch.save(content, path)
        items = load_checkpoint_file(path)['items']
        assert items[1] is items
