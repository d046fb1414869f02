"""Seeded noise into the runtime: sets stay true, nothing blocks, bad bytes are refused by name and cost no memory."""

import dataclasses
import io
import struct
from functools import cache
from random import Random
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import simplejpeg
from PIL import Image

from syncl_core import images
from syncl_core.config import ImageConfig, SyncConfig
from syncl_core.errors import InputError
from syncl_core.image_header import MAX_PIXELS, compressed_size
from syncl_core.io import messages
from syncl_core.rectify import Rectifier
from syncl_core.runtime.set_assembler import SetAssembler

MS = 1_000_000
START_NS = 1_532_402_927_512_404_000
NETWORK = ImageConfig(height=16, width=40)


class Watched(SetAssembler):
    """Checks every set, as it is taken, against the stamps that were expected then."""

    def __init__(self, *args):
        super().__init__(*args)
        self.used = set()
        self.allowed_ns = round(args[0].max_spread * 1e9)
        self.fewest = args[0].min_cameras

    def _take(self, anchor_ns, choices, closed_by):
        expected = {camera: anchor_ns + phase_ns for camera, phase_ns in self.phases_ns.items()}
        result = super()._take(anchor_ns, choices, closed_by)
        if result is not None:
            present = [t for t in result.stamps_ns if t is not None]
            assert len(present) >= self.fewest and result.spread_ns == max(present) - min(present)
            for camera, t_ns, payload in zip(self.cameras, result.stamps_ns, result.payloads, strict=True):
                assert (payload is None) == (t_ns is None)
                if t_ns is not None:
                    assert abs(t_ns - expected[camera]) <= self.allowed_ns, "paired beyond the spread"
                    assert payload[:2] == (camera, t_ns) and payload not in self.used, "an image is used once"
                    self.used.add(payload)
        return result


def noisy_sequence(random, config, cameras):
    """A few dozen messages of cameras that drop, repeat, swap, jitter, stop, jump in time; then steady sweeps.

    Polls now and then, on a clock that goes on. Returns the sets of the noise and of the steady end.
    """
    now = [0]
    assembler = Watched(config, cameras, lambda: now[0])
    period_ms = random.choice((83, 100, 500))
    noise, stamp_ns, loss, count = [], START_NS, random.choice((0.0, 0.2, 0.6)), 0
    for _ in range(random.randrange(2, 5)):
        stamp_ns += period_ms * MS * random.choice((1, 1, 1, 1, 1, 1, 0, 7, -30))
        for camera in random.sample(cameras, len(cameras)):
            if random.random() >= loss:
                t_ns, count = stamp_ns + random.randrange(-70, 70) * MS, count + 1
                assembler.add(camera, t_ns, (camera, t_ns, count))
            if random.random() < 0.1:
                other, t_ns, count = (
                    random.choice((*cameras, "nobody")),
                    stamp_ns + random.randrange(-400, 400) * MS,
                    count + 1,
                )
                assembler.add(other, t_ns, (other, t_ns, count))
        now[0] += random.randrange(1, period_ms) * MS
        if random.random() < 0.7:
            noise += assembler.poll()
    steady = []
    for sweep in range(8):
        for camera in cameras:
            t_ns, count = stamp_ns + 10**10 + sweep * 600 * MS, count + 1
            assembler.add(camera, t_ns, (camera, t_ns, count))
        now[0] += 600 * MS
        steady += assembler.poll()
        if steady:
            break
    now[0] += 1000 * MS  # so long others that send may come to where one camera is
    assembler.poll()
    assert assembler.next_deadline_ns() is None, "everything was there in time, and the clock ran out on the rest"
    return noise, steady


def test_100_000_noisy_sequences_keep_the_laws_of_sets():
    """Every image used once, near its expected stamp, never too few; and after any noise the sets resume."""
    random, total = Random(20), 0
    for _ in range(100_000):
        cameras = random.choice((("A", "B"), ("A", "B", "C")))
        config = SyncConfig(min_cameras=random.choice((1, 2)), process_period=random.choice((0.0, 0.1, 0.5)))
        if random.random() < 0.5:
            config = dataclasses.replace(config, min_cameras=len(cameras))
        noise, steady = noisy_sequence(random, config, cameras)
        assert steady, "sets resume after any noise"
        total += len(noise)
    assert total > 50_000


@cache
def jpeg(height=36, width=64, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return simplejpeg.encode_jpeg(pixels, quality=80)


@cache
def png():
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (36, 64, 3), dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def mutated(random, data):
    """Bits flipped, bytes cut, doubled, moved or replaced by extreme ones."""
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 8, 60))):
        at, kind = random.randrange(len(data)), random.randrange(5)
        if kind == 0:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[at] = random.choice((0x00, 0xFF, 0xD8, 0xC0, 0xC2, 0x7F))
        elif kind == 2:
            del data[at : at + random.choice((1, 4, len(data)))]
        elif kind == 3:
            data[at:at] = data[: random.choice((1, 16))]
        else:
            data[at : at + 4] = struct.pack(">I", random.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, random.getrandbits(32))))
        if not data:
            break
    return bytes(data)


def compressed(random):
    data = random.choice((jpeg(), png(), b"", b"\xff\xd8\xff", random.randbytes(random.randrange(300))))
    form = random.choice(("jpeg", "png", "rgb8; jpeg compressed bgr8", "jpeg", "png", "webp", "", "\0"))
    return SimpleNamespace(format=form, data=mutated(random, data) if data else data)


