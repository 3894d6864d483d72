import subprocess
import sys


def test_specs_import_no_torch():
    code = (
        'import sys, prunet_mm.spec as s; s.load_zoo("prunet_p0"); '
        'assert not {"torch", "mmengine", "mmcv"} & set(sys.modules), "heavy import"'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
