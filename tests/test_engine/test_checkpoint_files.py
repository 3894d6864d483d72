"""Checkpoints are written whole, found again, and mmengine reads them our way."""

import functools
import multiprocessing
import os
import resource
import shutil
import signal
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmengine.fileio import LocalBackend, put, register_backend
from mmengine.fileio.io import backend_instances
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


class Touching:
    """Pickles as a command that makes a file, which a careless loader then makes."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'iter_1.pth'


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
        torch.save(Touching(marker), folder / 'evil.pth')
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
