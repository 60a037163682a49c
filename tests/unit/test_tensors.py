"""`edgellm.tensors`: the kernels of the library as built, each against `ref` bit by bit; formats against `gguf`."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

try:
    from edgellm import tensors
except ImportError as error:
    if os.environ.get("EDGELLM_REQUIRE_MODELS") == "1":  # where nothing may be left out
        raise
    pytest.skip(str(error), allow_module_level=True)

from edgellm.errors import InvalidArgument

# Where the f16 scales of a block are; the other types have none, or other ones.
SCALES = {
    "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,), "IQ4_NL": (0,), "MXFP4": (),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,), "IQ4_XS": (0,),
    "F32": (), "F16": (0,), "BF16": (),
}  # fmt: skip
OWN = [t.name for t in tensors.types().values() if t.own_kernel]
QUANTIZES = [t.name for t in tensors.types().values() if t.quantizes]
FAST = [k for k in tensors.kernels() if k != "ref"]
KINDS = ("plain", "largest", "smallest", "ones", "zeros", "sign bits", "any bits")


def random_weights(name: str, n_rows: int, k: int, kind: str = "plain", seed: int = 1) -> np.ndarray:
    """Random blocks with scales of a kind: [n_rows, bytes]."""
    rng = np.random.default_rng(seed)
    t = tensors.types()[name]
    blocks = rng.integers(0, 256, (n_rows, k // t.elements, t.bytes), np.uint8)
    if kind in ("ones", "zeros", "sign bits"):
        blocks[:] = {"ones": 0xFF, "zeros": 0, "sign bits": 0x80}[kind]
    n = blocks.shape[:2]
    if name == "F32":
        blocks = rng.uniform(-2, 2, (*n, 1)).astype("<f4").view(np.uint8)
    elif name == "BF16":
        bits = rng.integers(0x3D00, 0x3F00, (*n, 1)) | rng.integers(0, 2, (*n, 1)) << 15
        blocks = bits.astype("<u2").view(np.uint8)
    elif name == "MXFP4":
        blocks[..., 0] = {"smallest": 1, "largest": 200}.get(kind, 120)
    for at in SCALES.get(name, ()):
        bits = rng.integers(0x2000, 0x2800, n) | rng.integers(0, 2, n) << 15
        if kind in ("largest", "smallest"):
            bits = rng.choice([0x7BFF, 0xFBFF] if kind == "largest" else [1, 0x8001, 0x03FF, 0, 0x8000], n)
        elif kind == "any bits":
            bits = rng.integers(0, 1 << 16, n)
        blocks[..., at : at + 2] = bits.astype("<u2")[..., None].view(np.uint8)
    return np.ascontiguousarray(blocks).reshape(n_rows, -1)


def random_activations(n: int, k: int, kind: str = "plain", seed: int = 2) -> np.ndarray:
    x = np.random.default_rng(seed).uniform(-3, 3, (n, k)).astype(np.float32)
    if kind in ("ones", "zeros", "sign bits"):
        x[::2] = {"ones": 127, "zeros": 0, "sign bits": -127}[kind]
    elif kind in ("largest", "smallest"):
        x *= np.float32(1e30 if kind == "largest" else 1e-38)
    elif kind == "any bits" and k > 1:  # ties of the rounding
        x[::2] = np.where(np.arange(k) % 32 > 0, np.arange(k) % 32 - 15.5, 127)
    return x


def assert_same_bits(a: np.ndarray, b: np.ndarray) -> None:
    """Equal to the last bit, or both NaN."""
    assert a.shape == b.shape
    same = (a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))
    assert same.all(), f"{np.count_nonzero(~same)} of {a.size} differ, first at {np.argwhere(~same)[0]}"


# ---- kernels ---------------------------------------------------------------------------------------------------------


def lengths(name: str) -> list[int]:
    """Row lengths around the kernels' borders."""
    n = tensors.types()[name].elements
    return (
        [1, 7, 15, 16, 17, 33, 64, 100] if n == 1 else [n * blocks for blocks in (1, 2, 3, 5, 9, 18 if n == 32 else 4)]
    )


def test_the_sixteen_types_have_kernels() -> None:
    assert set(OWN) == set(SCALES)
    assert tensors.kernels()[-1] == "ref"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OWN)
