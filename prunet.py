"""The command ``prunet``: one name for everything in ``tools/``, wherever it is installed."""

from __future__ import annotations

import sys


def main() -> None:
    """Runs the tool that the command line names."""
    try:
        from prunet_mm.engine.shipped import run_tool
    except ImportError as error:  # versions that do not fit: a sentence that says what to install
        sys.exit(f'error: {error}')
    run_tool(sys.argv[1:])


if __name__ == '__main__':
    main()
