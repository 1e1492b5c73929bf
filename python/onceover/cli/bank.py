"""onceover bank: corrections on the device. False alarms join the memory bank once a person confirmed them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from onceover.cli.output import Output, counted, number
from onceover.cli.packages import AddCommand
from onceover.errors import UsageError

if TYPE_CHECKING:
    from onceover.runtime.corrections import Candidate, Corrections
    from onceover.runtime.inspector import Inspector
    from onceover.runtime.session import EngineOptions

AddOptions = Callable[[argparse.ArgumentParser], None]


def add_bank_command(subparsers: Any, command: AddCommand, add_engine: AddOptions) -> None:
    bank = subparsers.add_parser("bank", help="correct false alarms on the device: add, confirm, list, undo, compact")
    kinds = bank.add_subparsers(dest="kind", required=True, metavar="WHAT")

    def kind(name: str, summary: str, run: Callable[..., int]) -> argparse.ArgumentParser:
        parser = command(kinds, name, summary, run)
        parser.add_argument("package", type=Path)
        parser.add_argument("--journal", type=Path, metavar="FILE", help="default: PACKAGE.journal beside the package")
        return parser

    add = kind("add", "record false alarms as candidates, in quarantine until they are confirmed", run_add)
    add.add_argument("images", type=Path, nargs="+", help="images of good parts that were flagged, or folders of them")
    add.add_argument("--confirm", action="store_true", help="confirm them at once")
    add.add_argument("--note", default="", help="what is to be seen, or who said so")
    add.add_argument(
        "--max-rows",
        type=int,
        help="of a new journal: rows that may join each product (default: a tenth of the largest bank, ≥ 256)",
    )
    add.add_argument(
        "--product", metavar="NAME", help="of a package of several: what the images show (default: their gates decide)"
    )
    add_engine(add)
    for name, summary, run in (
        ("confirm", "let the rows of candidates join the memory bank", run_confirm),
        ("reject", "candidates that were no false alarms; their rows leave the memory bank", run_reject),
    ):
        parser = kind(name, summary, run)
        parser.add_argument("ids", type=int, nargs="+", help="numbers of `onceover bank list`")
        _add_reason(parser)
    remove = kind("remove", "take rows out of the memory bank, such as one that hides a defect", run_remove)
    remove.add_argument("rows", type=int, nargs="+", help="row numbers: `nearest` of `onceover inspect --json`")
    remove.add_argument("--product", metavar="NAME", help="of a package of several: whose rows they are")
    _add_reason(remove)
    kind("list", "the audit log: every operation, who and why, and what is in force", run_list)
    undo = kind("undo", "take back the last operation in force; again: the one before", run_undo)
    _add_reason(undo)
    compact = kind("compact", "write a new package that has the corrections inside", run_compact)
    compact.add_argument("-o", "--output", type=Path, required=True, help="the package to write; sign it again")
    add_engine(compact)


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", default="", help="who decided, and why; kept in the journal")


def add_corrections_options(parser: argparse.ArgumentParser) -> None:
    """For the commands that inspect."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--corrections", type=Path, metavar="FILE", help="the journal to inspect with (default: PACKAGE.journal)"
    )
    which.add_argument("--no-corrections", action="store_true", help="inspect as the package was fitted")


def corrections_of(options: argparse.Namespace) -> Path | str | None:
    """For Inspector.open: the journal asked for, the one beside the package, or none."""
    if "corrections" not in options or options.no_corrections:
        return None
    return options.corrections or "auto"


def say_corrections(inspector: Inspector, options: argparse.Namespace, output: Output) -> dict[str, Any]:
    """Tell which corrections decide; → what the JSON says of it."""
    from onceover.runtime.corrections import journal_path

    if inspector.applied is None:
        if corrections_of(options) == "auto" and journal_path(inspector.package.path).exists():
            output.warn(
                f"{journal_path(inspector.package.path)} is not applied: no signature covers it; "
                "give --corrections to inspect with it"
            )
        return {"corrections": None}
    output.say(f"corrected: {escape(inspector.applied.describe())}")
    stale = [each.product for each in inspector.applied.products if each.calibration == "stale"]
    if inspector.applied.calibration == "stale":
        rows = f"fitted rows of {_listed(stale)}" if stale else "fitted rows"
        output.warn(f"{rows} were removed: scores mean something, verdicts do not; `onceover bank undo`, or fit")
    return {"corrections": asdict(inspector.applied)}


def warn_left_out(packages: Sequence[Path], output: Output) -> None:
    """For the commands that make a new package of a fitted one: the journals beside those do not go with it."""
    from onceover.runtime.corrections import corrections_in_force, journal_path

    for package in packages:
        in_force = corrections_in_force(package)
        if in_force is None:
            output.warn(f"{journal_path(package)} cannot be used with {package}: nothing of it is in the new package")
        elif in_force:
            output.warn(
                f"the corrections in {journal_path(package)} are not in the new package; "
                f"to keep them, take what `onceover bank compact {package} -o NEW` writes"
            )


