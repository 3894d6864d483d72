def test_custom_imports_in_a_config_are_enough(run_python, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text("custom_imports = dict(imports=['prunet_mm'])\n")
    code = f"""
import sys
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

Config.fromfile({str(config)!r})
import prunet_mm.detection.check
assert 'mmdet.models' not in sys.modules
for scope in ('mmdet', 'mmpretrain'):
    DefaultScope.get_instance(scope, scope_name=scope)
    prefix = '' if scope == 'mmdet' else 'mmdet.'
    with MODELS.switch_scope_and_registry(None) as registry:
        for name in ('BiFPN', 'EfficientDetHead', 'DistillingDetector'):
            print(registry.get(prefix + name).__name__)
"""
    result = run_python('-c', code)
    assert result.stdout.split() == ['BiFPN', 'EfficientDetHead', 'distilling_detector'] * 2, (
        result.stderr
    )


def test_classifiers_need_no_compiled_ops(run_python):
    code = """
import sys

sys.modules['mmcv._ext'] = None
import mmengine, prunet_mm, prunet_mm.detection.check
from mmpretrain.registry import MODELS

config = dict(
    type='ImageClassifier',
    backbone=dict(type='PRUNet', arch='prunet_p0'),
    neck=dict(type='PRUNetTail', in_channels=704),
    head=dict(type='LinearClsHead', num_classes=2, in_channels=704),
)
print(type(MODELS.build(config).backbone).__name__)
"""
    result = run_python('-c', code)
    assert result.stdout.split()[-1:] == ['PRUNet'], result.stderr
