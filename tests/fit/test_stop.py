from __future__ import annotations

import os
import signal

import pytest

from plusx.fit.stop import Stop


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_the_step_and_the_second_does_not(
    number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    stop, before = Stop(), signal.getsignal(number)
    with stop.listening(), stop.patiently():
        os.kill(os.getpid(), number)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert capfd.readouterr().err.count("stopping after this step") == 1
    assert signal.getsignal(number) is before


def test_outside_the_steps_the_first_signal_stops_at_once() -> None:
    stop = Stop()
    with stop.listening(quiet=True):
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        with stop.patiently():
            pass
        assert not stop.asked


def test_signals_that_are_ignored_stay_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        stop = Stop()
        with stop.listening(quiet=True), stop.patiently():
            os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked
    finally:
        signal.signal(signal.SIGINT, before)