def _open(options: argparse.Namespace, max_rows: int | None = None) -> Corrections:
    from onceover.runtime.corrections import Corrections

    return Corrections.open(options.package, options.journal, max_rows)


def _engine(options: argparse.Namespace) -> EngineOptions:
    from onceover.cli.commands import engine_options

    return engine_options(options)


def run_add(options: argparse.Namespace, output: Output) -> int:
    from onceover.images import list_images
    from onceover.runtime.inspector import Inspector

    corrections = _open(options, options.max_rows)
    inspector = Inspector.open(
        corrections.package, _engine(options), options.threads, product=options.product, corrections=corrections
    )
    several = len(inspector.products) > 1
    images = [image for path in options.images for image in (list_images(path) if path.is_dir() else [path])]
    results = []
    with output.progress() as progress:
        for i, path in enumerate(images):
            results.append(_seen(inspector, path, options))
            progress("inspecting", i + 1, len(images))
        added = [result for result in results if result["decision"] == "anomalous"]
        for i, result in enumerate(added):  # now that no image of any product is refused
            result |= _proposed(corrections, inspector, result, options)
            progress("recording", i + 1, len(added))
        # All were seen before the first is confirmed: what each of them brings makes parts like it pass more surely.
        for result in added if options.confirm else []:
            corrections.confirm([result["candidate"]], options.note)
        inspector.apply_corrections()
        standing = {candidate.id: candidate.standing for candidate in corrections.candidates}
        for i, result in enumerate(added):
            result["standing"] = standing[result["candidate"]]
            if options.confirm:
                after = inspector.inspect(result["image"], product=result["product"])
                result |= {"score_after": after.score, "decision_after": after.decision}
                progress("inspecting again", i + 1, len(added))
    rows = [
        (
            Path(each["image"]).name, *((each["product"],) if several else ()), _cell(each["candidate"]),
            number(each["score"], 4), number(each["threshold"], 4), _cell(each["rows"]),
            each["standing"] or f"{each['decision']}, nothing to correct", number(each["score_after"], 4),
        )
        for each in results
    ]  # fmt: skip
    columns = ("candidate ", "score ", "threshold ", "rows ", "standing", "score now ")
    output.table("false alarms", ("image", *(("product",) if several else ()), *columns), rows)
    if several and options.product is None:
        output.say("products: as their gates found them; --product names one")
    wrong = [Path(each["image"]).name for each in results if each["decision"] == "wrong_part"]
    if wrong:
        output.warn(f"{_listed(wrong)}: no correction changes a gate; --product says which product it is")
    waiting = [each["candidate"] for each in results if each["standing"] == "quarantined"]
    if waiting:
        ids = " ".join(map(str, waiting))
        output.say(f"in quarantine until: onceover bank confirm {escape(str(options.package))} {ids}")
    _report(corrections, output, {"results": results})
    return 0


