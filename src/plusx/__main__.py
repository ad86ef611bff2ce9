"""``python -m plusx`` and the ``plusx`` command."""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Run the command line."""
    # Idle OpenMP threads otherwise spin and take the cores from the threads that decode images
    # (and from other programs): on two busy cores ResNet-18 ran 5 times slower. OpenMP reads this
    # once, when torch is imported; whoever sets it wins.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        from plusx.cli.app import main as run
    except KeyboardInterrupt:  # before the command line is there to say so itself
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
