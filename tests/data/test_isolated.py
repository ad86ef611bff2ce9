from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from plusx.data.isolated import Crashed, IsolatedCall, map_isolated
from plusx.errors import PlusxError, UsageError


@pytest.fixture(autouse=True)
def crashing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_results_come_in_order() -> None:
    assert list(map_isolated(abs, range(-500, 0), processes=2)) == list(range(500, 0, -1))
    assert list(map_isolated(partial(pow, 2), range(40), processes=3)) == [2**i for i in range(40)]
    assert list(map_isolated(abs, [], processes=2)) == []


def test_a_crash_or_a_hang_costs_its_item_only() -> None:
    from crashing import choke

    found = list(map_isolated(choke, range(120), processes=2, timeout_s=3))
    lost = {i: item for i, item in enumerate(found) if isinstance(item, Crashed)}
    assert sorted(lost) == [7, 33, 44, 57, 107]
    assert [found[i] for i in range(120) if i not in lost] == [
        2 * i for i in range(120) if i not in lost
    ]
    assert all(item.item == i for i, item in lost.items())
    assert lost[7].reason == lost[57].reason == "its process crashed (SIGSEGV)"
    assert lost[33].reason == "took longer than 3 s"
    assert lost[44].reason == "its process ended with status 3"


def test_what_the_function_raises_is_raised_in_its_turn() -> None:
    from crashing import refuse

    results = map_isolated(refuse, itertools.count(), processes=2)
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="five"):
        next(results)


def test_items_are_drawn_as_needed_and_workers_end_with_the_iterator() -> None:
    from crashing import process_of

    drawn = []

    def items() -> Iterator[int]:
        for i in itertools.count():
            drawn.append(i)
            yield i

    results = map_isolated(process_of, items(), processes=2, ahead=64)
    workers = {next(results) for _ in range(100)}
    assert os.getpid() not in workers
    assert 1 <= len(workers) <= 2
    assert len(drawn) <= 100 + 64
    results.close()  # type: ignore[attr-defined]
    assert not any(alive(worker) for worker in workers)


def test_workers_end_when_their_parent_is_killed() -> None:
    code = (
        "import sys; from plusx.data.isolated import map_isolated\n"
        "from crashing import process_of\n"
        "from itertools import count\n"
        "results = map_isolated(process_of, count(), processes=1)\n"
        "print(next(results), flush=True)\n"
        "import time; time.sleep(1000)"
    )
    here = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": here},
    )
    assert parent.stdout is not None
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not alive(worker):
            break
        time.sleep(0.1)
    assert not alive(worker)


def test_what_cannot_work_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="processes 0"):
        map_isolated(abs, [1], processes=0)
    with pytest.raises(UsageError, match="timeout_s 0"):
        map_isolated(abs, [1], processes=1, timeout_s=0)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "vanishing.py").write_text("def f(x):\n    return x\n", encoding="utf-8")
    import vanishing

    (tmp_path / "vanishing.py").write_text("raise RuntimeError('no more')\n", encoding="utf-8")
    with pytest.raises(PlusxError, match="cannot start: RuntimeError: no more"):
        list(map_isolated(vanishing.f, [1], processes=1))
    code = "from plusx.data.isolated import map_isolated\ndef f(x): pass\nmap_isolated(f, [], processes=1)"  # fmt: skip  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "must be importable by name, not of the main module" in done.stderr


def test_calls_one_by_one_outlive_a_crash_and_a_hang() -> None:
    from crashing import choke, refuse

    call = IsolatedCall(choke, timeout_s=3)
    found = [call(i) for i in (1, 7, 8, 33, 9)]
    assert [found[i] for i in (0, 2, 4)] == [2, 16, 18]
    assert found[1] == Crashed(7, "its process crashed (SIGSEGV)")
    assert found[3] == Crashed(33, "took longer than 3 s")
    call.close()
    assert call(2) == 4
    refusing = IsolatedCall(refuse)
    with pytest.raises(ValueError, match="five"):
        refusing(5)
    assert refusing(6) == 6


def test_a_worker_ends_with_its_call() -> None:
    from crashing import process_of

    call = IsolatedCall(process_of)
    process = call(1)
    assert process == call(2) != os.getpid()
    assert alive(process)
    del call
    assert not alive(process)
