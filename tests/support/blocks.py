"""
Random blocks of every quantized type, with sane scales: weights for tests of arithmetic that need no real values.

Source of the layouts: the block structs in ggml-common.h. A type's entry says how many elements and bytes a block has,
where its scales stand, and about how large a weight is when the scale is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests.support.gguf_writer import Tensor


@dataclass(frozen=True)
class Layout:
    number: int
    elements: int
    bytes: int
    scales: tuple[int, ...]  # offsets of half floats
    size: float


LAYOUTS = {
    "q4_0": Layout(2, 32, 18, (0,), 4.6),
    "q4_1": Layout(3, 32, 20, (0, 2), 9),
    "q5_0": Layout(6, 32, 22, (0,), 9.2),
    "q5_1": Layout(7, 32, 24, (0, 2), 18),
    "q8_0": Layout(8, 32, 34, (0,), 74),
    "q2_k": Layout(10, 256, 84, (80, 82), 18),
    "q3_k": Layout(11, 256, 110, (108,), 45),
    "q4_k": Layout(12, 256, 144, (0, 2), 350),
    "q5_k": Layout(13, 256, 176, (0, 2), 700),
    "q6_k": Layout(14, 256, 210, (208,), 1300),
    "iq2_xxs": Layout(16, 256, 66, (0,), 40),
    "iq2_xs": Layout(17, 256, 74, (0,), 40),
    "iq3_xxs": Layout(18, 256, 98, (0,), 120),
    "iq1_s": Layout(19, 256, 50, (0,), 8),
    "iq4_nl": Layout(20, 32, 18, (0,), 65),
    "iq3_s": Layout(21, 256, 110, (0,), 120),
    "iq2_s": Layout(22, 256, 82, (0,), 40),
    "iq4_xs": Layout(23, 256, 136, (0,), 1200),
    "iq1_m": Layout(29, 256, 56, (), 8),
    "tq1_0": Layout(34, 256, 54, (52,), 0.8),
    "tq2_0": Layout(35, 256, 66, (64,), 1.2),
    "mxfp4": Layout(39, 32, 17, (), 3),
    "nvfp4": Layout(40, 64, 36, (), 3),
    "q1_0": Layout(41, 128, 18, (0,), 1),
    "q2_0": Layout(42, 64, 18, (0,), 1),
}


def random_blocks(name: str, shape: tuple[int, ...], random: np.random.Generator) -> Tensor:
    """
    A random tensor of that type.

    Args:
        name: A key of LAYOUTS.
        shape: As NumPy has it; the last is a multiple of the block's elements.
        random: Where the bytes come from.

    Returns:
        Weights of about 1 / sqrt(shape[-1]) each.
    """
    layout = LAYOUTS[name]
    n = int(np.prod(shape)) // layout.elements
    raw = random.integers(0, 256, (n, layout.bytes), dtype=np.uint8)
    wanted = 1 / np.sqrt(shape[-1])
    for offset in layout.scales:
        scale = (wanted / layout.size * random.uniform(0.5, 1.5, n)).astype("<f2")
        raw[:, offset : offset + 2] = scale.view(np.uint8).reshape(n, 2)
    if name == "mxfp4":  # powers of two
        raw[:, 0] = 127 + np.round(np.log2(wanted / layout.size)) + random.integers(0, 2, n)
    if name == "nvfp4":  # four bytes with 4 bits of exponent (bias 7) and 3 of mantissa
        raw[:, :4] = ((7 + int(np.log2(wanted / layout.size))) << 3) + random.integers(0, 8, (n, 4))
    if name == "iq1_m":  # a half float in the upper 4 bits of each of four 16-bit words
        bits = np.array([wanted / layout.size], "<f2").view(np.uint16)[0]
        for i in range(4):
            raw[:, 49 + 2 * i] = raw[:, 49 + 2 * i] & 0x0F | (bits >> 4 * i & 0xF) << 4
    return Tensor(shape, layout.number, raw.tobytes())
