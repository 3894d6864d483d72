import pytest
from mmengine.fileio.backends import backends, prefix_to_backends
from mmengine.runner import CheckpointLoader


@pytest.fixture
def mmengine_as_it_was():
    """Undoes what `use_safe_loading` changes in mmengine."""
    schemes = CheckpointLoader._schemes.copy()
    before = [(registry, dict(registry)) for registry in (backends, prefix_to_backends)]
    yield
    CheckpointLoader._schemes = schemes
    for registry, entries in before:
        registry.update(entries)
