import functools
import io
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import sys
import tarfile
import threading
import time
from collections import OrderedDict
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from mmengine.fileio import LocalBackend, put, register_backend
from mmengine.fileio.io import backend_instances
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader, find_latest_checkpoint, load_checkpoint
from torch import nn

from prunet_mm.engine import addresses
from prunet_mm.engine import checkpoint as module
from prunet_mm.engine.checkpoint import (
    load_checkpoint_file,
    mark_latest,
    resume_point,
    save_checkpoint_file,
    use_safe_loading,
)
from prunet_mm.errors import CheckpointError, PrunetError


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


class TestSaving:
    def test_round_trip_into_a_new_folder(self, tmp_path):
        path = tmp_path / 'new' / 'iter_1.pth'
        save_checkpoint_file(dict(weight=torch.ones(1)), path)
        assert load_checkpoint_file(path)['weight'] == 1
        assert os.listdir(path.parent) == ['iter_1.pth']

    @pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space left on device')])
    def test_an_error_keeps_the_old_file(self, error, path, monkeypatch):
        def fail(_):
            raise error

        save_checkpoint_file(dict(old=1), path)
        monkeypatch.setattr(os, 'fsync', fail)
        with pytest.raises((KeyboardInterrupt, PrunetError)):
            save_checkpoint_file(dict(new=1), path)
        assert load_checkpoint_file(path) == dict(old=1)
        assert os.listdir(path.parent) == [path.name]

    def test_a_full_disk_keeps_the_old_file(self, path):
        save_checkpoint_file(dict(old=1), path)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            with pytest.raises(PrunetError, match='what was there before is unchanged'):
                save_checkpoint_file(dict(new=torch.ones(1000)), path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert load_checkpoint_file(path) == dict(old=1)

    def test_a_kill_leaves_nothing_that_looks_like_a_checkpoint(self, path, monkeypatch):
        def save_and_die():
            os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
            save_checkpoint_file(dict(new=1), path)

        save_checkpoint_file(dict(old=1), path)
        process = multiprocessing.get_context('fork').Process(target=save_and_die)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert len(os.listdir(path.parent)) == 2
        assert load_checkpoint_file(path) == dict(old=1)
        assert resume_point(path.parent) == path

        # A process that starts later removes what the dead one has left.
        monkeypatch.setattr(module, '_STARTED', time.time() + 1)
        save_checkpoint_file(dict(newer=1), path)
        assert os.listdir(path.parent) == [path.name]

    def test_files_of_others_and_of_living_runs_stay(self, path):
        living = path.with_name('.iter_2.pth.0123abcd.tmp')
        foreign = path.with_name('.notes.tmp')
        for file in (living, foreign):
            file.touch()
        os.utime(foreign, (0, 0))
        save_checkpoint_file({}, path)
        assert living.exists()
        assert foreign.exists()


class TestLatest:
    @pytest.fixture
    def folder(self, tmp_path):
        for number in ('2', '000010', '9'):
            save_checkpoint_file(dict(number=number), tmp_path / f'iter_{number}.pth')
        return tmp_path

    def test_the_highest_number_wins(self, folder):
        assert resume_point(folder).name == 'iter_000010.pth'

    def test_temporary_and_other_files_do_not_count(self, folder):
        for name in ('.iter_13.pth.0123abcd.tmp', 'best_99.pth', 'iter_14.pth.bak'):
            shutil.copy(folder / 'iter_9.pth', folder / name)
        assert resume_point(folder).name == 'iter_000010.pth'

    @pytest.mark.parametrize('marked', [True, False])
    @pytest.mark.parametrize(
        'damage',
        [
            lambda data: data[:-10],
            lambda data: b'',
            lambda data: bytes(len(data)),
            lambda data: data.replace(b'number', b'n\xff\xfeber', 1),
        ],
    )
    def test_the_one_before_stands_in_for_what_cannot_be_read(self, folder, damage, marked):
        newest = folder / 'iter_000010.pth'
        if marked:
            mark_latest(newest, folder)
        newest.write_bytes(damage(newest.read_bytes()))
        with pytest.warns(UserWarning, match='iter_000010.pth: .*; going on from .* iter_9.pth'):
            assert resume_point(folder) == folder / 'iter_9.pth'

    def test_only_older_ones_stand_in_for_the_one_that_is_marked(self, folder):
        """A run that was resumed from an older one has newer ones of its former course beside."""
        mark_latest(folder / 'iter_9.pth', folder)
        (folder / 'iter_9.pth').write_bytes(b'')
        with pytest.warns(UserWarning, match='going on from the one before, iter_2.pth'):
            assert resume_point(folder) == folder / 'iter_2.pth'

    def test_where_none_can_be_read_nothing_begins_anew(self, folder):
        for path in folder.glob('iter_*'):
            path.write_bytes(b'')
        with pytest.raises(CheckpointError, match='iter_000010.pth: the checkpoint is empty'):
            resume_point(folder)

    def test_what_is_marked_is_resumed_also_in_a_copy(self, folder, tmp_path_factory):
        mark_latest(folder / 'iter_9.pth', folder)
        assert resume_point(folder) == folder / 'iter_9.pth'
        copy = tmp_path_factory.mktemp('copy') / 'work'
        shutil.copytree(folder, copy)
        assert resume_point(copy) == copy / 'iter_9.pth'
        (folder / 'iter_9.pth').unlink()
        assert resume_point(folder).name == 'iter_000010.pth'

    def test_epochs_count_too(self, tmp_path):
        for number in (9, 10):
            save_checkpoint_file({}, tmp_path / f'epoch_{number}.pth')
        assert resume_point(tmp_path).name == 'epoch_10.pth'

    def test_none(self, tmp_path):
        assert resume_point(tmp_path) is None
        assert resume_point(tmp_path / 'missing') is None

    def test_mmengine_finds_what_is_marked(self, folder):
        mark_latest(folder / 'iter_9.pth', folder)
        assert find_latest_checkpoint(str(folder)) == str(folder / 'iter_9.pth')


class TestMMEngine:
    """With `use_safe_loading`, by the names that configs and mmengine use."""

    @pytest.fixture(autouse=True)
    def _safe(self, mmengine_as_it_was):
        use_safe_loading()
        use_safe_loading()

    @pytest.fixture
    def weights(self):
        return nn.Linear(2, 1).state_dict()

    @pytest.fixture
    def server(self, tmp_path, monkeypatch):
        """A web server of the files in a folder, and an empty cache for downloads."""

        class Quiet(SimpleHTTPRequestHandler):
            def log_message(self, *_):
                pass

        folder = tmp_path / 'www'
        folder.mkdir()
        torch.hub.set_dir(tmp_path / 'hub')
        server = ThreadingHTTPServer(
            ('127.0.0.1', 0), functools.partial(Quiet, directory=str(folder))
        )
        threading.Thread(target=server.serve_forever).start()
        yield folder, f'http://127.0.0.1:{server.server_port}'
        server.shutdown()
        server.server_close()
        monkeypatch.setattr(torch.hub, '_hub_dir', None)

    def test_local_files_as_pretrained_weights(self, weights, path):
        from mmengine.model import BaseModule

        class Model(BaseModule):
            def __init__(self):
                super().__init__(init_cfg=dict(type='Pretrained', checkpoint=str(path)))
                self.layer = nn.Linear(2, 1)

        torch.save(dict(state_dict={f'layer.{k}': v for k, v in weights.items()}), path)
        model = Model()
        model.init_weights()
        assert torch.equal(model.layer.weight, weights['weight'])

    def test_every_scheme_refuses_what_runs_code(self, server, tmp_path, monkeypatch):
        folder, url = server
        marker = tmp_path / 'marker'
        torch.save(Call(os.system, f'touch {marker}'), folder / 'evil.pth')
        for scheme in addresses._MODELS:
            monkeypatch.setitem(addresses._MODELS, scheme, lambda: dict(evil=f'{url}/evil.pth'))
        lists = [f'{scheme}://evil' for scheme in addresses._MODELS]
        for address in [f'{url}/evil.pth', str(folder / 'evil.pth'), *lists]:
            with pytest.raises(CheckpointError, match=r"evil\.pth: refused.*'posix\.system'"):
                load_checkpoint(nn.Linear(2, 1), address)
        assert not marker.exists()

    def test_every_registered_scheme_goes_through_our_loader(self):
        assert len(CheckpointLoader._schemes) > 5
        assert set(CheckpointLoader._schemes.values()) == {module.load_from_plain_data}

    def test_http(self, server, weights):
        folder, url = server
        torch.save(weights, folder / 'w.pth')
        model = nn.Linear(2, 1)
        load_checkpoint(model, f'{url}/w.pth')
        assert torch.equal(model.weight, weights['weight'])
        (folder / 'w.pth').unlink()
        load_checkpoint(model, f'{url}/w.pth')  # from the cache

    def test_lists_of_models(self, server, weights, monkeypatch):
        folder, url = server
        torch.save(dict(state_dict={f'backbone.{k}': v for k, v in weights.items()}), folder / 'w')
        monkeypatch.setitem(addresses._MODELS, 'mmcls', lambda: dict(net=f'{url}/w'))
        model = nn.Linear(2, 1)
        load_checkpoint(model, 'mmcls://net')
        assert torch.equal(model.weight, weights['weight'])
        # The real lists, of which no entry is downloaded here.
        for scheme in ('torchvision', 'openmmlab', 'mmcls'):
            with pytest.raises(CheckpointError, match='mmengine lists no model of this name'):
                load_checkpoint(model, f'{scheme}://no_such_model')

    def test_failed_downloads_are_one_sentence(self, server):
        folder, url = server
        (folder / 'cut.pth').write_bytes(b'cut')
        with pytest.raises(CheckpointError, match=r'missing\.pth: cannot be downloaded \(.*404'):
            load_checkpoint(nn.Linear(2, 1), f'{url}/missing.pth')
        with pytest.raises(CheckpointError, match='delete it to download it again'):
            load_checkpoint(nn.Linear(2, 1), f'{url}/cut.pth')

    @pytest.mark.parametrize('address', ['s3://a/b.pth', 'pavi://a', 'c:petrel://a', 'ftp://a/b'])
    def test_other_schemes_are_refused(self, address):
        with pytest.raises(CheckpointError, match='download it and give the path'):
            load_checkpoint(nn.Linear(2, 1), address)

    def test_a_backend_that_mmengine_built_before_writes_in_one_step_too(self, path, monkeypatch):
        register_backend('local', LocalBackend, force=True, prefixes='')
        backend_instances.clear()
        put(b'old', path)
        use_safe_loading()
        with monkeypatch.context() as patch:
            patch.setattr(os, 'replace', lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                put(b'new', path)
        assert path.read_bytes() == b'old'

    def test_mmengine_writes_in_one_step(self, path, monkeypatch):
        put(b'old', path)
        with monkeypatch.context() as patch:
            patch.setattr(os, 'replace', lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                put(b'new', path)
        assert path.read_bytes() == b'old'

    def test_a_pipe_is_written_to_and_not_replaced(self, tmp_path):
        pipe = tmp_path / 'pipe'
        os.mkfifo(pipe)
        reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        put(b'data', pipe)
        assert os.read(reader, 10) == b'data'
        os.close(reader)
        assert pipe.is_fifo()
