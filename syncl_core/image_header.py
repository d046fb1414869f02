"""The size a compressed image claims to have, read before memory is given to it: a few bytes can claim gigabytes."""

from syncl_core.errors import InputError

MAX_PIXELS = 2**26
"""Larger images are refused: 67 million pixels, eight times those of today's largest vehicle cameras."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8"
_STANDALONE = {0x01, *range(0xD0, 0xD9)}  # JPEG markers without a length: TEM, RST0 to RST7, SOI
_FRAME_HEADERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # SOF0 to SOF15, which are mixed with DHT, JPG and DAC


def compressed_size(encoding: str, data: bytes) -> tuple[int, int]:
    """Width and height in pixels of "jpeg" or "png" bytes. Raises InputError if they do not say or if it is huge."""
    try:
        width, height = _png_size(data) if encoding == "png" else _jpeg_size(data)
        if min(width, height) <= 0:
            raise ValueError(f"it claims to be {width}x{height}")
    except ValueError as error:
        raise corrupt(encoding, data, error) from None
    if width * height > MAX_PIXELS:
        raise InputError(f"image of {width}x{height} pixels; at most {MAX_PIXELS} are taken")
    return width, height


def corrupt(encoding: str, data: bytes, reason: object) -> InputError:
    """What is raised for compressed bytes that cannot be an image."""
    return InputError(f"corrupt {encoding.upper()} of {len(data)} bytes: {reason}")


def _png_size(data: bytes) -> tuple[int, int]:
    if not data.startswith(_PNG_SIGNATURE) or data[12:16] != b"IHDR" or len(data) < 24:
        raise ValueError("it does not begin like a PNG")
    return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Walks over the segments to the frame header, as ITU T.81, B.1.1 lays them out."""
    if not data.startswith(_JPEG_START):
        raise ValueError("it does not begin like a JPEG")
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in _FRAME_HEADERS:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker in (0x00, 0xFF):
            at += 1  # not a marker; fill bytes
        elif marker in _STANDALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    raise ValueError("it has no frame header")