def _seen(inspector: Inspector, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    before = inspector.inspect(path)
    if before.decision == "uncalibrated":
        which = f"{options.package}: {before.product}" if before.product else str(options.package)
        raise UsageError(f"{which}: is uncalibrated, so that nothing is a false alarm; fit with more images")
    return {
        "image": str(path), "product": before.product, "decision": before.decision, "score": before.score,
        "threshold": before.threshold,
        "candidate": None, "rows": None, "standing": None, "score_after": None, "decision_after": None,
    }  # fmt: skip


def _proposed(
    corrections: Corrections, inspector: Inspector, result: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    candidate, _ = corrections.propose(inspector, result["image"], options.note, product=result["product"])
    return {"candidate": candidate, "rows": len(corrections.candidates[-1].rows)}


def run_confirm(options: argparse.Namespace, output: Output) -> int:
    corrections = _open(options)
    before = {candidate.id for candidate in corrections.candidates if candidate.standing == "evicted"}
    corrections.confirm(options.ids, options.reason)
    evicted = [each.id for each in corrections.candidates if each.standing == "evicted" and each.id not in before]
    output.say(f"confirmed: {_candidates(corrections, options.ids)}")
    if evicted:
        output.warn(f"no room for {_listed(evicted)}, confirmed longest ago; compact the journal into a new package")
    _report(corrections, output, {"confirmed": options.ids, "evicted": evicted})
    return 0


def run_reject(options: argparse.Namespace, output: Output) -> int:
    corrections = _open(options)
    corrections.reject(options.ids, options.reason)
    output.say(f"rejected: {_candidates(corrections, options.ids)}")
    _report(corrections, output, {"rejected": options.ids})
    return 0


def run_remove(options: argparse.Namespace, output: Output) -> int:
    corrections = _open(options)
    corrections.remove(options.rows, options.reason, product=options.product)
    of = f" of {escape(options.product)}" if options.product else ""
    output.say(f"removed from the memory bank{of}: rows {_listed(options.rows)}")
    _report(corrections, output, {"removed": options.rows, "product": options.product})
    return 0


def run_undo(options: argparse.Namespace, output: Output) -> int:
    corrections = _open(options)
    undone = corrections.undo(options.reason)
    operation = corrections.operations[undone - 1]
    of = f" of {escape(operation.product)}" if operation.product else ""
    output.say(f"undone: {undone}, {operation.type} {_listed(operation.named)}{of}")
    _report(corrections, output, {"undone": undone})
    return 0


def run_list(options: argparse.Namespace, output: Output) -> int:
    corrections = _open(options)
    candidates = {candidate.id: candidate for candidate in corrections.candidates}
    several = len(corrections.product_names) > 1
    rows = []
    for operation in corrections.operations:
        candidate = candidates.get(operation.sequence)
        standing = f"undone by {operation.undone_by}" if operation.undone_by else ""
        told = operation.text
        if candidate is not None:
            standing = _standing(candidate)
            size = f"{counted(len(candidate.rows), 'row')}, score {number(candidate.score, 4)}"
            told = " · ".join(text for text in (candidate.name, candidate.note, size) if text)
        what = operation.type if candidate is not None else f"{operation.type} {_listed(operation.named)}"
        product = (operation.product or "",) if several else ()
        when = (str(operation.sequence), _when(operation.time), *product)
        rows.append((*when, what, standing, told))
    columns = ("# ", "time (UTC)", *(("product",) if several else ()), "operation", "standing", "what, why")
    output.table(corrections.path, columns, rows)
    operations = [{**vars(each), "named": list(each.named)} for each in corrections.operations]
    listed = [{**vars(each), "patches": list(each.patches), "rows": list(each.rows)} for each in corrections.candidates]
    _report(corrections, output, {"operations": operations, "candidates": listed})
    return 0


def run_compact(options: argparse.Namespace, output: Output) -> int:
    from onceover.export.compact import compact
    from onceover.runtime.corrections import CALIBRATION_STATES
    from onceover.runtime.package import open_package

    corrections = _open(options)
    with output.progress() as progress:
        package_id = compact(corrections, options.output, _engine(options), options.threads, progress)
    made = open_package(options.output)
    manifests = [made.product_manifest(number) for number in range(len(made.products))]
    told = [each.get("compacted", {}) for each in manifests]  # of this compaction, or an earlier one
    states = {
        name: each["calibration"]
        for name, each in zip(corrections.product_names, told, strict=True)
        if each.get("from") == corrections.package.id
    }
    stale = [name for name, state in states.items() if state == "stale"]
    if stale:
        which = str(options.output) if stale == [None] else f"{options.output}: {_listed(stale)}"
        output.warn(f"{which} is uncalibrated: fitted rows were removed, and nothing tells what that did")
    calibrations: dict[str, Any] = {"calibration": max(states.values(), key=CALIBRATION_STATES.index)}
    calibrations |= {"calibrations": {} if None in states else states}
    output.say(f"[bold]{escape(str(options.output))}[/]: verified, id {package_id[:16]}; sign it again if you sign")
    _report(corrections, output, {"output": str(options.output), "id": package_id, **calibrations})
    return 0


def _report(corrections: Corrections, output: Output, result: dict[str, Any]) -> None:
    """What is in force now, for people and as JSON."""
    bound = corrections.core.max_added_rows
    products = {}
    for name in corrections.product_names:
        removed, numbers, _ = corrections.changes(name)
        products[name] = {"added_rows": len(numbers), "removed_rows": len(removed)}
    rows = "; ".join(
        f"{'' if name is None else f'{escape(name)}: '}{each['added_rows']} of at most {bound} rows added, "
        f"{counted(each['removed_rows'], 'fitted row')} removed"
        for name, each in products.items()
    )
    output.say(f"{escape(corrections.path)}: {rows}, journal {corrections.id[:16]}")
    total = {key: sum(each[key] for each in products.values()) for key in ("added_rows", "removed_rows")}
    if corrections.core.torn_bytes:
        output.warn(f"the last {corrections.core.torn_bytes} bytes are of an operation that did not come to its end")
    output.object(
        {
            "package": corrections.package.path, "id": corrections.package.id, "journal": corrections.path,
            "journal_id": corrections.id, **total, "max_added_rows": bound,
            "products": {} if None in products else products, **result,
        }
    )  # fmt: skip


def _standing(candidate: Candidate) -> str:
    return f"evicted by {candidate.evicted_by}" if candidate.evicted_by else candidate.standing


def _when(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M") if seconds else "unknown"
    except (OverflowError, OSError, ValueError):  # a clock that was never set
        return str(seconds)


def _candidates(corrections: Corrections, ids: Sequence[int]) -> str:
    """Their numbers, of several products with the one that each is of."""
    products = {candidate.id: candidate.product for candidate in corrections.candidates}
    return _listed(f"{each} ({escape(product)})" if (product := products[each]) else each for each in ids)


def _listed(numbers: Any) -> str:
    return ", ".join(map(str, numbers))


def _cell(value: int | None) -> str:
    return "" if value is None else str(value)
