"""`onceover inspect --explain`, and what it says of the nearest normal patches in words."""

from __future__ import annotations

import argparse
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from rich.markup import escape

from onceover.cli.output import Output
from onceover.errors import UsageError
from onceover.types import Image, NearestPatch, Verdict

if TYPE_CHECKING:
    from onceover.cli.output import StageProgress
    from onceover.runtime.inspector import Inspector

LINES_SHOWN = 20  # of reasons in words; --json has all


def add_explain_options(inspect: argparse.ArgumentParser) -> None:
    inspect.add_argument(
        "--explain",
        type=Path,
        nargs="?",
        const=Path("explained"),
        metavar="DIR",
        help="write a picture for every image: its worst patch beside the nearest normal one (default: explained/)",
    )
    inspect.add_argument(
        "--normals",
        type=Path,
        metavar="DIR",
        help="with --explain: the images that were fitted on, where the package has no thumbnails of them",
    )
    inspect.add_argument(
        "--contours", action="store_true", help="with --json: the outline of every region, pixel by pixel"
    )


class Explainer:
    """Draws explanations; knows where pictures of the normal images are: in a folder, in the package, or nowhere."""

    def __init__(self, inspector: Inspector, normals: Path | None, progress: StageProgress) -> None:
        self.inspector, self.has_pictures = inspector, inspector.thumbnails is not None
        self.normals: dict[int, Path] | None = None
        if normals is not None:
            from onceover.training.normal_images import find_normal_images

            self.normals = find_normal_images(inspector.package, normals, progress=progress)
        self._read = lru_cache(maxsize=2)(_read_image)

    def draw(self, target: Path, image: Image, verdict: Verdict, name: str) -> None:
        from onceover.images import write_image
        from onceover.report.explanation import draw_explanation

        normal = None if verdict.reason is None else self.normal_image(verdict.reason)
        write_image(target, draw_explanation(image, verdict, normal, name, self._missing()))

    def normal_image(self, reason: NearestPatch) -> Image | None:
        """The image with the nearest normal patch, from the folder if it is there, else its thumbnail."""
        if self.normals and reason.image_index in self.normals:
            return self._read(self.normals[reason.image_index])
        return self.inspector.normal_picture(reason)

    def _missing(self) -> str:
        if self.normals is not None:
            return "no picture: the image is not in the folder of --normals (compared by SHA-256)"
        if self.has_pictures:
            return "no picture of this image in the package"
        return "no picture in this package: fit with --thumbnails, or give the images with --normals DIR"


def open_explainer(inspector: Inspector, options: argparse.Namespace, output: Output) -> Explainer | None:
    """None unless explanations are asked for."""
    if options.explain is not None and options.save is not None and options.explain.resolve() == options.save.resolve():
        raise UsageError(f"--save and --explain {options.explain}: one folder for both; give them two")
    if options.explain is None:
        if options.normals is not None:
            raise UsageError("--normals shows pictures in explanations; give it with --explain DIR")
        return None
    with output.progress() as progress:
        return Explainer(inspector, options.normals, progress)


def show_reasons(told: list[tuple[str, NearestPatch]], output: Output) -> None:
    """A line for each (image, its reason): the nearest normal patch, and how far it is."""
    for name, reason in told[:LINES_SHOWN]:
        output.say(f"{escape(name)}: {escape(reason_in_words(reason))}")
    if len(told) > LINES_SHOWN:
        output.say(f"and {len(told) - LINES_SHOWN} more; --json tells all")


def reason_in_words(reason: NearestPatch) -> str:
    """Where the worst patch is, the normal patch nearest to it, and their distance."""
    text = f"worst at {_place(reason.box)}; nearest normal: "
    if reason.image_box is None:
        text += f"memory bank row {reason.bank_row}"
    else:
        text += f"{reason.image or f'bank image {reason.image_index}'} at {_place(reason.image_box)}"
    return text + ("" if reason.times_threshold is None else f", {reason.times_threshold:.2f} × threshold")


def _place(box: tuple[float, float, float, float]) -> str:
    """The middle of a box of parts 0 … 1."""
    return f"{50 * (box[0] + box[2]):.0f} % down, {50 * (box[1] + box[3]):.0f} % across"


def _read_image(path: Path) -> Image:
    from onceover.images import read_image

    return read_image(path)
