"""PNG without an image library: stored, not compressed, so that the same pixels are the same bytes everywhere."""

from __future__ import annotations

import struct
import zlib

GREY, COLOUR = 1, 3  # channels
_KINDS = {GREY: 0, COLOUR: 2}  # PNG's colour types


def png_of(pixels: bytes, height: int, width: int, channels: int = GREY) -> bytes:
    """PIXELS, uint8 [height, width, channels] row by row, as a PNG."""
    stride = width * channels
    rows = b"".join(b"\0" + pixels[start : start + stride] for start in range(0, height * stride, stride))
    header = struct.pack(">IIBBBBB", width, height, 8, _KINDS[channels], 0, 0, 0)
    signature = b"\x89PNG\r\n\x1a\n"
    return signature + _chunk(b"IHDR", header) + _chunk(b"IDAT", _stored(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _stored(data: bytes) -> bytes:
    """A zlib stream of stored blocks: zlib's own splitting at level 0 differs from version to version."""
    blocks = [data[start : start + 0xFFFF] for start in range(0, len(data), 0xFFFF)] or [b""]
    parts = [struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks]
    return b"\x78\x01" + b"".join(parts) + struct.pack(">I", zlib.adler32(data))
