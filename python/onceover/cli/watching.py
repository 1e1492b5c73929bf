"""`onceover inspect --watch`: inspects images as they are written into folders, until it is stopped."""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover.cli.arrivals import Arrival, Arrivals
from onceover.cli.bank import corrections_of, say_corrections
from onceover.cli.explaining import open_explainer, reason_in_words
from onceover.cli.inspecting import (
    SETTLE_S,
    UNCALIBRATED,
    VERDICT_STYLES,
    calibration_facts,
    other_sizes,
    save_picture,
    verdict_cells,
)
from onceover.cli.monitoring import now, open_log
from onceover.cli.output import STOPS, Output, counted, printable, reason_to_stop
from onceover.cli.stopping import SIGNALS, Stop, asked_to_stop, sleep_until
from onceover.errors import InputError, OnceoverError, OutputError
from onceover.types import Image, Verdict

if TYPE_CHECKING:
    from onceover.monitoring.log import InspectionLog
    from onceover.runtime.inspector import Inspector

LOOK_S = 0.2  # between two looks, seconds
LOOK_SHARE = 9  # and so many times what a look takes: it leaves the processor and the network to others

Draw = Callable[[Path, Image, Verdict, str], None]  # as in commands.py


def run_watch(inspector: Inspector, options: argparse.Namespace, output: Output) -> int:
    """Exit status 0 when it is stopped as asked, else that of what stopped it."""
    arrivals = Arrivals(options.images, SETTLE_S if options.settle is None else options.settle, time.monotonic)
    drawings: list[tuple[str, Path, Draw]] = []
    for folder in (options.save, options.explain):
        if folder is not None:
            _make_folder(folder)
    if options.save:
        drawings.append(("picture", options.save, save_picture))
    explainer = open_explainer(inspector, options, output)
    if explainer:
        drawings.append(("explanation", options.explain, explainer.draw))
    with asked_to_stop() as stop, open_log(options.log, inspector.package) as log:
        return _Watch(inspector, arrivals, drawings, log, options, output, stop).run()


