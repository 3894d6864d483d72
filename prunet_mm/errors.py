"""What a user can get wrong, as exceptions that carry one clear sentence each.

Command lines print the sentence and exit with a code other than 0; anything that is not a
:class:`PrunetError` is a defect of ours and keeps its traceback.
"""


class PrunetError(ValueError):
    """Something the user can put right. Takes one message: what is wrong, where, what to do."""


class SpecError(PrunetError):
    """A network or a search space that cannot be: wrong file, field or value."""


class LatencyTableError(PrunetError):
    """A latency table that cannot be read, or has no entry for a block that is asked for."""


class CheckpointError(PrunetError):
    """A checkpoint that is damaged, does not fit, or holds more than data."""


class DataError(PrunetError):
    """Images or annotations that are missing or not laid out as expected."""


class SearchError(PrunetError):
    """A search that cannot start or go on: infeasible budget, loss not finite."""


class ConfigError(PrunetError):
    """A config or command line whose settings are unknown or contradict each other."""


def one_line(error: BaseException) -> str:
    """Kind and text of an error from elsewhere, as part of a sentence of ours."""
    text = error.args[0] if isinstance(error, KeyError) and error.args else error
    return ' '.join(f'{type(error).__name__}: {text}'.split())