def test_every_kernel_says_what_ref_says(name: str, kind: str) -> None:
    for k in lengths(name):
        w, x = random_weights(name, 35, k, kind), random_activations(18, k, kind)
        ref = tensors.matmul(w, x, name, kernel="ref")
        for kernel in FAST:
            assert_same_bits(tensors.matmul(w, x, name, kernel=kernel), ref)


@pytest.mark.parametrize("kernel", tensors.kernels())
@pytest.mark.parametrize("name", OWN)
def test_a_result_does_not_depend_on_its_neighbours(name: str, kernel: str) -> None:
    """Any number of rows and activations, from any row on: the bits of the whole product."""
    k = lengths(name)[2]
    w, x = random_weights(name, 40, k), random_activations(20, k)
    whole = tensors.matmul(w, x, name, kernel="ref")
    for n_rows in (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33):
        for n in (1, 2, 3, 4, 5, 7, 8, 9, 16, 17):
            part = tensors.matmul(w[3 : 3 + n_rows], x[1 : 1 + n], name, kernel=kernel)
            assert_same_bits(part, np.ascontiguousarray(whole[1 : 1 + n, 3 : 3 + n_rows]))


@pytest.mark.parametrize("kernel", tensors.kernels())
@pytest.mark.parametrize("name", OWN)
def test_rows_at_odd_addresses(name: str, kernel: str) -> None:
    k = lengths(name)[3]
    w, x = random_weights(name, 19, k), random_activations(6, k)
    ref = tensors.matmul(w, x, name, kernel="ref")
    for offset, gap in ((1, 0), (3, 1), (2, 5), (0, 63)):
        memory = np.full(offset + 19 * (w.shape[1] + gap), 0xFF, np.uint8)
        odd = memory[offset:].reshape(19, -1)[:, : w.shape[1]]
        odd[:] = w
        assert not odd.flags.c_contiguous or gap == 0
        assert_same_bits(tensors.matmul(odd, x, name, kernel=kernel), ref)
        assert_same_bits(tensors.matmul(odd[::-1], x, name, kernel=kernel), np.ascontiguousarray(ref[:, ::-1]))


@pytest.mark.parametrize("kernel", FAST)
def test_large_products_are_cut_where_nothing_shows(kernel: str) -> None:
    """More work than one slice between two looks at Ctrl-C."""
    w, x = random_weights("Q4_0", 5003, 512), random_activations(64, 512)
    y = tensors.matmul(w, x, "q4_0", kernel=kernel)
    for rows in (slice(0, 9), slice(2990, 3100), slice(4990, 5003)):
        part = tensors.matmul(w[rows], x, "Q4_0", kernel="ref")
        assert_same_bits(np.ascontiguousarray(y[:, rows]), part)


@pytest.mark.parametrize("name", ["Q8_0", "Q4_K", "F16"])
def test_activations_are_quantized_alike(name: str) -> None:
    for kind in KINDS:
        x = random_activations(7, 512, kind)
        x[3, 40], x[4, 100], x[5, 300] = np.inf, np.nan, -np.inf
        ref = tensors.quantize_activations(x, name, kernel="ref")
        assert ref.shape[0] == 7
        assert ref.shape[1] % 64 == 0
        for kernel in FAST:
            np.testing.assert_array_equal(tensors.quantize_activations(x, name, kernel=kernel), ref)


@pytest.mark.parametrize("name", OWN)
def test_products_are_those_of_the_dequantized_weights(name: str) -> None:
    w, x = random_weights(name, 33, 1024), random_activations(5, 1024)
    if tensors.types()[name].elements > 1:  # integers come through the quantization of activations as they are
        x = np.random.default_rng(3).integers(-126, 127, x.shape).astype(np.float32)
        x[:, ::32] = 127
    values = tensors.dequantize(w, name, (33, 1024)).astype(np.float64)
    exact, size = x.astype(np.float64) @ values.T, np.abs(x).astype(np.float64) @ np.abs(values.T)
    for kernel in tensors.kernels():
        assert np.all(np.abs(tensors.matmul(w, x, name, kernel=kernel) - exact) <= 2e-6 * size)