class _Watch:
    """What is told of each image, and how many there were."""

    def __init__(
        self,
        inspector: Inspector,
        arrivals: Arrivals,
        drawings: Sequence[tuple[str, Path, Draw]],
        log: InspectionLog | None,
        options: argparse.Namespace,
        output: Output,
        stop: Stop,
    ) -> None:
        self._inspector, self._arrivals, self._drawings, self._log = inspector, arrivals, drawings, log
        self._options, self._output, self._stop = options, output, stop
        self._decisions: Counter[str] = Counter()
        self._unreadable = 0
        self._problems: dict[str, str] = {}
        self._size_told = False
        self._journal = _Journal(inspector, options)
        self._package = _stamp(options.package)

    def run(self) -> int:
        stop = self._stop
        self._start()
        try:
            while not stop.asked():
                begun = time.monotonic()
                arrived = self._arrivals.ready()
                ended = time.monotonic()
                self._tell_problems()
                self._tell_another_package()
                self._follow_corrections()
                for arrival in arrived:
                    if stop.asked():
                        break
                    self._follow_corrections()
                    self._inspect(arrival)
                sleep_until(ended + max(LOOK_S, LOOK_SHARE * (ended - begun)), stop)
        except STOPS as error:
            status, reason = reason_to_stop(error)
            self._end(reason)
            self._output.error(reason)
            return status
        self._end(stop.reason)
        return 0

    def _start(self) -> None:
        options, output, inspector = self._options, self._output, self._inspector
        folders = [str(folder) for folder in options.images]
        left_out = f"; {counted(self._arrivals.leave_out_present(), 'file')} left out" if options.new_only else ""
        corrected = say_corrections(inspector, options, output)
        output.say(f"watching {escape(', '.join(folders))}{left_out}; Ctrl-C ends")
        if not inspector.calibration.calibrated:
            output.warn(UNCALIBRATED)
        mixed = len(inspector.products) > 1 and options.product is None
        told = {"package": str(options.package), "id": inspector.package.id, **corrected}
        told |= {"calibration": None if mixed else calibration_facts(inspector.calibration), "folders": folders}
        self._line("started", told)

    def _inspect(self, arrival: Arrival) -> None:
        from onceover.images import read_image

        try:
            image = read_image(arrival.path)
            if not arrival.is_as_seen():  # it may be half of what it was and half of what it becomes
                return
            verdict = self._inspector.inspect(image)
        except InputError as error:
            if not self._arrivals.try_again(arrival):
                self._tell_unreadable(arrival, str(error))
            return
        self._arrivals.done(arrival)
        at = now()
        result = {"image": str(arrival.path), **verdict.to_dict(self._options.contours), "time": at}
        self._decisions[verdict.decision] += 1
        try:
            if self._log is not None:
                self._log.append(str(arrival.path), verdict, image, time=at)
            for key, folder, draw in self._drawings:
                target = folder / arrival.picture
                _make_folder(target.parent)
                draw(target, image, verdict, arrival.name)
                result[key] = str(target)
        finally:  # a full disk does not cost the verdict
            self._tell(arrival.name, result, verdict)
        self._tell_size(image)

    def _tell(self, name: str, result: dict[str, Any], verdict: Verdict) -> None:
        decision, score, p_value, regions, ms = verdict_cells(verdict)
        style = VERDICT_STYLES.get(decision, "default")
        product = f"  {escape(str(result['product']))}" if "product" in result else ""
        numbers = f"score {score}  p-value {p_value}  regions {regions}  {ms} ms"
        self._output.say(f"{escape(printable(name))}{product}  [{style}]{decision}[/]  {numbers}")
        if verdict.reason is not None and verdict.decision != "normal":
            self._output.say(f"    {escape(reason_in_words(verdict.reason))}")
        self._line("verdict", result)

    def _tell_unreadable(self, arrival: Arrival, message: str) -> None:
        self._unreadable += 1
        self._output.say(f"{escape(printable(arrival.name))}  [{VERDICT_STYLES['unreadable']}]unreadable[/]")
        self._output.error(message)
        self._line("unreadable", {"image": str(arrival.path), "message": message, "time": now()})

    def _tell_size(self, image: Image) -> None:
        """Once: images of another size than those that were fitted on."""
        if self._size_told or len(self._inspector.products) > 1:
            return
        message = other_sizes(Counter([(image.shape[0], image.shape[1])]), self._inspector.manifest.get("data"))
        if message:
            self._size_told = True
            self._note(message)

    def _tell_problems(self) -> None:
        problems = self._arrivals.problems
        for folder, problem in problems.items():
            if folder not in self._problems:
                self._note(f"{folder}: cannot be listed: {problem}; waiting for it")
        for folder in self._problems:
            if folder not in problems:
                self._note(f"{folder}: is there again")
        self._problems = problems
        for name in self._arrivals.restless:
            self._note(f"{name}: changes all the time; it is inspected once it stands still, see --settle")

    def _tell_another_package(self) -> None:
        """Once for each: the open one goes on, since a threshold that changed by itself would surprise a line."""
        package = _stamp(self._options.package)
        if package is not None and package != self._package:
            self._package = package
            self._note(f"{self._options.package}: is another package now; start again to inspect with it")

    def _follow_corrections(self) -> None:
        """Those of the journal, when it has changed."""
        try:
            applied = self._journal.follow()
        except OnceoverError as error:
            self._note(f"{error}; what decided until now goes on deciding")
            return
        if applied:
            self._line("corrections", say_corrections(self._inspector, self._options, self._output))

    def _note(self, message: str) -> None:
        self._output.warn(message)
        self._line("note", {"message": message})

    def _end(self, reason: str) -> None:
        images = self._decisions.total() + self._unreadable
        kinds = [f"{count:,} {decision}" for decision, count in self._decisions.most_common()]
        kinds += [f"{self._unreadable:,} unreadable"] if self._unreadable else []
        text = counted(images, "image") + (f": {', '.join(kinds)}" if kinds else "")
        if self._arrivals.vanished:
            text += f"; {counted(self._arrivals.vanished, 'file')} gone before they could be inspected"
        if self._arrivals.waiting:
            text += f"; {counted(self._arrivals.waiting, 'file')} still to be inspected"
        asked = reason in SIGNALS.values()
        self._output.warn(f"stopped{f' by {reason}' if asked else ''}; {text}")
        told = {"reason": reason, "images": images, "decisions": dict(self._decisions)}
        told |= {"unreadable": self._unreadable, "vanished": self._arrivals.vanished}
        told |= {"waiting": self._arrivals.waiting}
        self._line("stopped", told)

    def _line(self, event: str, told: dict[str, Any]) -> None:
        self._output.object({"event": event, **told})
        if self._output.unread and not self._stop.asked() and event != "stopped":  # Ctrl-C ends a whole pipeline
            raise OutputError("nobody reads the verdicts any more: stdout is closed; start it again with its reader")


class _Journal:
    """Follows the journal that the inspector decides with, or the one that may come beside its package."""

    def __init__(self, inspector: Inspector, options: argparse.Namespace) -> None:
        from onceover.runtime.corrections import journal_path

        self._inspector = inspector
        self._path: Path | None = None
        if inspector.corrections is not None:
            self._path = Path(inspector.corrections.path)
        elif corrections_of(options) == "auto" and options.key is None:  # no signature covers a journal
            self._path = journal_path(inspector.package.path)
        self._seen = _stamp(self._path)

    def follow(self) -> bool:
        """Apply it where it has changed since the last call; → whether others decide now. Raises what the journal
        raises, once."""
        from onceover.runtime.corrections import Corrections

        stamp = _stamp(self._path)  # before it is read: what comes meanwhile is seen the next time
        if self._path is None or stamp == self._seen:
            return False
        self._seen = stamp
        if self._inspector.corrections is None:
            self._inspector.corrections = Corrections.open(self._inspector.package, self._path)
        before = self._inspector.applied
        applied = self._inspector.apply_corrections()
        return before is None or applied.id != before.id  # read while it was written, it is seen to change once more


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    """What changes when a file does; None where there is none."""
    try:
        status = os.stat(path) if path is not None else None
    except OSError:
        return None
    return None if status is None else (status.st_ino, status.st_size, status.st_mtime_ns)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be created: {error.strerror}; choose another folder") from error


__all__ = ["run_watch"]
