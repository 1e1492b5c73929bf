"""What the bytes of an image file say before any pixel is decoded: format, size, and whether the file is whole.

Decoders allocate first and complain later, and libjpeg fills the missing half of a picture with gray. So the size is
read here, where it is cheap (decompression bombs), and a cut JPEG or PNG is recognized by its own end mark.
"""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

_JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0..SOF15 without DHT, JPG, DAC
_JPEG_SCAN, _JPEG_END = 0xDA, 0xD9
_JPEG_NEXT_MARKER = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")  # inside a scan FF00 is data and FFD0..FFD7 are restarts


@dataclass(frozen=True)
class ImageHeader:
    """format: "JPEG", "PNG", …, or "" when unknown. size: (height, width) in pixels, None when not read here.

    problem: what is wrong with the file in words, None when nothing is.
    """

    format: str
    size: tuple[int, int] | None = None
    problem: str | None = None


def read_header(data: bytes) -> ImageHeader:
    """The header of an encoded image; never raises, damage is reported in `problem`."""
    for magic, read in (
        (b"\xff\xd8\xff", _read_jpeg),
        (b"\x89PNG\r\n\x1a\n", _read_png),
        (b"BM", _read_bmp),
        (b"II*\x00", _read_tiff),
        (b"MM\x00*", _read_tiff),
        (b"RIFF", _read_webp),
        (b"P", _read_pnm),
    ):
        if data.startswith(magic):
            try:
                return read(data)
            except (struct.error, IndexError):
                return ImageHeader("", None, "the file ends inside its header")
    return ImageHeader("")


def _read_jpeg(data: bytes) -> ImageHeader:
    size: tuple[int, int] | None = None
    scans, position = 0, 2
    while True:
        # Between segments every marker counts; after a scan's header the entropy-coded data is skipped by the pattern.
        found = _JPEG_NEXT_MARKER.search(data, position)
        if found is None:
            return ImageHeader("JPEG", size, "the file is cut: the JPEG end marker is missing")
        marker, position = data[found.end() - 1], found.end()
        if marker == _JPEG_END:
            problem = None if size and scans else "the JPEG holds no picture"
            return ImageHeader("JPEG", size, problem)
        if marker == 0x01:  # TEM stands alone
            continue
        if position + 2 > len(data):
            return ImageHeader("JPEG", size, "the file is cut inside a JPEG segment")
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _JPEG_SIZE_MARKERS and size is None:
            size = struct.unpack_from(">HH", data, position + 3)
        scans += marker == _JPEG_SCAN
        position += length


def _read_png(data: bytes) -> ImageHeader:
    width, height = struct.unpack_from(">II", data, 16)
    position = 8
    while position + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            name = kind.decode("latin-1")
            problem = f"the file is damaged: wrong checksum of PNG chunk {name!r} at byte {position}"
            return ImageHeader("PNG", (height, width), problem)
        if kind == b"IEND":
            return ImageHeader("PNG", (height, width))
        position = end + 4
    return ImageHeader("PNG", (height, width), "the file is cut: the PNG end chunk is missing")


def _read_bmp(data: bytes) -> ImageHeader:
    (header_bytes,) = struct.unpack_from("<I", data, 14)
    if header_bytes == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return ImageHeader("BMP", (abs(height), abs(width)))  # a negative height means top-down rows


def _read_tiff(data: bytes) -> ImageHeader:
    order = "<" if data[:1] == b"I" else ">"
    (directory,) = struct.unpack_from(order + "I", data, 4)
    if directory + 2 > len(data):
        return ImageHeader("TIFF", None, "the file is cut: the TIFF directory lies behind its end")
    (count,) = struct.unpack_from(order + "H", data, directory)
    sides: dict[int, int] = {}
    for entry in range(directory + 2, directory + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, entry)
        if tag in (256, 257):  # ImageWidth, ImageLength: 16-bit (3) or 32-bit (4)
            (sides[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return ImageHeader("TIFF", (sides[257], sides[256]) if len(sides) == 2 else None)


def _read_webp(data: bytes) -> ImageHeader:
    if data[8:12] != b"WEBP":
        return ImageHeader("")
    if len(data) < 8 + struct.unpack_from("<I", data, 4)[0]:
        return ImageHeader("WebP", None, "the file is cut: it is shorter than its WebP header says")
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
    elif kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    else:
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    return ImageHeader("WebP", (height, width))


def _read_pnm(data: bytes) -> ImageHeader:
    found = re.match(rb"P[1-6](?:\s+|#[^\n]*\n)+(\d{1,9})(?:\s+|#[^\n]*\n)+(\d{1,9})\s", data[:4096])
    return ImageHeader("PNM", (int(found[2]), int(found[1]))) if found else ImageHeader("")