def test_dot_is_a_product_of_one_by_one() -> None:
    w, x = random_weights("Q6_K", 1, 512), random_activations(1, 512)
    assert tensors.dot(w[0], x[0], "Q6_K") == tensors.matmul(w, x, "Q6_K")[0, 0]
    assert (
        tensors.dot(w[0].tobytes(), x[0], gguf.GGMLQuantizationType.Q6_K, kernel="ref")
        == tensors.matmul(w, x, 14)[0, 0]
    )
    assert isinstance(tensors.dot(w[0], x[0], "q6_k"), float)


def test_empty_products() -> None:
    assert tensors.matmul(np.empty((0, 34), np.uint8), random_activations(2, 32), "Q8_0").shape == (2, 0)
    assert tensors.matmul(random_weights("Q8_0", 3, 32), np.empty((0, 32), np.float32), "Q8_0").shape == (0, 3)
    nothing = tensors.matmul(np.empty((3, 0), np.uint8), np.empty((2, 0), np.float32), "Q8_0")
    np.testing.assert_array_equal(nothing, np.zeros((2, 3), np.float32))


# ---- formats ---------------------------------------------------------------------------------------------------------

GGUF_READS = [n for n in tensors.types() if n not in ("Q1_0", "Q2_0")]  # these two not in gguf 0.19
# Mean square of what 3072 normal values lose:
#   x = np.random.default_rng(6).standard_normal((2, 3, 512), np.float32)
#   np.mean((tensors.dequantize(tensors.quantize(x, name), name, x.shape) - x) ** 2)
LOSS = {
    "F32": 0.0, "F16": 4.6e-08, "BF16": 3e-06, "Q8_0": 2.9e-05, "Q6_K": 3.2e-4, "Q5_K": 1.4e-3, "Q5_1": 1.5e-3,
    "Q5_0": 1.8e-3, "Q4_K": 5.3e-3, "IQ4_NL": 5.8e-3, "IQ4_XS": 5.9e-3, "Q4_1": 6.2e-3, "Q4_0": 7.4e-3, "NVFP4": 9.6e-3,
    "MXFP4": 0.014, "Q3_K": 0.024, "Q2_K": 0.091, "Q1_0": 0.36, "Q2_0": 0.53, "TQ1_0": 0.65, "TQ2_0": 0.65,
    "IQ3_S": 0.027, "IQ3_XXS": 0.045, "IQ2_S": 0.069, "IQ2_XS": 0.09, "IQ2_XXS": 0.12, "IQ1_S": 0.25, "IQ1_M": 0.36,
}  # fmt: skip


@pytest.mark.parametrize("name", GGUF_READS)
def test_dequantize_agrees_with_gguf(name: str) -> None:
    k = 1024
    type = gguf.GGMLQuantizationType[name]
    w = random_weights(name, 9, k)
    if name not in SCALES:  # any scale but infinity and NaN
        w = w & (0x3F if name == "NVFP4" else 0xBF)
    theirs = gguf.quants.dequantize(w, type)
    ours = tensors.dequantize(w, name, (9, k))
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=3e-7, atol=np.abs(theirs).max() * 1e-7)


def test_dequantize_takes_whatever_holds_bytes(tmp_path: Path) -> None:
    w = random_weights("Q5_0", 6, 64)
    wanted = tensors.dequantize(w, "Q5_0", (6, 64))
    raw = w.tobytes()
    path = tmp_path / "w"
    path.write_bytes(b"x" + raw)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        for data in (
            raw,
            bytearray(raw),
            memoryview(raw),
            memoryview(mapped)[1:],
            w[:, ::-1].copy()[:, ::-1],
            w.ravel(),
        ):
            np.testing.assert_array_equal(tensors.dequantize(data, 6, [2, 3, 64]), wanted.reshape(2, 3, 64))
            del data
    np.testing.assert_array_equal(tensors.dequantize(raw, "q5_0", 384), wanted.ravel())
    np.testing.assert_array_equal(
        tensors.dequantize(np.memmap(path, np.uint8, "r", offset=1), "Q5_0", np.array([6, 64]).tolist()), wanted
    )
    assert tensors.dequantize(b"", "Q5_0", (0, 64)).shape == (0, 64)
    assert tensors.dequantize(b"", "Q5_0", (4, 0)).shape == (4, 0)


