"""Corrections on the device: false alarms that a person confirmed join the memory bank, recorded in a journal beside
the package. A thin view of csrc/corrections; docs/corrections.md tells how to use it.
"""

from __future__ import annotations

import os
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import OnceoverError, UsageError
from onceover.file_hash import file_hash
from onceover.runtime.package import PackageFile, open_package
from onceover.types import Image, Verdict

if TYPE_CHECKING:
    from onceover.runtime.inspector import Inspector

StrPath = str | os.PathLike[str]
Standing = Literal["quarantined", "confirmed", "rejected", "evicted", "undone"]
CalibrationState = Literal["fitted", "exact", "bounded", "kept", "stale"]
NAME_LENGTH = 250  # characters of an image's name that are kept
STANDINGS: tuple[Standing, ...] = get_args(Standing)
CALIBRATION_STATES: tuple[CalibrationState, ...] = get_args(CalibrationState)  # the later, the less is promised


@dataclass(frozen=True)
class Candidate:
    """A false alarm as it was seen. Its rows are in the memory bank while it is confirmed.

    score, threshold: of the image, at that moment. patches: tile after tile, row by row; worst first. rows: the numbers
    that its embeddings have in the memory bank. confirmed_by, evicted_by: operations, None where there was none.
    product: of a package of several, the one whose memory bank it is about; else None.
    """

    id: int
    name: str
    note: str
    image_sha256: str
    score: float
    threshold: float
    patches: tuple[int, ...]
    rows: range
    standing: Standing
    confirmed_by: int | None
    evicted_by: int | None
    product: str | None = None


@dataclass(frozen=True)
class Operation:
    """One record of the journal. named: candidates of propose, confirm and reject, bank rows of remove, the operation
    of undo. time: seconds since 1970, 0 for unknown. undone_by: None while it is in force. product: of propose and
    remove in a package of several, the one whose memory bank they are about; else None.
    """

    sequence: int
    type: str
    time: int
    text: str
    named: tuple[int, ...]
    undone_by: int | None
    product: str | None = None


@dataclass(frozen=True)
class AppliedProduct:
    """What one of several products is decided with; as AppliedCorrections."""

    product: str
    confirmed: int
    added_rows: int
    removed_rows: int
    calibration: CalibrationState
    bounded_parts: int

    def describe(self) -> str:
        return f"{self.product}: {_rows_text(self)}, {_calibration_text(self)}"


@dataclass(frozen=True)
class AppliedCorrections:
    """What an inspector decides with.

    journal: path. id: SHA-256 that names the journal with all its operations, hex. confirmed: candidates in the bank.
    calibration: "exact": thresholds as a new calibration would find them; "bounded": the scores of bounded_parts parts
    may be too high, so that at most the promised share of false alarms remains; "kept": the package's own; "stale":
    fitted rows were removed and nothing is known of what that did, so that nothing is decided; "fitted": no changes.
    products: of a package of several each one's own; then the above are their sums, and the calibration of which the
    least can be promised.
    """

    journal: str
    id: str
    confirmed: int
    added_rows: int
    removed_rows: int
    calibration: CalibrationState
    bounded_parts: int
    products: tuple[AppliedProduct, ...] = ()

    @classmethod
    def of(cls, corrections: Corrections, told: Sequence[dict[str, Any]]) -> AppliedCorrections:
        """told: what a session that applied them says, by product."""
        names = corrections.product_names
        confirmed = [each.product for each in corrections.candidates if each.standing == "confirmed"]
        products = [
            AppliedProduct(name or "", confirmed.count(name), **each) for name, each in zip(names, told, strict=True)
        ]
        return cls(
            corrections.path,
            corrections.id,
            len(confirmed),
            sum(each.added_rows for each in products),
            sum(each.removed_rows for each in products),
            max((each.calibration for each in products), key=CALIBRATION_STATES.index),
            sum(each.bounded_parts for each in products),
            tuple(products) if len(products) > 1 else (),
        )

    def describe(self) -> str:
        """One line for people."""
        journal = f"of {self.journal}, id {self.id[:16]}; "
        corrections = "1 correction" if self.confirmed == 1 else f"{self.confirmed} corrections"
        if not self.products:
            return f"{corrections} ({_rows_text(self)}) {journal}{_calibration_text(self)}"
        changed = [each.describe() for each in self.products if each.calibration != "fitted"]
        return f"{corrections} {journal}{'; '.join(changed) or 'thresholds as fitted'}"


