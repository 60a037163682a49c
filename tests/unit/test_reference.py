"""The test support itself: file writer and reader, and the NumPy forward pass against recorded logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgellm.testing.vocabulary import bpe_vocabulary, byte_letters
from tests.support import gguf_writer as w
from tests.support.gguf_reader import read_gguf, read_typed, write_f32_copy
from tests.support.reference import Reference, Rope, attention, nmse, rms_norm, route
from tests.support.tiny import ARCHITECTURES, tiny_model, tiny_tokens

VALUES = {
    "general.architecture": "llama",
    "u8": w.U8(255),
    "i8": w.I8(-128),
    "u16": w.U16(65535),
    "i16": w.I16(-32768),
    "u32": 4294967295,
    "i32": -5,
    "f32": 1.5,
    "bool": True,
    "str": "naïve 😀",
    "u64": 1 << 63,
    "i64": -(1 << 40),
    "f64": w.F64(0.1),
    "strings": ["x", "", "ü"],
    "ints": [1, -2],
    "floats": np.array([1.5, -2], np.float32),
    "bools": [True, False],
    "nested": w.Arr(w.TYPE_ARR, [w.Arr(w.TYPE_U8, [1, 2]), w.Arr(w.TYPE_U8, [])]),
}
MATRIX = np.random.default_rng(0).standard_normal((6, 64)).astype(np.float32)


@pytest.mark.parametrize("alignment", [32, 64])
def test_written_files_read_back(tmp_path: Path, alignment: int) -> None:
    tensors = {"f32": MATRIX, "f16": MATRIX.astype(np.float16), "q8_0": w.quantize_q8_0(MATRIX), "v": MATRIX[0]}
    path = w.write_gguf(tmp_path / "a.gguf", VALUES, tensors, alignment=alignment)
    metadata, read = read_gguf(path)
    for key, value in VALUES.items():
        if key != "nested":
            assert metadata[key] == w.infer(value).value
    np.testing.assert_array_equal(read["f32"], MATRIX)
    np.testing.assert_array_equal(read["f16"], MATRIX.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(read["q8_0"], MATRIX, atol=np.abs(MATRIX).max() / 250)
    np.testing.assert_array_equal(read["v"], MATRIX[0])


def test_gguf_package_agrees(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    quants = pytest.importorskip("gguf.quants")
    values = {key: value for key, value in VALUES.items() if key != "nested"}
    path = w.write_gguf(
        tmp_path / "a.gguf", values, {"q8_0": w.quantize_q8_0(MATRIX), "f16": MATRIX.astype(np.float16)}
    )
    reader = gguf.GGUFReader(path)
    for key, value in values.items():
        assert reader.fields[key].contents() == w.infer(value).value
    q8_0 = next(t for t in reader.tensors if t.name == "q8_0")
    assert list(q8_0.shape) == [64, 6]
    np.testing.assert_array_equal(quants.dequantize(q8_0.data, q8_0.tensor_type), read_gguf(path)[1]["q8_0"])


def test_f32_copy_changes_types_only(tmp_path: Path) -> None:
    source = tiny_model(tmp_path / "a.gguf", "llama-moe", dtype="q8_0")
    copy = write_f32_copy(source, tmp_path / "b.gguf")
    (meta, tensors), (meta_copy, tensors_copy) = read_typed(source), read_typed(copy)
    assert meta == meta_copy
    assert list(tensors) == list(tensors_copy)
    for name, array in tensors.items():
        np.testing.assert_array_equal(array, tensors_copy[name])
    assert copy.stat().st_size > 3 * source.stat().st_size


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_tiny_models(tmp_path: Path, arch: str) -> None:
    path = tiny_model(tmp_path / "a.gguf", arch)
    assert path.stat().st_size < 1_000_000
    assert path.read_bytes() == tiny_model(tmp_path / "b.gguf", arch).read_bytes()
    logits = Reference.from_file(path).logits(tiny_tokens(40))
    assert np.isfinite(logits).all()
    assert len(set(logits.argmax(axis=1).tolist())) > 10


def test_vocabulary_covers_all_bytes() -> None:
    tokens = bpe_vocabulary()["tokenizer.ggml.tokens"]
    assert len(set(tokens)) == len(tokens) == 296
    assert set(byte_letters()) <= set(tokens)
    assert len(set(byte_letters())) == 256


# ---- parts ----------------------------------------------------------------------------------


def test_rms_norm() -> None:
    np.testing.assert_allclose(rms_norm(np.array([3.0, 4.0]), np.array([1.0, 2.0]), 0), [0.848528, 2.262742], rtol=1e-6)


@pytest.mark.parametrize("halves", [False, True])
def test_rope_depends_on_distance_alone(halves: bool) -> None:
    """The product of a turned query and key is a function of how far apart they are; lengths stay."""
    random = np.random.default_rng(1)
    rope = Rope(n_dims=8, base=100.0, halves=halves)
    q, k = random.standard_normal((2, 1, 1, 10))
    near = (rope(q, np.array([5.0])) * rope(k, np.array([3.0]))).sum()
    far = (rope(q, np.array([105.0])) * rope(k, np.array([103.0]))).sum()
    assert near == pytest.approx(far)
    turned = rope(q, np.array([7.0]))
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(q))
    np.testing.assert_array_equal(turned[..., 8:], q[..., 8:])
    np.testing.assert_array_equal(rope(q, np.array([0.0])), q)


def test_attention_window() -> None:
    """With a window of 1 a token sees itself; with 2, the mean of itself and the one before when scores are equal."""
    v = np.arange(8.0).reshape(4, 1, 2)
    q = np.zeros((4, 2, 2))
    k = np.zeros((4, 1, 2))
    np.testing.assert_allclose(attention(q, k, v, 1.0, 1), np.tile(v[:, 0], 2))
    np.testing.assert_allclose(attention(q, k, v, 1.0, 2)[3], [5, 6, 5, 6])
    np.testing.assert_allclose(attention(q, k, v, 1.0)[3], [3, 4, 3, 4])


def test_route() -> None:
    weights = route(np.array([[0.1, 0.5, 0.1, 0.3]]), 2)
    np.testing.assert_allclose(weights, [[0, 0.625, 0, 0.375]])


# ---- recorded logits ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["llama-dense", "llama-moe", "mistral3-dense", "gemma3-dense"])
def test_reference_matches_recorded_logits(name: str, shared: Path) -> None:
    expected = np.load(shared / "data" / "archs" / f"{name}.npz")
    path = shared / "data" / "archs" / f"{name}.gguf"
    tokens = expected["tokens"].tolist()
    exact = Reference.from_file(path).logits(tokens)[expected["positions"]]
    rounded = Reference.from_file(path, like_ggml=True).logits(tokens)[expected["positions"]]
    assert nmse(exact, expected["logits"]) < 1e-6
    assert nmse(rounded, expected["logits"]) < 1e-11