@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantize_agrees_with_gguf(name: str) -> None:
    x = np.random.default_rng(5).standard_normal((8, 320), np.float32)
    theirs = gguf.quants.quantize(x, gguf.GGMLQuantizationType[name])
    np.testing.assert_array_equal(tensors.quantize(x, name), theirs.view(np.uint8).reshape(8, -1))


@pytest.mark.parametrize("name", QUANTIZES)
def test_quantize_and_back(name: str) -> None:
    x = np.random.default_rng(6).standard_normal((2, 3, 512), np.float32)
    t = tensors.types()[name]
    even = np.ones(512, np.float32) if t.needs_imatrix else None
    w = tensors.quantize(x, name, even)
    assert w.shape == (2, 3, 512 // t.elements * t.bytes)
    back = tensors.dequantize(w, name, x.shape)
    lost = float(np.mean((back - x) ** 2))
    assert lost <= 1.02 * LOSS[name]
    weighted = tensors.quantize(x, name, np.linspace(0.1, 4, 512, dtype=np.float32))
    assert float(np.mean((tensors.dequantize(weighted, name, x.shape) - x) ** 2)) <= 2 * lost + 1e-12
    np.testing.assert_array_equal(tensors.quantize(x[1, 2], name, even), w[1, 2])
    assert tensors.quantize(np.empty((0, 512), np.float32), name, even).shape == (0, w.shape[-1])


def test_an_imatrix_moves_the_error_where_it_counts_less() -> None:
    x = np.random.default_rng(7).standard_normal((16, 512), np.float32)
    counts = np.where(np.arange(512) % 4 == 0, 100, 1).astype(np.float32)
    for name in ("Q2_K", "Q4_K", "Q4_0", "IQ4_XS"):
        errors = [
            np.sum(counts * (tensors.dequantize(tensors.quantize(x, name, m), name, x.shape) - x) ** 2)
            for m in (None, counts)
        ]
        assert errors[1] < 0.8 * errors[0], name


@pytest.mark.parametrize("name", QUANTIZES)
def test_no_values_end_the_process(name: str) -> None:
    """What cannot be held is an error; what is returned reads back as finite numbers."""
    k, rng = 512, np.random.default_rng(8)
    rows = [
        np.zeros(k), -np.zeros(k), np.full(k, 1e-45), np.full(k, -3.4e38), rng.uniform(-1e38, 1e38, k),
        rng.uniform(-1e-38, 1e-38, k), np.eye(1, k, 77)[0] * 3e38, np.eye(1, k, 77)[0] * 1e-30, np.full(k, 65504.0),
        np.full(k, 65520.0), rng.uniform(-1e19, 1e19, k), np.where(np.arange(k) % 2, 1e-20, 1e4),
        10.0 ** rng.uniform(-37, 38, k), rng.standard_normal(k),
    ]  # fmt: skip
    imatrices = [
        np.ones(k) if tensors.types()[name].needs_imatrix else None,
        np.zeros(k),
        np.full(k, 1e-38),
        np.full(k, 3e38),
        np.eye(1, k, 3)[0],
        10.0 ** rng.uniform(-37, 38, k),
    ]
    held = 0
    for row in rows:
        for imatrix in imatrices:
            x = row.astype(np.float32)
            try:
                w = tensors.quantize(x, name, None if imatrix is None else imatrix.astype(np.float32))
            except InvalidArgument as error:
                assert f"than {name} can hold" in str(error)
                continue
            held += 1
            assert np.isfinite(tensors.dequantize(w, name, k)).all()
    assert held >= 30


# ---- arguments -------------------------------------------------------------------------------------------------------

X = np.ones((2, 256), np.float32)
W = random_weights("Q8_0", 3, 256)
NAN = X.copy()
NAN[1, 7] = np.nan


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: tensors.quantize(X, "Q9_0"), "type is 'Q9_0'; it is one of F32, F16, "),
        (lambda: tensors.quantize(X, 9), "type is 9"),
        (lambda: tensors.quantize(X, -1), "type is -1"),
        (lambda: tensors.quantize(X, 1 << 70), "type is 1180591620717411303424"),
        (lambda: tensors.quantize(X, None), "type is None"),  # type: ignore[arg-type]
        (lambda: tensors.quantize(X, "IQ2_XS"), "IQ2_XS needs an importance matrix"),
        (lambda: tensors.quantize(X[:, :100], "Q8_0"), "rows of 100 values; Q8_0 has blocks of 32"),
        (lambda: tensors.quantize(np.float32(1), "Q8_0"), "single number"),
        (lambda: tensors.quantize(X.astype(np.float64), "Q8_0"), r"float64; pass float32: array\.astype"),
        (lambda: tensors.quantize(X.astype(np.int32), "Q8_0"), "array holds int32"),
        (lambda: tensors.quantize([[1.0] * 32, [2.0]], "Q8_0"), "array is no array"),
        (lambda: tensors.quantize("text", "Q8_0"), "array holds <U4"),
        (lambda: tensors.quantize(NAN, "Q8_0"), "row 1, column 7 is NaN"),
        (lambda: tensors.quantize(NAN, "F32"), "row 1, column 7 is NaN"),
        (lambda: tensors.quantize(X / np.float32(0.5) * np.float32(np.inf), "Q4_K"), "row 0, column 0 is infinite"),
        (lambda: tensors.quantize(X * np.float32(1e6), "F16"), r"row 0 reaches 1e\+06, more than F16 can hold"),
        (lambda: tensors.quantize(X, "Q4_K", X), "imatrix has 2 dimensions, not 1"),
        (lambda: tensors.quantize(X, "Q4_K", X[0, :32]), "imatrix has 32 values, rows have 256"),
        (lambda: tensors.quantize(X, "Q4_K", -X[0]), "negative or not finite"),
        (lambda: tensors.quantize(X, "Q4_K", NAN[1]), "negative or not finite"),
        (lambda: tensors.dequantize(W, "Q8_0", (3, 255)), "multiples of 32"),
        (lambda: tensors.dequantize(W, "Q8_0", (2, 256)), r"data has 816 bytes; shape \(2, 256\) of Q8_0 takes 544"),
        (lambda: tensors.dequantize(W, "Q8_0", (1 << 47, 1 << 47, 32)), "data has 816 bytes"),
        (lambda: tensors.dequantize(W, "Q8_0", (-3, 256)), "sizes of 0 or more"),
        (lambda: tensors.dequantize(W, "Q8_0", (1 << 70, 0)), "sizes of 0 or more"),
        (lambda: tensors.dequantize(W, "Q8_0", (1,) * 40), "up to 32 sizes"),
        (lambda: tensors.dequantize(W, "Q8_0", 7.5), "sizes of 0 or more"),  # type: ignore[arg-type]
        (lambda: tensors.dequantize(W, "Q8_0", ()), "multiples of 32"),
        (lambda: tensors.dequantize("text", "Q8_0", 32), "data is neither bytes nor a uint8 array"),
        (lambda: tensors.dequantize(W.view(np.int8), "Q8_0", (3, 256)), "data holds int8"),
        (lambda: tensors.matmul(W, X, "Q8_0", kernel="sse9"), "kernel is 'sse9'; this processor runs .*ref"),
        (lambda: tensors.matmul(W, X, "Q8_0", kernel=""), "kernel is ''"),
        (lambda: tensors.matmul(W, X, "Q8_0", kernel=3), "kernel is 3"),  # type: ignore[arg-type]
        (lambda: tensors.matmul(W, X[:, :224], "Q8_0"), "rows of w have 272 bytes; 224 values of Q8_0 take 238"),
        (lambda: tensors.matmul(W, X[:, :100], "Q8_0"), "rows of 100 values"),
        (lambda: tensors.matmul(W[0], X, "Q8_0"), "w has 1 dimensions, not 2"),
        (lambda: tensors.matmul(W.tobytes(), X, "Q8_0"), "w has 1 dimensions, not 2"),
        (lambda: tensors.matmul(W, X[0], "Q8_0"), "x has 1 dimensions, not 2"),
        (lambda: tensors.matmul(random_weights("IQ2_XS", 1, 256), X, "IQ2_XS"), "no kernel for IQ2_XS"),
        (lambda: tensors.dot(W, X[0], "Q8_0"), "w has 2 dimensions, not 1"),
        (lambda: tensors.dot(W[0, :-1], X[0], "Q8_0"), "rows of w have 271 bytes"),
        (lambda: tensors.quantize_activations(X, "IQ2_XS"), "no kernel for IQ2_XS"),
        (lambda: tensors.quantize_activations(X[:, :100], "Q4_K"), "rows of 100 values"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(call: Any, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, ValueError)


def test_float16_and_odd_layouts_are_taken() -> None:
    x = np.random.default_rng(9).standard_normal((64, 4), np.float32)
    wanted = tensors.quantize(np.ascontiguousarray(x.T), "Q8_0")
    np.testing.assert_array_equal(tensors.quantize(x.T, "Q8_0"), wanted)
    np.testing.assert_array_equal(tensors.quantize(x.T.astype(">f4"), "Q8_0"), wanted)
    half = x.T.astype(np.float16)
    np.testing.assert_array_equal(tensors.quantize(half, "Q8_0"), tensors.quantize(half.astype(np.float32), "Q8_0"))
    raw = np.zeros(4 * 64 * 4 + 1, np.uint8)
    odd = raw[1:].view(np.float32).reshape(4, 64)
    odd[:] = x.T
    np.testing.assert_array_equal(tensors.quantize(odd, "Q8_0"), wanted)


# ---- threads, signals, imports ---------------------------------------------------------------------------------------


def test_threads_share_the_work_by_rows() -> None:
    w, x = random_weights("Q4_K", 256, 512), random_activations(8, 512)
    whole = tensors.matmul(w, x, "Q4_K")
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda r: tensors.matmul(w[r : r + 16], x, "Q4_K"), list(range(0, 256, 16)) * 4))
        written = list(pool.map(lambda row: tensors.quantize(row, "Q4_K"), [x] * 8))
    assert_same_bits(np.concatenate(parts[:16], axis=1), whole)
    assert_same_bits(np.concatenate(parts[-16:], axis=1), whole)
    assert all(np.array_equal(one, written[0]) for one in written)