def _rows_text(applied: AppliedCorrections | AppliedProduct) -> str:
    return f"{applied.added_rows} rows added, {applied.removed_rows} removed"


def _calibration_text(applied: AppliedCorrections | AppliedProduct) -> str:
    return {
        "fitted": "thresholds as fitted",
        "exact": "thresholds calibrated again",
        "bounded": f"thresholds calibrated again, too high rather than too low for {applied.bounded_parts} parts",
        "kept": "thresholds as fitted (the package cannot calibrate again)",
        "stale": "UNCALIBRATED: fitted rows were removed and the package cannot calibrate again",
    }[applied.calibration]


def journal_path(package: StrPath) -> Path:
    """Where the journal of a package is kept: PACKAGE.journal beside it."""
    return Path(f"{os.fspath(package)}.journal")


def corrections_in_force(package: StrPath) -> bool | None:
    """Whether the journal beside a package changes its memory bank, so that there is something to compact; False where
    there is none. None: it is of another package, damaged, or its package cannot be opened.
    """
    if not journal_path(package).exists():
        return False
    try:
        corrections = Corrections.open(package)
        changes = [corrections.changes(product) for product in corrections.product_names]
    except OnceoverError:
        return None
    return any(len(removed) + len(added) > 0 for removed, added, _ in changes)


def check_no_journal(package: StrPath) -> None:
    """Before another package gets this name. UsageError where a journal lies beside it: it is of the package that is
    there or was, no other one inspects with it, and the corrections in it would be lost to the line.
    """
    journal = journal_path(package)
    if not journal.exists():
        return
    ours = "the package that has this name until now"
    if not os.path.exists(package):
        what, then = "corrections of a package that is not there", "move it away"
    elif (in_force := corrections_in_force(package)) is None:
        what, then = f"corrections that cannot be used with {ours}", "move it away"
    elif in_force:
        what = f"corrections of {ours}"
        then = (
            f"keep them: `onceover bank compact {os.fspath(package)} -o NEW` writes a package that has them inside; "
            "then move the old one and its journal away"
        )
    else:
        what, then = f"the history of {ours}, in which no correction is in force", "move it away to keep it"
    raise UsageError(
        f"{journal}: holds {what}; no other one inspects with it, so give the new package another name, or {then}"
    )


