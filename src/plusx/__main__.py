"""``python -m plusx`` and the ``plusx`` command."""

from __future__ import annotations

from plusx.cli.app import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
