from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseTTAModel
from torch import nn

from prunet_mm.engine.weights_hook import FittingWeightsHook
from prunet_mm.errors import CheckpointError


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 3)

    def test_step(self, data):
        """What can be tested can be wrapped for test-time augmentation."""


class Averaged(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        """Not called."""


@pytest.fixture
def check(tmp_path):
    """Let the hook judge what a checkpoint file held."""

    def check(checkpoint, model=None, resume=False, load_from='file.pth', classes=None, **kwargs):
        data = SimpleNamespace(dataset=SimpleNamespace(metainfo=dict(classes=classes)))
        runner = SimpleNamespace(
            model=model or Classifier(), _resume=resume, _load_from=load_from, work_dir=tmp_path
        )
        setattr(runner, '_train_loop' if resume else '_test_loop', SimpleNamespace(dataloader=data))
        FittingWeightsHook(**kwargs).after_load_checkpoint(runner, checkpoint)

    return check


@pytest.fixture
def saved():
    return Classifier().state_dict()


def progress(**meta):
    return dict(meta=meta, message_hub={})


def test_all_of_a_whole_checkpoint_fits(check, saved):
    check(dict(state_dict=saved), whole=True)
    check(dict(state_dict=saved, **progress(epoch=1, iter=2)), resume=True)


def test_saved_by_a_wrapped_model(check, saved):
    wrapped = {f'module.{key}': value for key, value in saved.items()}
    check(dict(state_dict=wrapped), whole=True)
    check(dict(state_dict=saved), model=Averaged(Classifier()), whole=True)


def test_weights_alone_are_put_where_mmengines_hooks_look_for_them(check, saved):
    checkpoint = dict(saved)
    check(checkpoint, whole=True)
    assert checkpoint['state_dict'].keys() == saved.keys()


def test_counters_that_old_versions_of_torch_did_not_save(check, saved):
    check({k: v for k, v in saved.items() if 'num_batches' not in k}, whole=True)


def test_layers_take_up_what_their_older_versions_saved(check, saved):
    class Renamed(Classifier):
        def _load_from_state_dict(self, state_dict, prefix, metadata, *args):
            if 'old.weight' in state_dict:
                state_dict['head.weight'] = state_dict.pop('old.weight')
            super()._load_from_state_dict(state_dict, prefix, metadata, *args)

    saved['old.weight'] = saved.pop('head.weight')
    check(dict(saved), model=Renamed(), whole=True)
    with pytest.raises(CheckpointError, match=r"file.pth: .*'head.weight' is missing$"):
        check(dict(saved), whole=True)


def test_a_training_may_start_with_another_head(check, saved):
    check({k: v for k, v in saved.items() if 'head' not in k})
    check(saved | {'head.weight': torch.zeros(7, 2), 'neck.weight': torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"'backbone.0.weight' is missing, and so are 1 "):
        check({k: v for k, v in saved.items() if 'backbone.0' not in k})
    with pytest.raises(CheckpointError, match=r'has shape \(5,\), but the model \(2,\)'):
        check(saved | {'backbone.0.bias': torch.zeros(5)})
    with pytest.raises(CheckpointError, match="has keys like 'head.weight', and the model"):
        check({k: v for k, v in saved.items() if 'head' in k})


def test_what_has_no_backbone_has_to_fit_as_a_whole(check):
    model = nn.Linear(2, 2)
    check(model.state_dict(), model=model)
    with pytest.raises(CheckpointError, match="'bias' is missing"):
        check(dict(weight=torch.zeros(2, 2)), model=model)


def test_what_is_resumed_has_progress_and_all_weights(check, saved):
    for checkpoint in (dict(), progress(), dict(meta=None), dict(meta=dict(epoch=1, iter=1))):
        with pytest.raises(CheckpointError, match='file.pth: holds no progress of a training'):
            check(dict(state_dict=saved, **checkpoint), resume=True)
    del saved['head.bias']
    with pytest.raises(CheckpointError, match="'head.bias' is missing"):
        check(dict(state_dict=saved, **progress(epoch=1, iter=1)), resume=True)


def test_the_latest_checkpoint_is_named(check, tmp_path):
    (tmp_path / 'last_checkpoint').write_text('work/epoch_3.pth')
    with pytest.raises(CheckpointError, match='work/epoch_3.pth: holds no progress'):
        check(dict(state_dict={}), resume=True, load_from=None)


def test_what_are_no_tensors(check, saved):
    with pytest.raises(CheckpointError, match='do not fit the model of the config: '):
        check(saved | {'head.bias': 'text'}, whole=True)


@pytest.mark.parametrize('resume', [False, True])
@pytest.mark.parametrize(
    ('classes', 'fits'),
    [
        (('ape', 'bee', 'cat'), True),
        (['ape', 'bee', 'cat'], True),
        (None, True),
        (('n01', 'n02', 'n03'), True),  # other names for what may be the same
        (('bee', 'ape', 'cat'), False),
        (('.ipynb_checkpoints', 'ape', 'bee'), False),
        (('ape', 'bee'), False),
    ],
)
def test_outputs_stand_for_the_classes_they_were_trained_on(check, saved, resume, classes, fits):
    meta = progress(epoch=1, iter=2, dataset_meta=dict(classes=('ape', 'bee', 'cat')))
    options = dict(resume=resume, whole=not resume, classes=classes)
    if fits:
        check(dict(state_dict=saved, **meta), **options)
        return
    with pytest.raises(CheckpointError, match=r"file.pth: was trained on the classes 'ape', 'bee'"):
        check(dict(state_dict=saved, **meta), **options)


def test_a_training_may_start_from_weights_for_other_classes(check, saved):
    meta = dict(dataset_meta=dict(classes=('ape', 'bee', 'cat')))
    check(dict(state_dict=saved, meta=meta), classes=('bee', 'ape'))
