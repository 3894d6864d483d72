"""What the docs say, tried."""

import ast
import functools
import re
import runpy
import shlex
from pathlib import Path

import numpy as np
import pytest
from mmcv.transforms import Compose
from mmengine.hooks import EarlyStoppingHook
from mmengine.registry import (
    HOOKS,
    MODELS,
    VISBACKENDS,
    WEIGHT_INITIALIZERS,
    init_default_scope,
)

from prunet_mm.engine import cli
from prunet_mm.engine.shipped import tools
from prunet_mm.spec import SearchSpace

ROOT = Path(__file__).resolve().parents[1]


PAGES = ['README.md', *(str(p.relative_to(ROOT)) for p in sorted((ROOT / 'docs').glob('*.md')))]
QUICK = ('check_env', 'predict_latency')  # what runs on what is there, in seconds


def commands():
    """Every call of a tool in a shell block: its page, the tool and its arguments."""
    known = tools()
    for page in PAGES:
        text = (ROOT / page).read_text()
        for block in re.findall(r'```sh\n(.*?)```', text, re.S):
            for line in block.replace('\\\n', ' ').splitlines():
                words = shlex.split(line, comments=True)
                if words[:1] == ['prunet'] and words[1] in known:
                    yield page, known[words[1]], words[2:]
                elif words[:1] == ['python'] and words[1].startswith('tools/'):
                    yield page, ROOT / words[1], words[2:]


COMMANDS = list(commands())
load = functools.cache(runpy.run_path)


@pytest.mark.parametrize(
    'page, path, args', COMMANDS, ids=[f'{page}-{path.stem}' for page, path, _ in COMMANDS]
)
def test_every_command_is_one_that_its_tool_takes(page, path, args, monkeypatch):
    monkeypatch.setattr('sys.argv', [str(path), *args])
    load(str(path)).get('parse_args', lambda: None)()  # check_env takes nothing
    configs = [word for word in args if word.startswith('configs/')]
    assert all((ROOT / config).exists() for config in configs)


def test_what_takes_seconds_is_run(run_python):
    quick = {(path, *args) for _, path, args in COMMANDS if path.stem in QUICK}
    run = [command for command in quick if not re.search('work_dirs|MY_', str(command))]
    assert {command[0].stem for command in run} == set(QUICK)
    for command in run:
        done = run_python(*command)
        assert (done.returncode, done.stderr) == (0, ''), command


def test_messages_that_the_questions_quote_are_ours(root):
    quoted = re.findall(r'\*\*`(.+?)`\*\*', (root / 'docs/faq.md').read_text())
    sources = [*(root / 'prunet_mm').rglob('*.py'), *(root / 'tools').rglob('*.py')]
    said = [(root / 'Makefile').read_text()]
    for path in sources:
        tree = ast.parse(path.read_text())
        said += [n.value for n in ast.walk(tree) if isinstance(getattr(n, 'value', None), str)]
    assert len(quoted) > 10
    assert [text for text in quoted if not any(text in one for one in said)] == []


def test_every_page_is_in_the_navigation_and_every_picture_is_there(root):
    nav = (root / 'mkdocs.yml').read_text()
    for page in PAGES[1:]:
        assert f' {Path(page).name}\n' in nav
    for page in PAGES:
        folder = (root / page).parent
        pictures = re.findall(r'!\[[^]]*\]\((?!http)(.+?)\)|src="(.+?)"', (root / page).read_text())
        for picture in filter(None, sum(pictures, ())):
            assert (folder / picture).stat().st_size < 200_000


def test_configs_of_the_guides_load(code_blocks, tmp_path):
    code = code_blocks('trained_weights.md', "A search that starts from another search's SuperNet")
    (tmp_path / 'again.py').write_text(code[0])
    cfg = cli.load_config(tmp_path / 'again.py')
    assert cfg.model.architecture.backbone.init_cfg.prefix == 'architecture.backbone.'
    assert cfg.model.architecture.backbone.space.name == 'digits'
    code = code_blocks('your_data.md', 'Folders of images, one per class')
    (tmp_path / 'mine.py').write_text(code[0])
    cfg = cli.load_config(tmp_path / 'mine.py')
    space = SearchSpace.from_dict(cfg.model.architecture.backbone.space.to_dict())
    assert space.tail.num_classes == cfg.model.architecture.head.num_classes == 3
    assert cfg.train_dataloader.dataset.data_root == 'data/mine'


def test_imitation_and_teachers_of_the_guide(code_blocks, tmp_path):
    def load(title):
        for number, code in enumerate(code_blocks('trained_weights.md', title)):
            (tmp_path / f'mine{number}.py').write_text(code)
            cfg = cli.load_config(tmp_path / f'mine{number}.py')
            yield cfg, cfg.model.architecture

    ((cfg, searched),) = load('Candidates that imitate')
    assert WEIGHT_INITIALIZERS.build(searched.backbone.init_cfg).imitation == 300
    assert searched.backbone.space == cfg.space
    candidates = {
        candidate.name
        for position in SearchSpace.from_dict(cfg.space.to_dict()).positions()
        for candidate in position.candidates
    }
    assert candidates == {'ds_k3', 'irb_k3', 'irb_k5', 'fused_irb_k3', 'fused_irb_k5'}

    for cfg, searched in load('The trained network as a teacher'):
        init_default_scope(cfg.get('default_scope', 'mmpretrain'))
        teacher = MODELS.build(searched.teacher)
        backbone = getattr(teacher, 'backbone', teacher)
        assert backbone.init_cfg or teacher.init_cfg['checkpoint'] == cfg.trained
        assert backbone.out_indices == tuple(searched.backbone.get('out_indices', [7]))
        assert type(MODELS.build(searched)).__name__.startswith('Distilling')


@pytest.fixture
def snippet(code_blocks, tmp_path):
    """Load the config in docs/training.md below a title."""

    def load(title):
        (tmp_path / 'mine.py').write_text(code_blocks('training.md', title)[0])
        cfg = cli.load_config(tmp_path / 'mine.py')
        init_default_scope(cfg.default_scope)
        return cfg

    return load


def test_early_stopping(snippet):
    cfg = snippet('The best checkpoint')
    assert cfg.default_hooks.checkpoint.save_best == 'accuracy/top1'
    assert cfg.default_hooks.checkpoint.type == 'AtomicCheckpointHook'
    *_, stop = [HOOKS.build(hook) for hook in cfg.custom_hooks]
    assert isinstance(stop, EarlyStoppingHook)
    assert (stop.patience, stop.rule) == (3, 'greater')


def test_places_for_curves(snippet):
    cfg = snippet('Where curves go')
    assert cfg.visualizer.type == 'UniversalVisualizer'
    kinds = [backend.type for backend in cfg.visualizer.vis_backends]
    assert kinds == ['LocalVisBackend', 'WandbVisBackend', 'MLflowVisBackend']
    assert all(VISBACKENDS.get(kind) for kind in kinds)


def test_images_of_mixed_sizes(snippet):
    pipeline = snippet('Images of mixed').train_dataloader.dataset.pipeline
    (resize,) = [step for step in pipeline if 'Resize' in step.type]
    resize = Compose([resize])
    image = np.zeros((128, 128, 3), np.uint8)
    sizes = {resize(dict(img=image.copy(), img_shape=(128, 128)))['img_shape'] for _ in range(60)}
    assert sizes == {(96, 96), (128, 128), (160, 160)}
