"""Signals: at once outside a deferred section, at its end inside, and a second one does not wait."""

from __future__ import annotations

import os
import signal

import pytest

from reopold_vl.stop import Stopped, StopSignals


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_outside_a_deferred_section_it_stops_at_once(number: int, code: int) -> None:
    with pytest.raises(Stopped) as stopped, StopSignals().installed():
        send(number)
        pytest.fail("went on after the signal")
    assert stopped.value.code == code and str(stopped.value) == signal.Signals(number).name


def test_inside_it_waits_and_tells_that_it_was_asked() -> None:
    done = []
    with pytest.raises(Stopped), StopSignals().installed() as stop, stop.deferred():
        send(signal.SIGTERM)
        done.append(stop.requested())
    assert done == [True]


def test_a_second_signal_does_not_wait() -> None:
    with pytest.raises(Stopped), StopSignals().installed() as stop, stop.deferred():
        send(signal.SIGINT)
        send(signal.SIGINT)
        pytest.fail("went on after the second signal")


def test_a_signal_that_comes_while_the_processes_agree_is_not_lost() -> None:
    asked = []

    def share(number: float) -> float:
        if not asked:
            send(signal.SIGTERM)  # this process had none when it was asked
        return number

    with pytest.raises(Stopped), StopSignals(share).installed() as stop, stop.deferred():
        asked.append(stop.requested())
        asked.append(stop.requested())
    assert asked == [False, True]


def test_a_signal_to_another_process_stops_this_one() -> None:
    told = StopSignals(lambda number: signal.SIGTERM)
    with pytest.raises(Stopped) as stopped, told.installed() as stop, stop.deferred():
        assert stop.requested()
    assert stopped.value.code == 143


def test_a_broad_except_does_not_swallow_it() -> None:
    with pytest.raises(Stopped), StopSignals().installed():
        try:
            send(signal.SIGINT)
        except Exception:  # noqa: BLE001  (what a library may do)
            pytest.fail("swallowed")


def test_the_old_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals().installed():
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
