"""How commands are told to stop: by Ctrl-C, or by the signals of a service manager or a terminal."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

SIGNALS = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}
NAP_S = 0.2  # of a pause, seconds


class Terminated(KeyboardInterrupt):
    """SIGTERM, as `timeout` and service managers send it: what Ctrl-C tidies up and shows, this does too."""


@contextmanager
def termination_raised() -> Iterator[None]:
    """SIGTERM raises Terminated, unless somebody has other plans with it."""

    def terminate(*_: object) -> None:
        raise Terminated

    main = threading.current_thread() is threading.main_thread()  # no other one may
    if not main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


class Stop:
    """reason: the signal that asked to stop, "" until then."""

    reason = ""

    def asked(self) -> bool:
        return bool(self.reason)


@contextmanager
def asked_to_stop() -> Iterator[Stop]:
    """The first signal asks, so that the image at hand comes to its end; the second Ctrl-C is as ever."""
    stop = Stop()
    before: dict[int, Any] = {}

    def ask(number: int, _: object) -> None:
        stop.reason = SIGNALS[signal.Signals(number).name]
        if signal.SIGINT in before:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    main = threading.current_thread() is threading.main_thread()  # no other one may
    for name in SIGNALS if main else ():
        number = getattr(signal, name)
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup, and the background of a script
            before[number] = signal.signal(number, ask)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def sleep_until(due: float, stop: Stop) -> None:
    """due: of the monotonic clock. In short pieces: a signal does not end a sleep."""
    while not stop.asked() and (left := due - time.monotonic()) > 0:
        time.sleep(min(left, NAP_S))


__all__ = ["SIGNALS", "Stop", "asked_to_stop", "sleep_until"]