def raw(random):
    numbers = (0, 1, 3, 64, 36, 192, 2**31, 2**32 - 1)
    return SimpleNamespace(
        encoding=random.choice(("rgb8", "bgr8", "rgba8", "bgra8", "mono8", "bayer_rggb8", "16UC1", "", "jpeg")),
        width=random.choice((64, 64, *numbers)),
        height=random.choice((36, 36, *numbers)),
        step=random.choice((192, 0, *numbers)),
        data=random.choice((bytes(64 * 36 * 3), bytes(7), b"", jpeg())),
    )


def camera_info(random):
    odd = (0.0, -1.0, 1e-320, 1e308, float("nan"), float("inf"), random.uniform(-2, 2))

    def spoiled(values, rate):
        return [random.choice(odd) if random.random() < rate else v for v in values]

    def count(usual):
        return random.choice((usual, usual, usual, usual, 0, 1, 2**16, 2**32 - 1, random.randrange(2000)))

    rate = random.choice((0.0, 0.02, 0.3))
    k = [60.0, 0, 32, 0, 60, 18, 0, 0, 1]
    p = random.choice(([55.0, 0, 32, 0, 0, 55, 18, 0, 0, 0, 1, 0], [0.0] * 12))
    none = random.random() < 0.7
    roi = {"x_offset": 0, "y_offset": 0, "width": 0, "height": 0}
    return SimpleNamespace(
        width=count(64),
        height=count(36),
        k=spoiled(k, rate)[: 9 - (random.random() < 0.03)],
        p=spoiled(p, rate)[: 12 - (random.random() < 0.03)],
        d=spoiled([0.0] * random.choice((0, 4, 5, 8, 12)), random.choice((0.0, 0.5))),
        distortion_model=random.choice(("plumb_bob", "rational_polynomial", "equidistant", "", "mirror")),
        roi=SimpleNamespace(**{name: 0 if none else count(value) for name, value in roi.items()}),
        binning_x=0 if none else count(1),
        binning_y=0 if none else count(1),
    )


def network_image(message):
    pixels = images.decode(messages.raw_image_from(message))
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size <= 3 * MAX_PIXELS
    return images.scale_and_crop(pixels, NETWORK)


def use_calibration(random, message):
    model = messages.camera_model_from(message, rectified=random.random() < 0.5)
    intrinsics = images.scale_and_crop_intrinsics(model.intrinsics, model.width, model.height, NETWORK)
    if model.width * model.height <= 64 * 36:
        pixels = np.zeros((model.height, model.width, 3), np.uint8)
        assert Rectifier(NETWORK).network_image(pixels, model).shape == (3, NETWORK.height, NETWORK.width)
    return intrinsics


def test_10_000_mutated_messages_are_used_or_refused_by_name():
    random, used, refused = Random(21), 0, set()
    for i in range(10_000):
        try:
            if i % 3 == 0:
                use_calibration(random, camera_info(random))
            else:
                network_image(compressed(random) if i % 3 == 1 else raw(random))
            used += 1
        except InputError as error:
            assert "\n" not in str(error)
            refused.add(str(error).split(" ")[0])
    assert used > 500 and len(refused) > 8


def png_header(width, height):
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(9)


def jpeg_header(width, height):
    return b"\xff\xd8" + struct.pack(">2sHBHHB", b"\xff\xc0", 17, 8, height, width, 3) + bytes(9)


@pytest.mark.parametrize(
    "encoding, data", [("png", png_header(2**31 - 1, 2**31 - 1)), ("png", png_header(10_000, 10_000)),
                       ("jpeg", jpeg_header(65_500, 65_500))]
)  # fmt: skip
def test_a_few_bytes_that_claim_to_be_huge_are_refused_before_decoding(encoding, data, monkeypatch):
    monkeypatch.setattr(images, "_decode_jpeg", None)
    monkeypatch.setattr(images, "_decode_png", None)
    form = SimpleNamespace(format=encoding, data=data)
    with pytest.raises(InputError, match="pixels; at most 67108864 are taken"):
        images.decode(messages.raw_image_from(form))


def test_an_image_that_scaling_would_blow_up_is_refused():
    with pytest.raises(InputError, match="1x60000 pixels is too narrow"):
        images.scale_and_crop(np.zeros((60_000, 1, 3), np.uint8), ImageConfig(height=32, width=1600))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"comment": b"\xff\xd9 not the end \xff\xc0"}])
def test_sizes_are_read_from_headers(options):
    buffer = io.BytesIO()
    Image.new("RGB", (37, 21)).save(buffer, "JPEG", **options)
    assert compressed_size("jpeg", buffer.getvalue()) == (37, 21)
    assert compressed_size("png", png()) == (64, 36)
    for data in (b"", b"\xff\xd8", buffer.getvalue()[:40], png()):
        with pytest.raises(InputError, match=f"corrupt JPEG of {len(data)} bytes"):
            compressed_size("jpeg", data)
    with pytest.raises(InputError, match="begin like a PNG"):
        compressed_size("png", buffer.getvalue())


def test_an_exception_of_the_decoder_is_an_input_error(monkeypatch):
    """OpenCV throws where it finds no memory, for instance."""

    def throw(*_):
        raise cv2.error("Insufficient memory")

    monkeypatch.setattr(cv2, "imdecode", throw)
    with pytest.raises(InputError, match="corrupt PNG of .* OpenCV cannot decode it"):
        images.decode(messages.raw_image_from(SimpleNamespace(format="png", data=png())))
