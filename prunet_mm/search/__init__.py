"""The search: model, loop, latency objectives, hooks, and what comes out.

Importing it imports no torch, so that a report of a running search answers at once; naming one of
its classes does.
"""

from importlib import import_module

_HOMES = dict(
    ArchitectureSearch='model',
    SearchLoop='loop',
    SearchOptimWrapperConstructor='optim',
    SearchRunner='runner',
)
__all__ = list(_HOMES)


def __getattr__(name: str) -> type:
    if name not in _HOMES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_HOMES[name]}'), name)