def test_other_threads_run_meanwhile() -> None:
    x = np.random.default_rng(10).standard_normal((1024, 512), np.float32)  # one slice, some 0.3 s
    thread = threading.Thread(target=tensors.quantize, args=(x, "Q2_K"))
    thread.start()
    wakes = 0
    while thread.is_alive():
        time.sleep(0.001)
        wakes += 1
    assert wakes > 5  # with the lock held: one or two


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no interval timer here")
def test_ctrl_c_ends_a_long_call() -> None:
    x = np.random.default_rng(11).standard_normal((32768, 512), np.float32)  # some 10 s

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(KeyboardInterrupt):
            tensors.quantize(x, "Q2_K")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run(code: str, **env: str) -> str:
    """What *code* prints in a new interpreter that finds the same packages."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **env},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


def test_a_disabled_instruction_set_is_not_the_default() -> None:
    code = "from edgellm import tensors; print(tensors.default_kernel())"
    assert run(code, EDGELLM_CPU_DISABLE="") == tensors.kernels()[0]
    for kernel in FAST:
        assert run(code, EDGELLM_CPU_DISABLE=kernel) != kernel
    assert run(code, EDGELLM_CPU_DISABLE=",".join(FAST)) == "ref"


def test_edgellm_alone_does_not_import_it() -> None:
    code = (
        "import sys, edgellm; edgellm.system_info(); print([m for m in sys.modules if 'numpy' in m or 'tensors' in m])"
    )
    assert run(code) == "[]"


def test_a_lean_installation_says_what_to_do() -> None:
    said = run(
        "import sys; sys.modules['edgellm.tensors._tensors'] = None\n"
        "try: import edgellm.tensors\nexcept ImportError as error: print(error)"
    )
    assert "edgellm.tensors is not part of this installation" in said
    assert "pip install" in said
    assert "\n" not in said


def test_a_library_without_the_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match="are not of one build"):
        tensors._tensors.load(getattr(sys.modules["_ctypes"], "__file__", "") or pytest.skip("no library at hand"))
    with pytest.raises(ImportError, match="cannot be loaded"):
        tensors._tensors.load(str(tmp_path / "nothing.so"))
    assert tensors.default_kernel() in tensors.kernels()
