"""Which images of some folders are whole and not inspected yet: what `onceover inspect --watch` looks for.

By asking the file system again and again: notification (inotify, and the libraries over it) says nothing of what
another machine writes into a network folder, nor when a file is whole: it stands still, and can be decoded.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from onceover.cli.inspecting import short_names
from onceover.errors import InputError, UsageError

TRIES = 5  # of a file that stands still and cannot be read
RESTLESS_S = 30.0  # seconds, after which a file that goes on changing is told
FORGET_BEYOND = 10_000  # files that are gone, before any of them is forgotten
Stamp = tuple[int, int]  # size in bytes, time of change in ns


@dataclass(frozen=True)
class Arrival:
    """An image that has stood still. found: its path, as the look spelled it. name: its path in the folder."""

    found: str
    name: str
    stamp: Stamp

    @property
    def path(self) -> Path:
        return Path(self.found)

    @property
    def picture(self) -> Path:
        """Where a picture of it belongs: the path in the folder, as a PNG file that no other image can have."""
        from onceover.images import EXTENSIONS

        place = Path(self.name)
        taken = Path(place.stem).suffix.lower() in EXTENSIONS  # by the picture of an image of that name
        return place if place.suffix.lower() == ".png" and not taken else place.with_name(f"{place.name}.png")

    def is_as_seen(self) -> bool:
        """Whether the file is still what it was when it was found."""
        try:
            status = os.stat(self.found)
        except OSError:
            return False
        return (status.st_size, status.st_mtime_ns) == self.stamp


@dataclass
class _Waiting:
    stamp: Stamp
    due: float  # in seconds of the clock: when it has stood still for long enough, or may be tried again
    since: float  # when it was first seen, since it was last inspected
    told: bool = False  # that it does not stand still
    tries: int = 0


class Arrivals:
    """Bounded: a record of 16 bytes for each file that was inspected and is still there, and for those that are gone at
    most as many as ever were there at once and FORGET_BEYOND. They are kept because a network folder that is away for
    a moment can look like an empty one.
    """

    def __init__(self, folders: Sequence[Path], settle_s: float, clock: Callable[[], float]) -> None:
        """settle_s: for so long a file stands still before it counts as whole. clock: seconds that never go back.

        Raises InputError for a folder that is not there, UsageError for a file.
        """
        for folder in folders:
            if not folder.exists():
                raise InputError(f"{folder}: no such folder; check the path")
            if not folder.is_dir():
                raise UsageError(f"{folder}: --watch looks into folders; give the folder that it will be written to")
        self.folders = tuple(folders)
        self.problems: dict[str, str] = {}  # by folder: why it cannot be listed now
        self.restless: list[str] = []  # files that have not stood still for long, told once
        self.vanished = 0  # files that were gone before they could be inspected
        self._prefixes = _prefixes(folders)
        self._settle_s, self._clock = settle_s, clock
        self._known: set[bytes] = set()  # of files as they were inspected
        self._most = 0  # files there at once
        self._waiting: dict[str, _Waiting] = {}  # by path

    @property
    def waiting(self) -> int:
        """Files that were seen and are neither inspected nor gone."""
        return len(self._waiting)

    def leave_out_present(self) -> int:
        """What is there by now counts as inspected, unless it changes; → how many files."""
        for path, stamp, _ in self._look():
            self._known.add(_digest(path, stamp))
        return len(self._known)

    def ready(self) -> list[Arrival]:
        """Look once: the images that are whole and not inspected, in the order of their times of change."""
        now = self._clock()
        present: set[bytes] = set()
        there: set[str] = set()  # of those that wait
        found: list[Arrival] = []
        self.restless = []
        for path, stamp, name in self._look():
            digest = _digest(path, stamp)
            present.add(digest)
            if digest in self._known:
                continue
            there.add(path)
            waiting = self._waiting.get(path)
            if waiting is None:
                waiting = self._waiting[path] = _Waiting(stamp, now + self._settle_s, now)
            elif waiting.stamp != stamp:
                waiting.stamp, waiting.due, waiting.tries = stamp, now + self._settle_s, 0
                if now - waiting.since > RESTLESS_S and not waiting.told:
                    waiting.told = True
                    self.restless.append(name)
            if now >= waiting.due:
                found.append(Arrival(path, name, stamp))
        self._forget(present, there)
        found.sort(key=lambda arrival: (arrival.stamp[1], os.fsencode(arrival.found)))
        return found

    def done(self, arrival: Arrival) -> None:
        """It was inspected, or told to be unreadable: not again, until it changes."""
        self._known.add(_digest(arrival.found, arrival.stamp))
        self._waiting.pop(arrival.found, None)

    def try_again(self, arrival: Arrival) -> bool:
        """It could not be read. → whether it will be ready once more; else it counts as inspected."""
        waiting = self._waiting.get(arrival.found)
        if waiting is None or not arrival.is_as_seen():  # it goes on being written, or is gone: the next look tells
            return True
        waiting.tries += 1
        if waiting.tries >= TRIES:
            self.done(arrival)
            return False
        waiting.due = self._clock() + self._settle_s * 2 ** (waiting.tries - 1)
        return True

    def _forget(self, present: set[bytes], there: set[str]) -> None:
        if not self.problems:  # or files would seem gone that only cannot be seen
            gone = [path for path in self._waiting if path not in there]
            for path in gone:
                del self._waiting[path]
            self.vanished += len(gone)
        self._most = max(self._most, len(present))
        if len(self._known) > 2 * self._most + FORGET_BEYOND:
            self._known &= present

    def _look(self) -> Iterator[tuple[str, Stamp, str]]:
        """Every image below the folders that is not hidden: path, stamp, name."""
        from onceover.images import EXTENSIONS

        self.problems = {}
        seen: set[str] = set()
        for folder, prefix in zip(self.folders, self._prefixes, strict=True):
            for parent, folders, names in os.walk(folder, followlinks=True, onerror=self._note):
                real = os.path.realpath(parent)
                if real in seen:  # a link that leads back up would never end; and one folder may be given twice
                    folders.clear()
                    continue
                seen.add(real)
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                below = os.path.normpath(os.path.join(prefix, os.path.relpath(parent, folder)))
                for name in names:
                    if name.startswith(".") or not name.lower().endswith(EXTENSIONS):
                        continue
                    path = f"{parent}/{name}"
                    try:
                        status = os.stat(path)
                    except FileNotFoundError:  # gone since it was listed
                        continue
                    except OSError as error:
                        self.problems[parent] = error.strerror or str(error)
                        continue
                    if stat.S_ISREG(status.st_mode):
                        shown = name if below == "." else f"{below}/{name}"
                        yield path, (status.st_size, status.st_mtime_ns), shown

    def _note(self, error: OSError) -> None:
        if isinstance(error, FileNotFoundError) and error.filename not in map(str, self.folders):
            return  # gone since its parent was listed
        self.problems[str(error.filename)] = error.strerror or str(error)


def _digest(path: str, stamp: Stamp) -> bytes:
    text = f"{path}\0{stamp[0]}\0{stamp[1]}".encode("utf-8", "surrogateescape")
    return hashlib.blake2b(text, digest_size=16).digest()


def _prefixes(folders: Sequence[Path]) -> list[str]:
    """What tells the folders apart, before the path in each; nothing where there is one."""
    return short_names(folders) if len(folders) > 1 else [""]


__all__ = ["Arrival", "Arrivals"]
