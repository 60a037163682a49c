"""edgellm.tools on GGUF files: what is read, split, merged, edited, hashed and compared."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgellm import LLM
from edgellm.errors import EdgellmError, FileError, FormatError, InvalidArgument
from edgellm.tools import edit, hashing
from edgellm.tools.diff import diff
from edgellm.tools.dump import dump
from edgellm.tools.ggml_types import TENSOR_TYPES, bf16_to_f32, f32_to_bf16, to_float
from edgellm.tools.gguf_file import GgufFile
from edgellm.tools.outputs import Outputs
from edgellm.tools.split import merge, split
from tests.support import gguf_writer as w
from tests.support.blocks import LAYOUTS, random_blocks
from tests.support.damaged import CASES

Tiny = Callable[..., Path]
VALUES = {
    "general.architecture": "llama", "u8": w.U8(255), "i8": w.I8(-128), "u16": w.U16(65535), "i16": w.I16(-2),
    "u32": 4294967295, "i32": -5, "f32": 1.5, "bool": True, "str": "naïve 😀", "u64": 1 << 63, "i64": -(1 << 40),
    "f64": w.F64(0.1), "strings": ["x", "", "ü"], "ints": [1, -2], "floats": [0.5, 2.0], "none": w.Arr(w.TYPE_F32, []),
    "bytes": w.Str(b"\xff\xfe"), "flags": [True, False],
}  # fmt: skip


@pytest.fixture
def model(tiny: Tiny) -> Path:
    return tiny("llama", dtype="f16")


def plain(value: Any) -> Any:
    return value.value if isinstance(value, w.Value) else value


def test_every_kind_of_value_is_read(tmp_path: Path) -> None:
    with GgufFile(w.write_gguf(tmp_path / "a.gguf", VALUES)) as file:
        found = {key: e.value() for key, e in file.entries.items()}
        assert found.pop("bytes") == "\udcff\udcfe"
        assert found == {key: plain(value) for key, value in VALUES.items() if key != "bytes"}
        assert [file.entries[key].type_name for key in ("u8", "f64", "strings", "ints")] == [
            "u8", "f64", "str[]", "i32[]",
        ]  # fmt: skip
        assert file.entries["strings"].value(2) == ["x", ""]


def test_dump(model: Path) -> None:
    found = dump(model, 2)
    keys = {k["key"]: k for k in found["keys"]}
    assert keys["tokenizer.ggml.tokens"]["value"] == ["<|endoftext|>", "<|im_start|>"]
    assert keys["tokenizer.ggml.tokens"]["count"] > 250
    tensors = {t["name"]: t for t in found["tensors"]}
    assert (tensors["blk.0.attn_k.weight"]["type"], tensors["blk.0.attn_k.weight"]["shape"]) == ("F16", [64, 64])
    last = found["tensors"][-1]
    assert found["data_start"] + last["offset"] + last["n_bytes"] <= found["size"] == model.stat().st_size


def test_no_damaged_file_does_worse_than_an_error(tmp_path: Path) -> None:
    for case in CASES:
        if case.name in ("pipe", "device_zero"):  # the commands take files only
            continue
        folder = tmp_path / case.name
        folder.mkdir()
        try:
            dump(case.make(folder))
        except (EdgellmError, OSError) as error:
            assert str(error)
            assert case.verdict != "accept", case.name
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("limits", [{"max_tensors": 1}, {"max_tensors": 7}, {"max_bytes": 90_000}])
def test_split_and_merge_give_the_same_file(model: Path, limits: dict[str, int], tmp_path: Path) -> None:
    parts = split(model, str(tmp_path / "part.gguf"), **limits)
    assert len(parts) > 2
    assert parts[0].path.name == f"part-00001-of-{len(parts):05d}.gguf"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(part.path.name for part in parts)
    assert all(part.path.stat().st_size <= limits.get("max_bytes", 1 << 30) for part in parts)
    keys = {k["key"]: (k["type"], k["value"]) for k in dump(parts[1].path)["keys"]}
    assert keys == {
        "split.no": ("u16", 1), "split.count": ("u16", len(parts)), "split.tensors.count": ("i32", 21),
    }  # fmt: skip
    assert merge(parts[0].path, tmp_path / "whole.gguf") == len(parts)
    assert filecmp.cmp(model, tmp_path / "whole.gguf", shallow=False)
    with LLM(parts[0].path, n_ctx=64) as split_model, LLM(model, n_ctx=64) as whole:
        assert np.array_equal(split_model.logits([5, 6, 7]), whole.logits([5, 6, 7]))


def test_split_keeps_another_alignment(tmp_path: Path) -> None:
    tensors = {f"t{i}": np.arange(5, dtype=np.float32) for i in range(4)}
    path = w.write_gguf(tmp_path / "a.gguf", {"general.architecture": "llama"}, tensors, alignment=64)
    parts = split(path, str(tmp_path / "p"), max_tensors=2)
    assert dump(parts[1].path)["alignment"] == 64
    merge(parts[0].path, tmp_path / "b.gguf")
    assert filecmp.cmp(path, tmp_path / "b.gguf", shallow=False)


def test_split_says_what_is_wrong(model: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"'token_embd.weight' \(37888 bytes\).*use a larger --max-size"):
        split(model, str(tmp_path / "p"), max_bytes=40_000)
    parts = split(model, str(tmp_path / "p"), max_tensors=10)
    with pytest.raises(InvalidArgument, match="exists: --force"):
        split(model, str(tmp_path / "p"), max_tensors=10)
    split(model, str(tmp_path / "p"), max_tensors=10, force=True)
    with pytest.raises(InvalidArgument, match="is a part of a split file"):
        split(parts[0].path, str(tmp_path / "q"), max_tensors=1)
    with pytest.raises(InvalidArgument, match="no part of a split file"):
        merge(model, tmp_path / "out.gguf")
    with pytest.raises(InvalidArgument, match="is part 2 of 3: name the first"):
        merge(parts[1].path, tmp_path / "out.gguf")
    parts[2].path.unlink()
    with pytest.raises(FileError, match="p-00003-of-00003"):
        merge(parts[0].path, tmp_path / "out.gguf")
    shutil.copy(parts[1].path, parts[2].path)
    with pytest.raises(FormatError, match=r"p-00003-of-00003\.gguf says it is part 2 of 3"):
        merge(parts[0].path, tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()


def test_set_writes_a_copy(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    edit.set_key(model, out, "general.name", "another, longer name")
    found = diff(model, out)
    assert [key["key"] for key in found["metadata"]["changed"]] == ["general.name"]
    assert not any(found["tensors"].values())
    edit.set_key(out, out, "tokenizer.ggml.token_type", "[1, 1]", force=True)  # over the file itself
    assert dump(out)["keys"][-1]["key"] == dump(model)["keys"][-1]["key"]
    with LLM(model, n_ctx=64) as old:
        edit.set_key(model, out, "my.flag", "true", force=True)
        with LLM(out, n_ctx=64) as new:
            assert np.array_equal(old.logits([5, 6, 7]), new.logits([5, 6, 7]))
            assert new.metadata["my.flag"] is True


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("true", "bool"),
        ("7", "u32"),
        ("-7", "i32"),
        ("5000000000", "u64"),
        ("0x10", "u32"),
        ("1.5", "f32"),
        ("a b", "str"),
    ],
)
def test_types_of_new_keys(text: str, kind: str) -> None:
    assert edit.guessed_type(text) == kind


def test_set_in_place(model: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(model, tmp_path / "a.gguf"))
    edit.set_in_place(path, "llama.context_length", "1024")
    edit.set_in_place(path, "general.name", "TINY LLAMA")
    changed = diff(model, path)["metadata"]["changed"]
    assert [(key["key"], key["new"]["value"]) for key in changed] == [
        ("general.name", "TINY LLAMA"), ("llama.context_length", 1024),
    ]  # fmt: skip
    for key, text, kind, words in (
        ("general.name", "TINY", None, r"str in 18 bytes now and would be str in 12 bytes: use -o OUT"),
        ("llama.context_length", "5", "u64", "u32 in 4 bytes now and would be u64 in 8"),
        ("nothing.here", "5", None, "no key 'nothing.here'"),
        ("llama.context_length", "-5", None, "-5 does not fit the type u32"),
        ("llama.context_length", "many", None, "'many' is not a value of type u32"),
        ("general.alignment", "64", None, "where every tensor's data lies"),
        ("general.architecture", "5", "u32", "must be a string"),
        ("tokenizer.ggml.tokens", "a", None, "written as JSON"),
        ("x", "[1, true]", "u32[]", "True is not a value of type u32"),
        ("x", "1", "u128", "'u128' is no value type"),
        ("x", "{}", "u8[]", "is not a list"),
    ):
        with pytest.raises(InvalidArgument, match=words):
            edit.set_in_place(path, key, text, kind)


def test_hashes(model: Path, tmp_path: Path) -> None:
    found = list(hashing.digests(model, ["sha256", "sha1"]))
    with GgufFile(model) as file:
        data = b"".join(file.read(file.data_start + t.offset, t.n_bytes) for t in file.tensors)
        first = file.read(file.data_start, file.tensors[0].n_bytes)
    whole = {(d.algorithm, d.tensor): d.hex for d in found}
    assert whole["sha256", "token_embd.weight"] == hashlib.sha256(first).hexdigest()
    assert whole["sha1", None] == hashlib.sha1(data).hexdigest()
    assert whole["file-sha256", None] == hashlib.sha256(model.read_bytes()).hexdigest()
    manifest = tmp_path / "manifest"
    manifest.write_text("".join(d.line("some/model.gguf") + "\n" for d in found))
    assert {word for word, _ in hashing.check(model, manifest)} == {"ok"}
    edit.set_key(model, tmp_path / "b.gguf", "general.name", "renamed")  # the tensors are the same
    wrong = [d for word, d in hashing.check(tmp_path / "b.gguf", manifest) if word != "ok"]
    assert [d.algorithm for d in wrong] == ["file-sha256", "file-sha1"]
    manifest.write_text("\n".join(d.line("m.gguf") for d in found[2:]) + "\nsha256    00  m.gguf:nobody\nuuid x y\n")
    words = [(word, d.tensor) for word, d in hashing.check(model, manifest) if word != "ok"]
    assert words == [("missing", "nobody"), ("unlisted", "token_embd.weight"), ("unlisted", "token_embd.weight")]
    manifest.write_text("nothing\n")
    with pytest.raises(FormatError, match="has no line like 'sha256"):
        hashing.check(model, manifest)


def test_xxh64(model: Path) -> None:
    xxhash = pytest.importorskip("xxhash")
    assert list(hashing.digests(model, ["xxh64"]))[-1].hex == xxhash.xxh64(model.read_bytes()).hexdigest()


def test_diff(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    same, weights = random.standard_normal(300).astype(np.float32), random.standard_normal((4, 64)).astype(np.float32)
    tensors = {"same": same, "other": weights, "shape": weights, "kind": weights, "gone": same, "nan": same}
    a = w.write_gguf(tmp_path / "a.gguf", {"general.architecture": "x", "n": 1, "list": [1, 2, 3], "old": 1}, tensors)
    moved = weights.copy()
    moved[2, 5] += 0.25
    nan = same.copy()
    nan[7] = np.nan
    tensors = {"same": same, "other": moved, "shape": weights.reshape(8, 32), "nan": nan, "new": same}
    tensors["kind"] = w.quantize_q8_0(weights)  # type: ignore[assignment]
    b = w.write_gguf(
        tmp_path / "b.gguf", {"general.architecture": "x", "n": w.U64(1), "list": [1, 5, 3], "k": 1}, tensors
    )
    found = diff(a, b)
    assert not found["same"]
    assert [key["key"] for key in found["metadata"]["removed"]] == ["old"]
    assert [key["key"] for key in found["metadata"]["added"]] == ["k"]
    changed = {key["key"]: key for key in found["metadata"]["changed"]}
    assert changed["n"]["new"]["type"] == "u64"
    assert changed["list"]["first_difference"] == 1
    assert [t["name"] for t in found["tensors"]["removed"]] == ["gone"]
    assert [t["name"] for t in found["tensors"]["added"]] == ["new"]
    rows = {t.pop("name"): t for t in found["tensors"]["changed"]}
    assert rows["other"] == {"max_abs_diff": pytest.approx(0.25, abs=1e-6)}
    assert rows["shape"] == {"shape": [[64, 4], [32, 8]]}
    assert rows["kind"]["type"] == ["F32", "Q8_0"]
    assert 0 < rows["kind"]["max_abs_diff"] < 0.02
    assert rows["nan"] == {"max_abs_diff": float("inf")}
    assert diff(a, a)["same"]
    assert diff(b, b)["same"]
    assert diff(a, b, values=False)["tensors"]["changed"] == [
        {"name": "shape", "shape": [[64, 4], [32, 8]]}, {"name": "kind", "type": ["F32", "Q8_0"]},
    ]  # fmt: skip


def test_block_sizes_are_those_of_the_format() -> None:
    gguf = pytest.importorskip("gguf")
    for number, (elements, n_bytes) in gguf.GGML_QUANT_SIZES.items():
        if number.name == "Q8_1":  # there 40 bytes, as ggml had it once
            continue
        kind = TENSOR_TYPES[int(number)]
        assert (kind.name, kind.elements, kind.n_bytes) == (number.name, elements, n_bytes)


@pytest.mark.parametrize("name", ["q4_0", "q8_0", "q4_k", "iq4_xs"])
def test_weights_as_numbers(name: str) -> None:
    pytest.importorskip("edgellm.tensors")
    gguf = pytest.importorskip("gguf")
    blocks = random_blocks(name, (2, 512), np.random.default_rng(4))
    wanted = gguf.quants.dequantize(np.frombuffer(blocks.data, np.uint8), gguf.GGMLQuantizationType(blocks.type))
    actual = to_float(blocks.data, TENSOR_TYPES[LAYOUTS[name].number])
    assert actual is not None
    assert np.allclose(actual, wanted, rtol=1e-6, atol=1e-7)


def test_bf16() -> None:
    bits = np.arange(1 << 16, dtype=np.uint16)
    values = bf16_to_f32(bits)
    back = f32_to_bf16(values)
    nan = np.isnan(values)
    assert np.array_equal(back[~nan], bits[~nan])
    assert np.all(np.isnan(bf16_to_f32(back[nan])))
    between = np.array([1 + 1 / 256, 1 + 3 / 256, 1 + 1 / 256 + 1e-6], np.float32)  # halves go to even
    assert bf16_to_f32(f32_to_bf16(between)).tolist() == [1.0, 1 + 1 / 64, 1 + 1 / 128]


def test_outputs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    paths[0].write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), Outputs(paths, 10, force=True) as outputs:
        for number in range(2):
            with outputs.open(number) as file:
                file.write(b"new")
        raise KeyboardInterrupt
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
    assert paths[0].read_bytes() == b"old"
    with Outputs(paths, 10, force=True) as outputs:
        for number in range(2):
            with outputs.open(number) as file:
                file.write(b"new")
    assert [path.read_bytes() for path in paths] == [b"new", b"new"]
    with pytest.raises(FileError, match="MB are needed"):
        Outputs([tmp_path / "c"], 1 << 60)
    with pytest.raises(FileError, match="does not exist"):
        Outputs([tmp_path / "no" / "c"], 1)
    with pytest.raises(InvalidArgument, match="is a folder"):
        Outputs([tmp_path], 1, force=True)


def test_threads_read_at_the_same_time(model: Path) -> None:
    whole = model.read_bytes()
    places = [(i * 7919 % (len(whole) - 64), 1 + i % 64) for i in range(20_000)]
    with GgufFile(model) as file, ThreadPoolExecutor(4) as pool:
        for (at, n), data in zip(places, pool.map(lambda place: file.read(*place), places), strict=True):
            assert data == whole[at : at + n]
