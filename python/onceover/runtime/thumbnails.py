"""Small pictures of the normal images a memory bank was cut from: the optional package member `thumbnails`.

The bytes are told in export/FORMAT.md. Whoever has the package sees the parts, so nothing is stored unless asked for.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from onceover import _core
from onceover.errors import PackageError, UsageError
from onceover.image_header import read_header
from onceover.images import MAX_SIDE, to_rgb8
from onceover.runtime.package import PackageFile
from onceover.types import Image

MEMBER = "thumbnails"
SIDES = (32, 1024)  # the longest side that may be asked for, in pixels
DEFAULT_SIDE = 256
MAX_IMAGES = 1 << 16
MAX_BYTES = 1 << 30  # of the member
JPEG = 1
_QUALITY = 90  # above it files grow fast and eyes see no difference

_HEADER = struct.Struct("<6I40x")  # record bytes, entry bytes, images, longest side, encoding, zero
_ENTRY = struct.Struct("<6IQ")  # image, height, width, source height, source width, bytes, offset


@dataclass(frozen=True)
class Thumbnail:
    """One picture. size: (height, width); source_size: of the image that it was made from."""

    size: tuple[int, int]
    source_size: tuple[int, int]
    jpeg: bytes


def check_side(side: int) -> int:
    """A side that can be asked for; UsageError for any other."""
    if not SIDES[0] <= side <= SIDES[1]:
        raise UsageError(f"thumbnails of {side} pixels; the longest side may be {SIDES[0]} to {SIDES[1]}")
    return side


def make_thumbnail(image: Image, side: int) -> Thumbnail:
    """Scaled down so that its longest side is at most `side`, never up; a gray image stays gray."""
    rgb = to_rgb8(image)
    height, width = rgb.shape[:2]
    factor = min(1.0, side / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    small = rgb if size == (height, width) else _core.resize(rgb, *size)
    picture = small[..., 0] if image.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    # libjpeg's integer transform, whose bytes do not depend on the CPU; color in full, for it shows defects.
    settings = (
        cv2.IMWRITE_JPEG_QUALITY,
        _QUALITY,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    )
    return Thumbnail(size, (height, width), cv2.imencode(".jpg", picture, settings)[1].tobytes())


def pack(pictures: Mapping[int, Thumbnail], side: int) -> bytes:
    """The member, of pictures by the number of their image. UsageError when they are none or too many."""
    size = sum(len(picture.jpeg) for picture in pictures.values())
    if not 1 <= len(pictures) <= MAX_IMAGES or size > MAX_BYTES // 2:
        raise UsageError(
            f"{len(pictures)} thumbnails of {size / 1e6:.0f} MB together; expected 1 to {MAX_IMAGES} and at most "
            f"{MAX_BYTES // 2 / 1e6:.0f} MB: make them smaller"
        )
    offset = _HEADER.size + _ENTRY.size * len(pictures)
    table = [_HEADER.pack(_HEADER.size, _ENTRY.size, len(pictures), check_side(side), JPEG, 0)]
    for image, picture in sorted(pictures.items()):
        table.append(_ENTRY.pack(image, *picture.size, *picture.source_size, len(picture.jpeg), offset))
        offset += len(picture.jpeg)
    return b"".join((*table, *(picture.jpeg for _, picture in sorted(pictures.items()))))


@dataclass(frozen=True)
class Thumbnails:
    """The pictures of a package, by the number of their image among its bank images. side: the longest, at most."""

    label: str  # of the package, for messages
    side: int
    pictures: Mapping[int, Thumbnail]
    size_bytes: int

    def picture(self, image: int) -> NDArray[np.uint8] | None:
        """(H, W, 3) RGB; None where there is none of this image. PackageError for one that is no JPEG of its size."""
        found = self.pictures.get(image)
        if found is None:
            return None
        header = read_header(found.jpeg)  # before it is decoded: another size may be a huge one
        right = header.format == "JPEG" and header.size == found.size and not header.problem
        decoded = cv2.imdecode(np.frombuffer(found.jpeg, np.uint8), cv2.IMREAD_COLOR) if right else None
        if decoded is None or decoded.shape[:2] != found.size:
            raise _damaged(self.label, f"the picture of image {image} is no JPEG of {found.size[0]} × {found.size[1]}")
        return np.ascontiguousarray(decoded[..., ::-1], np.uint8)


def describe(data: bytes) -> dict[str, int]:
    """What the manifest says of the member."""
    stored = unpack_thumbnails(data, "the new package")
    return {"images": len(stored.pictures), "side": stored.side, "size_bytes": stored.size_bytes}


def privacy_note(said: Mapping[str, int]) -> str:
    """What to know before a package is made: how many pictures, how large, who sees them. said: what describe says."""
    count, megabytes = said["images"], said["size_bytes"] / 1e6
    pictures = "1 picture of your parts" if count == 1 else f"{count} pictures of your parts"
    return f"{pictures}, {megabytes:.2f} MB, will be in the package: whoever has the file sees them"


def read_thumbnails(package: PackageFile) -> Thumbnails | None:
    """The thumbnails of a package, None when it has none; PackageError when they make no sense."""
    member = next((member for member in package.members if member.name == MEMBER), None)
    if member is None:
        return None
    if member.type != "bytes" or member.size_bytes > MAX_BYTES:
        raise _damaged(package.path, f"it is {member.type} of {member.size_bytes} bytes, expected bytes, up to 1 GiB")
    return unpack_thumbnails(package.core.read(MEMBER), package.path)


def unpack_thumbnails(data: bytes, label: str) -> Thumbnails:
    """`pack` in reverse: every number is checked before it is used, pictures when they are looked at."""
    if len(data) < _HEADER.size:
        raise _damaged(label, f"it has {len(data)} bytes, its header alone {_HEADER.size}")
    record_bytes, entry_bytes, count, side, encoding, zero = _HEADER.unpack_from(data)
    if encoding != JPEG or zero != 0 or any(data[24 : _HEADER.size]):
        raise _damaged(label, f"encoding {encoding} or a reserved field is not known here; a newer onceover wrote it")
    right = _HEADER.size <= record_bytes <= 4096 and _ENTRY.size <= entry_bytes <= 4096
    if not right or not 1 <= count <= MAX_IMAGES or not SIDES[0] <= side <= SIDES[1]:
        raise _damaged(label, f"{count} pictures of up to {side} pixels in records of {record_bytes} and {entry_bytes}")
    end = record_bytes + entry_bytes * count
    if end > len(data):
        raise _damaged(label, f"the table of {count} pictures ends at byte {end}, the member at {len(data)}")
    pictures: dict[int, Thumbnail] = {}
    last = -1
    for i in range(count):
        image, height, width, source_height, source_width, size, offset = _ENTRY.unpack_from(
            data, record_bytes + entry_bytes * i
        )
        sides = 1 <= height <= side and 1 <= width <= side and height <= source_height and width <= source_width
        if image <= last or not sides or max(source_height, source_width) > MAX_SIDE:
            raise _damaged(
                label,
                f"picture {i} is of image {image}, {height} × {width} of {source_height} × {source_width}; expected "
                f"ascending images, sides from 1 to {side} and not above the image's, which are at most {MAX_SIDE}",
            )
        if size < 1 or offset != end or size > len(data) - offset:
            raise _damaged(label, f"picture {i} has {size} bytes from byte {offset} on, expected some from {end} on")
        pictures[image] = Thumbnail((height, width), (source_height, source_width), data[offset : offset + size])
        last, end = image, offset + size
    if end != len(data):
        raise _damaged(label, f"the last picture ends at byte {end}, the member at {len(data)}")
    return Thumbnails(label, side, pictures, len(data))


def _damaged(label: str, what: str) -> PackageError:
    return PackageError(f"{label}: member '{MEMBER}': {what}; its writer is at fault, fit again")


__all__ = [
    "DEFAULT_SIDE", "MEMBER", "Thumbnail", "Thumbnails", "check_side", "describe", "make_thumbnail", "pack",
    "privacy_note", "read_thumbnails", "unpack_thumbnails",
]  # fmt: skip
