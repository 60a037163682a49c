"""`edgellm quantize` from Python: the same types and bytes as llama-quantize, sizes kept, files whole or not at all."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from edgellm.errors import FormatError, InvalidArgument
from edgellm.tools.gguf_file import GgufFile
from edgellm.tools.quantization import budget, mixture, quantize
from edgellm.tools.quantization import imatrix as matrices
from edgellm.tools.quantization.file_types import FILE_TYPES, file_type
from edgellm.tools.quantization.imatrix import Imatrix
from edgellm.tools.quantization.quantize import Wishes
from edgellm.tools.quantization.source import Source
from edgellm.tools.split import split
from tests.data.quantize.models import MODELS, importance, make
from tests.support.tiny import tiny_model

pytest.importorskip("edgellm.tensors", reason="this build has no edgellm.tensors")

RECORDED = json.loads((Path(__file__).parents[1] / "data" / "quantize" / "llama_quantize.json").read_text())
Q4 = {"n_layer": 1, "n_embd": 64, "n_ff": 96}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {name: make(name, folder) for name in MODELS}


def contents(path: Path) -> dict[str, tuple[str, bytes]]:
    with GgufFile(path) as file:
        return {t.name: (t.type.name, file.read(file.data_start + t.offset, t.n_bytes)) for t in file.tensors}


def digest(path: Path) -> str:
    """As in tests/data/quantize/record.py."""
    found = hashlib.sha256()
    for name, (kind, data) in sorted(contents(path).items()):
        found.update(f"{name} {kind} ".encode() + data)
    return found.hexdigest()


@pytest.mark.parametrize("model", sorted(MODELS))
def test_types_are_those_of_llama_quantize(model: str, models: dict[str, Path]) -> None:
    """Of every tensor, in every file type, with and without an importance matrix."""
    known = importance(models[model])
    with Source(models[model]) as source:
        for key, (types, _) in RECORDED.items():
            name, kind, *rest = key.split()
            if name != model:
                continue
            imatrix = known if rest else None
            if types is None:
                with pytest.raises(InvalidArgument, match="needs an importance matrix"):
                    quantize.plan(source, kind, imatrix=imatrix)
                continue
            made = quantize.plan(source, kind, imatrix=imatrix)
            assert [t.new_type for t in sorted(made.tensors, key=lambda t: t.name)] == types.split(), key


# ggml makes tables of neighbours for these, once in a process, which takes seconds.
SLOW = ("IQ1_S", "IQ2_XS", "IQ2_S", "IQ2_M")
BYTES = [name for name in FILE_TYPES if RECORDED.get(f"one {name} imatrix", [0, 0])[1]]


@pytest.mark.parametrize("kind", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in BYTES])
def test_bytes_are_those_of_llama_quantize(kind: str, models: dict[str, Path], tmp_path: Path) -> None:
    known = importance(models["one"])
    for imatrix in (None, known):
        expected = RECORDED[f"one {kind}{' imatrix' if imatrix else ''}"][1]
        if expected is None:
            continue
        with Source(models["one"]) as source:
            made = quantize.plan(source, kind, imatrix=imatrix)
            n_bytes = quantize.write(source, made, tmp_path / "out.gguf", imatrix=imatrix, threads=2, force=True)
        assert digest(tmp_path / "out.gguf") == expected
        assert (tmp_path / "out.gguf").stat().st_size == n_bytes
    with GgufFile(tmp_path / "out.gguf") as file:
        assert file.entries["general.file_type"].value() == file_type(kind).number
        assert file.entries["quantize.imatrix.entries_count"].value() == len(known.sums)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_every_expert_has_its_importance(models: dict[str, Path], tmp_path: Path) -> None:
    from edgellm import tensors

    known = importance(models["moe4"])
    name = "blk.3.ffn_up_exps.weight"
    with Source(models["moe4"]) as source:
        made = quantize.plan(source, "Q4_0", Wishes(pure=True), known)
        quantize.write(source, made, tmp_path / "out.gguf", imatrix=known)
    before, after = contents(models["moe4"])[name], contents(tmp_path / "out.gguf")[name]
    weights = np.frombuffer(before[1], "<f4").reshape(4, 256, 256)
    means = known.means(name)
    assert means is not None
    np.testing.assert_array_equal(means[1], 1)  # never chosen
    expected = b"".join(tensors.quantize(w, "Q4_0", m).tobytes() for w, m in zip(weights, means, strict=True))
    assert after == ("Q4_0", expected)


def test_a_split_model_is_read(models: dict[str, Path], tmp_path: Path) -> None:
    split(models["one"], str(tmp_path / "part"), max_tensors=5)
    for path, out in ((models["one"], "a.gguf"), (tmp_path / "part-00001-of-00003.gguf", "b.gguf")):
        with Source(path) as source:
            quantize.write(source, quantize.plan(source, "Q4_K_M"), tmp_path / out)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_wishes(models: dict[str, Path]) -> None:
    with Source(models["deep"]) as source:
        wishes = Wishes([(r"ffn_down", "q6_k"), (r"blk\.0\.", "F16")], "Q8_0", "Q5_0")
        made = {t.name: t.new_type for t in quantize.plan(source, "Q4_K_M", wishes).tensors}
        pure = {t.name: t.new_type for t in quantize.plan(source, "Q4_K_M", Wishes(pure=True)).tensors}
    assert made["blk.0.ffn_down.weight"] == "Q6_K"
    assert made["blk.0.attn_q.weight"] == "F16"
    assert made["blk.9.attn_q.weight"] == "Q4_K"
    assert (made["output.weight"], made["token_embd.weight"]) == ("Q8_0", "Q5_0")
    assert set(pure.values()) == {"Q4_K", "Q4_0", "Q5_0", "F32"} - {"Q4_0"}  # Q5_0: rows of 128 in attn_output


def test_refusals(models: dict[str, Path], tmp_path: Path) -> None:
    path = models["one"]
    with Source(path) as source:
        for name, wishes, imatrix, says in (
            ("Q4_9", None, None, "'Q4_9' is no file type: use one of F32"),
            ("Q4_0", Wishes([("(", "Q4_0")]), None, "no regular expression"),
            ("Q4_0", Wishes([("x", "Q4_9")]), None, "no type of weights"),
            ("IQ2_XS", None, None, "make one with 'edgellm imatrix'"),
            ("Q4_0", None, Imatrix({"blk.0.ffn_up.weight": np.ones((1, 7), "f4")}), "belongs to another model"),
        ):
            with pytest.raises(InvalidArgument, match=says):
                quantize.plan(source, name, wishes, imatrix)
        made = quantize.plan(source, "Q4_0")
        with pytest.raises(InvalidArgument, match="is the file that is read"):
            quantize.write(source, made, path, force=True)
        quantize.write(source, made, tmp_path / "q4.gguf")
        with pytest.raises(InvalidArgument, match="--force replaces it"):
            quantize.write(source, made, tmp_path / "q4.gguf")
    with Source(tmp_path / "q4.gguf") as source:
        with pytest.raises(InvalidArgument, match=r"is Q4_0 already.*--allow-requantize"):
            quantize.plan(source, "Q8_0")
        assert "lose more" in quantize.plan(source, "Q8_0", Wishes(allow_requantize=True)).warnings[0]


def test_nothing_is_left_of_a_file_that_failed(tmp_path: Path) -> None:
    from tests.support.gguf_writer import write_gguf

    weights = np.ones((64, 64), np.float32)
    weights[40, 3] = np.nan
    write_gguf(tmp_path / "in.gguf", {"general.architecture": "llama"}, {"blk.0.ffn_up.weight": weights})
    with Source(tmp_path / "in.gguf") as source:
        with pytest.raises(InvalidArgument, match=r"blk\.0\.ffn_up\.weight, from row 0 on: row 40, column 3 is NaN"):
            quantize.write(source, quantize.plan(source, "Q4_0"), tmp_path / "out.gguf")
        plan = quantize.plan(source, "Q4_0", Wishes(), None)

        def stop(_what: str, done: int, _total: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            quantize.write(source, plan, tmp_path / "out.gguf", report=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["in.gguf"]


# ---- a size ----------------------------------------------------------------------------------------------------------


def test_a_size_is_kept_and_used(models: dict[str, Path], tmp_path: Path) -> None:
    known = importance(models["odd"])
    with Source(models["odd"]) as source:
        chosen = budget.types_for_size(source, 700_000, {"blk.0.ffn_up.weight": "F16"}, known, threads=2)
        made = quantize.plan_types(source, chosen, Wishes(), known)
        size = quantize.write(source, made, tmp_path / "out.gguf", imatrix=known)
        assert chosen["blk.0.ffn_up.weight"] == "F16"
        assert 670_000 < size <= 700_000
        with pytest.raises(InvalidArgument, match="the smallest types take"):
            budget.types_for_size(source, 100_000, {}, None)
        measured = {w.info.name: budget.measure(w, known) for w in source.tensors if w.info.name in chosen}
    noises = []
    for n_bytes in (500_000, 700_000, 1_000_000):
        picked = budget.choose(measured, n_bytes)
        noises.append(sum(c.noise for name, kinds in measured.items() for c in kinds if c.type == picked[name]))
    assert noises[0] > 3 * noises[1] > 9 * noises[2] > 0


def test_the_best_choice_is_found() -> None:
    """As good as trying everything, where steps of one size leave no remainder."""
    rng = np.random.default_rng(2)
    choices = {
        name: [budget.Choice(str(i), 10 * (i + 1), noise) for i, noise in enumerate(sorted(rng.random(4))[::-1])]
        for name in "abc"
    }
    for limit in range(30, 130, 10):
        chosen = budget.choose(choices, limit)
        picked = [choices[name][int(kind)] for name, kind in chosen.items()]
        assert sum(c.n_bytes for c in picked) <= limit
        every = itertools.product(*choices.values())
        best = min(sum(c.noise for c in picks) for picks in every if sum(c.n_bytes for c in picks) <= limit)
        assert sum(c.noise for c in picked) <= 1.35 * best


# ---- importance matrices ---------------------------------------------------------------------------------------------


def test_imatrix_files(tmp_path: Path, models: dict[str, Path]) -> None:
    known = importance(models["moe4"])
    matrices.write(tmp_path / "m.gguf", known)
    back = matrices.read(tmp_path / "m.gguf")
    assert (back.datasets, back.chunk_count, back.chunk_size) == (["random"], 3, 512)
    assert sorted(back.sums) == sorted(known.sums)
    for name, sums in known.sums.items():
        np.testing.assert_array_equal(back.sums[name], sums)
        np.testing.assert_array_equal(back.counts[name], known.counts[name])
    assert back.means("no such") is None


def test_the_older_format_is_read(tmp_path: Path) -> None:
    import struct

    name, sums = b"blk.0.ffn_up.weight", np.arange(8, dtype="<f4")
    data = struct.pack("<ii", 1, len(name)) + name + struct.pack("<ii", 4, 8) + sums.tobytes()
    (tmp_path / "m.dat").write_bytes(data + struct.pack("<ii", 4, 3) + b"txt")
    found = matrices.read(tmp_path / "m.dat")
    np.testing.assert_array_equal(found.means(name.decode()), sums[None] / 4)
    assert (found.chunk_count, found.datasets) == (4, ["txt"])
    for cut in range(len(data)):
        (tmp_path / "m.dat").write_bytes(data[:cut])
        with pytest.raises(FormatError):
            matrices.read(tmp_path / "m.dat")
    (tmp_path / "m.dat").write_bytes(data.replace(b"\x01\x00\x00\x00", b"\xff\xff\xff\x7f", 1))
    with pytest.raises(FormatError):
        matrices.read(tmp_path / "m.dat")


def test_a_model_is_no_imatrix(models: dict[str, Path]) -> None:
    with pytest.raises(FormatError, match="holds no importance matrix"):
        matrices.read(models["one"])


def test_names() -> None:
    assert mixture.fitting("Q4_K", 576) == "Q5_0"
    assert mixture.fitting("Q4_0", 100) == "F16"
    assert mixture.kind_of("blk.1.attn_qkv.weight") == "qkv"
    assert not mixture.is_quantizable("blk.0.ffn_gate_inp.weight", (256, 8))
    assert not mixture.is_quantizable("blk.0.attn_norm.weight", (256, 1))
    assert file_type("q4_k").name == "Q4_K_M"


def test_tiny_models_stay_whole(tmp_path: Path) -> None:
    """What was not made smaller is as it was, keys included."""
    path = tiny_model(tmp_path / "m.gguf", **Q4)  # type: ignore[arg-type]
    with Source(path) as source:
        quantize.write(source, quantize.plan(source, "Q8_0"), tmp_path / "q.gguf")
    with GgufFile(path) as a, GgufFile(tmp_path / "q.gguf") as b:
        made = {"general.file_type", "general.quantization_version"}
        assert {k: e.payload for k, e in a.entries.items()} == {
            k: e.payload for k, e in b.entries.items() if k not in made
        }
