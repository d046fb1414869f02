"""Scalars as a TensorBoard event file, written without TensorBoard: its package would bring a dozen others.

Format: TFRecord framing (length, its checksum, data, its checksum; masked CRC-32C, RFC 3720) around `Event` messages in
protobuf's wire format: 1 wall_time double, 2 step int64, 3 file_version string, 5 summary; a summary's field 1 is a
value with 1 tag string, 2 simple_value float.
"""

import struct
import time
from collections.abc import Mapping
from pathlib import Path

from syncl_core.io.files import make_folder

_CASTAGNOLI = 0x82F63B78  # reversed polynomial of CRC-32C


class EventFile:
    """One file per process and start; TensorBoard shows all files of a folder as one run.

    purge_step: hides what an interrupted run had written from this step on; 0 = nothing.
    """

    def __init__(self, folder: Path, purge_step: int = 0):
        make_folder(folder)
        seconds, rest = divmod(time.time_ns(), 10**9)
        self._file = (folder / f"events.out.tfevents.{seconds:010d}.{rest:09d}").open("wb")
        self._write(_string(3, b"brain.Event:2"))
        if purge_step:
            session_start = _bytes(7, _varint(1, 1))  # SessionLog with status START
            self._write(_varint(2, purge_step) + session_start)

    def add(self, step: int, scalars: Mapping[str, float]) -> None:
        values = b"".join(
            _bytes(1, _string(1, name.encode()) + struct.pack("<Bf", 2 << 3 | 5, value))
            for name, value in scalars.items()
        )
        self._write(_varint(2, step) + _bytes(5, values))

    def close(self) -> None:
        self._file.close()

    def _write(self, message: bytes) -> None:
        data = struct.pack("<Bd", 1 << 3 | 1, time.time()) + message
        length = struct.pack("<Q", len(data))
        self._file.write(length + _checksum(length) + data + _checksum(data))
        self._file.flush()


def crc32c(data: bytes) -> int:
    """The CRC-32C of some bytes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _table_entry(byte: int) -> int:
    for _ in range(8):
        byte = (byte >> 1) ^ (_CASTAGNOLI if byte & 1 else 0)
    return byte


_TABLE = tuple(_table_entry(byte) for byte in range(256))


def _checksum(data: bytes) -> bytes:
    """TFRecord's masked checksum: rotated and shifted, so that checksums of checksums are no problem."""
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _varint(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _unsigned(value)


def _bytes(field: int, value: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _unsigned(len(value)) + value


_string = _bytes


def _unsigned(value: int) -> bytes:
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
