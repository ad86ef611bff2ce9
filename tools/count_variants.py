"""Write what can be counted and generated: ``src/plusx/model/counted.py``, ``docs/variants.md``.

Run it after a variant was added or changed: ``python tools/count_variants.py``. A test compares
both files with the networks.
"""

from __future__ import annotations

from pathlib import Path

import torch

from plusx.jobs.models import known_names
from plusx.jobs.variants_table import BEGIN, END, variants_table
from plusx.model.describe import count
from plusx.weights import create

ROOT = Path(__file__).parents[1]
HEAD = '''"""Parameters, and multiply-adds for one image of the usual size, of each variant.

So that ``plusx models`` need not build a hundred networks. Written by tools/count_variants.py; a
test counts again. A variant that is not here is counted when it is listed.
"""

from __future__ import annotations

COUNTED: dict[str, tuple[int, int]] = {
'''


def main() -> None:
    """Count all, write both files."""
    lines = []
    for name in known_names():
        with torch.device("meta"):
            params, macs = count(create(name, weights="none"))
        lines.append(f'    "{name}": ({params:_}, {macs:_}),\n')
    file = ROOT / "src" / "plusx" / "model" / "counted.py"
    file.write_text(f"{HEAD}{''.join(lines)}}}\n", encoding="utf-8")
    page = ROOT / "docs" / "variants.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}\n{variants_table()}{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