@dataclass(frozen=True)
class Corrections:
    """The journal of a package: an append-only file, each change on the disk when its call returns.

    Use Corrections.open. Opening makes no file; the first change does. Several processes may write it in turn. Of
    several products in the package each has its own rows, row numbers, bound and thresholds, in one journal.
    """

    package: PackageFile
    core: _core.Corrections = field(repr=False)

    @classmethod
    def open(
        cls, package: StrPath | PackageFile, journal: StrPath | None = None, max_added_rows: int | None = None
    ) -> Corrections:
        """journal: None for the one beside the package. max_added_rows: of a new journal, how many rows its confirmed
        candidates may have before the oldest is evicted, of each product; None for a tenth of the fitted rows of the
        largest memory bank, at least 256.

        Raises InputError for a journal of another package, PackageError for a damaged one, UsageError for one that was
        begun with another bound.
        """
        file = package if isinstance(package, PackageFile) else open_package(package)
        if max_added_rows is not None and not 1 <= max_added_rows < 2**31:
            raise UsageError(f"max_added_rows is {max_added_rows}; give a number of rows from 1")
        path = journal_path(file.path) if journal is None else journal
        core = _core.Corrections(file.core, os.fspath(path), max_added_rows or 0)
        if max_added_rows not in (None, core.max_added_rows):
            raise UsageError(
                f"{path}: holds at most {core.max_added_rows} rows, as it was begun; another bound takes a new journal"
            )
        return cls(file, core)

    @property
    def path(self) -> str:
        return self.core.path

    @property
    def id(self) -> str:
        """SHA-256 of the whole history, hex; the head of its chain of hashes."""
        return self.core.head

    @property
    def product_names(self) -> tuple[str | None, ...]:
        """What candidates and operations call the products; one None for a package of one."""
        names = self.package.products
        return names if len(names) > 1 else (None,)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All that were ever proposed, in order."""
        names = self.product_names
        return tuple(_candidate(row, names[row["product"]]) for row in self.core.proposals)

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The audit log, in order."""
        names = self.product_names
        return tuple(
            Operation(
                row["sequence"], row["type"], row["time"], row["text"], tuple(row["named"]), row["undone_by"] or None,
                names[row["product"]] if row["type"] in ("propose", "remove") else None,
            )
            for row in self.core.operations
        )  # fmt: skip

    def changes(self, product: str | None = None) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.float32]]:
        """Numbers of the fitted rows that are out (r,), of the rows that joined (n,), and these rows (n, D).

        product: of a package of several, the one whose rows are meant. Raises UsageError where it must be named,
        UnknownNameError.
        """
        now = self.core.changes(self._number(product))
        return now["removed"], now["numbers"], now["added"]

    def propose(
        self, inspector: Inspector, image: Image | StrPath, note: str = "", name: str | None = None,
        time: int | None = None, product: str | None = None,
    ) -> tuple[int, Verdict]:  # fmt: skip
        """Inspect an image and record it as a false alarm, in quarantine until confirmed; → its number and verdict.

        inspector: of this package; it decides with the corrections that it has applied. name: None for the file's.
        time: seconds since 1970; None for now. product: of several, the one that it shows; None for the inspector's, or
        the one that the gates find (the verdict says it). Raises UsageError when the image is no alarm, or a wrong
        part: no correction changes a gate.
        """
        if inspector.package.id != self.package.id:
            raise UsageError(f"the inspector is of package {inspector.package.id[:16]}, not {self.package.id[:16]}")
        digest = b""
        if not isinstance(image, np.ndarray):
            digest = bytes.fromhex(file_hash(image))
            name = os.fspath(image) if name is None else name
        verdict = inspector.inspect(image, product=product)
        candidate = inspector.session.candidate()
        number = self.core.propose(candidate, _text(name or ""), note, digest, _time(time))
        return number, verdict

    def confirm(self, ids: Sequence[int], reason: str = "", time: int | None = None) -> None:
        """Let the rows of these candidates join the memory bank. Raises UsageError for one that is in it or unknown."""
        self.core.confirm(_numbers(ids), reason, _time(time))

    def reject(self, ids: Sequence[int], reason: str = "", time: int | None = None) -> None:
        """Candidates that were no false alarms; their rows leave the memory bank where they had joined it."""
        self.core.reject(_numbers(ids), reason, _time(time))

    def remove(
        self, rows: Sequence[int], reason: str = "", time: int | None = None, product: str | None = None
    ) -> None:
        """Take rows out of the memory bank, fitted or joined, such as `Verdict.nearest` of a missed defect.

        product: of a package of several, the one whose rows they are (`Verdict.product`). Raises UsageError where it
        must be named or a row is not there, UnknownNameError.
        """
        self.core.remove(self._number(product), _numbers(rows), reason, _time(time))

    def undo(self, reason: str = "", time: int | None = None) -> int:
        """Take back the last operation in force, of whichever product; → its number. Again: the one before."""
        return self.core.undo(reason, _time(time))

    def refresh(self) -> None:
        """Read what others wrote since."""
        self.core.refresh()

    def _number(self, product: str | None) -> int:
        if product is not None:
            return self.package.product_number(product)
        names = self.package.products
        if len(names) > 1:
            raise UsageError(
                f"{self.package.path}: row numbers are each product's own; name one of {', '.join(names)} (--product)"
            )
        return 0


def _candidate(row: dict[str, Any], product: str | None) -> Candidate:
    first, patches = row["first_row"], tuple(row["patches"])
    return Candidate(
        id=row["id"], name=row["name"], note=row["note"], image_sha256=row["image_sha256"], score=row["score"],
        threshold=row["threshold"], patches=patches, rows=range(first, first + len(patches)),
        standing=row["standing"], confirmed_by=row["confirmed_by"] or None, evicted_by=row["evicted_by"] or None,
        product=product,
    )  # fmt: skip


def _numbers(values: Sequence[int]) -> list[int]:
    for value in values:
        is_number = isinstance(value, (int, np.integer)) and not isinstance(value, bool)  # True would be candidate 1
        if not (is_number and 0 <= value < 2**63):
            raise UsageError(f"{value} is no number of a candidate or row; see `onceover bank list`")
    return [int(value) for value in values]


def _text(name: str) -> str:
    """What a journal can hold of a path: UTF-8, and the end of a very long one."""
    return os.fsencode(name).decode("utf-8", "replace")[-NAME_LENGTH:]


def _time(time: int | None) -> int:
    return int(clock.time()) if time is None else time


__all__ = [
    "CALIBRATION_STATES",
    "STANDINGS",
    "AppliedCorrections",
    "AppliedProduct",
    "Candidate",
    "Corrections",
    "Operation",
    "check_no_journal",
    "corrections_in_force",
    "journal_path",
]
