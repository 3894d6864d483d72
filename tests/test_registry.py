import pytest
from mmengine.registry import MODELS, DefaultScope

from prunet_mm.models import PRUNet
from prunet_mm.search import ArchitectureSearch
from prunet_mm.supernet import SuperNet


@pytest.mark.parametrize('scope', ['mmpretrain', 'mmdet'])
@pytest.mark.parametrize('prefix', ['', 'mmpretrain.', 'mmdet.'])
def test_names_resolve_in_either_default_scope(scope, prefix):
    DefaultScope.get_instance(f'test-{scope}-{prefix}', scope_name=scope)
    net = MODELS.build(dict(type=f'{prefix}PRUNet', arch='prunet_p0'))
    assert type(net) is PRUNet
    with MODELS.switch_scope_and_registry(None) as registry:
        assert registry.get(f'{prefix}SuperNet') is SuperNet
        assert registry.get(f'{prefix}ArchitectureSearch') is ArchitectureSearch


def test_without_mmdet_the_classification_names_still_resolve(run_python):
    result = run_python(
        '-c',
        """
import sys

class NoMmdet:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'mmdet':
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, NoMmdet())
import mmengine
import prunet_mm
from mmengine.registry import MODELS, DefaultScope

DefaultScope.get_instance('test', scope_name='mmpretrain')
with MODELS.switch_scope_and_registry(None) as registry:
    for name in ('PRUNet', 'mmpretrain.PRUNet', 'PRUNetTail', 'SuperNet', 'ArchitectureSearch'):
        print(registry.get(name).__name__)
""",
    )
    assert result.returncode == 0, result.stderr
    found = ['PRUNet', 'PRUNet', 'PRUNetTail', 'SuperNet', 'ArchitectureSearch']
    assert result.stdout.split() == found


def test_importing_the_package_loads_neither_ops_nor_detection_heads(run_python):
    result = run_python(
        '-c',
        """
import sys
import mmengine
import prunet_mm

assert 'prunet_mm.models' in sys.modules
print([m for m in sys.modules if m == 'mmcv._ext' or m.startswith(('mmcv.ops', 'mmdet.models'))])
""",
    )
    assert result.stdout.strip() == '[]', result.stderr


def test_custom_imports_in_a_config_are_enough(run_python, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['prunet_mm'])\n")
    result = run_python(
        '-c',
        f"""
from mmengine.config import Config
from mmengine.registry import DATASETS, HOOKS, MODELS, DefaultScope

Config.fromfile({str(config)!r})
DefaultScope.get_instance('test', scope_name='mmpretrain')
for registry, name in ((MODELS, 'PRUNet'), (DATASETS, 'Digits'), (HOOKS, 'FiniteLossHook')):
    with registry.switch_scope_and_registry(None) as scoped:
        assert scoped.get(name).__module__.startswith('prunet_mm.')
""",
    )
    assert result.returncode == 0, result.stderr
