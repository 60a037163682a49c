"""The binding: loading, errors, logging, handles."""

from __future__ import annotations

import gc
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgellm import ClosedError, EdgellmError, FileError, FormatError, InvalidArgument, Tokenizer, _native, inspect

Tiny = Callable[..., Path]


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a new interpreter that finds the same packages."""
    paths = os.pathsep.join(sys.path)
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": paths, **env},
    )  # fmt: skip


def test_declarations_match_the_library() -> None:
    ffi, lib = _native.load()
    for name in _native._STRUCTS:
        assert lib.edgellm_struct_size(f"edgellm_{name}".encode()) == ffi.sizeof(f"edgellm_{name}")
    assert lib.edgellm_struct_size(b"nothing") == 0


def test_numbers_match_the_header() -> None:
    _, lib = _native.load()
    for number, role in enumerate(_native.ROLES):
        assert getattr(lib, f"EDGELLM_TOKEN_{role.upper()}") == number
    for name in ("ADD_SPECIAL", "PARSE_SPECIAL", "KEEP_SPECIAL", "OUT_NONE", "OUT_LAST", "OUT_ALL"):
        assert getattr(lib, f"EDGELLM_{name}") == getattr(_native, name)
    for name in ("NONE", "EOG", "STOP", "LENGTH"):
        assert getattr(lib, f"EDGELLM_FINISH_{name}") == getattr(_native, f"FINISH_{name}")
    for name, number in _native.KV_TYPES.items():
        assert getattr(lib, f"EDGELLM_KV_{name.upper()}") == number
    assert (lib.EDGELLM_OK, lib.EDGELLM_AGAIN) == (0, 1)
    errors = ["EINVAL", "ENOMEM", "EIO", "EFORMAT", "EUNSUPPORTED", "EFULL", "ECANCELLED", "ECONTEXT", "ENUMERIC"]
    assert [getattr(lib, f"EDGELLM_{name}") for name in errors] == list(_native._ERRORS)


@pytest.mark.parametrize("content", [None, b"this is no library"])
def test_a_missing_or_broken_library_says_how_to_mend_it(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "libedgellm.so"
    if content is not None:
        path.write_bytes(content)
    done = run(
        "import edgellm\ntry: edgellm.system_info()\nexcept edgellm.EdgellmError as e: print(e)",
        EDGELLM_LIBRARY=str(path),
    )
    assert done.stderr == ""
    assert str(path) in done.stdout
    assert "pip install --force-reinstall edgellm" in done.stdout
    assert done.stdout.count("\n") == 1


def test_a_library_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    ffi, lib = _native.load()
    monkeypatch.setattr(_native, "__version__", "9.9.9")
    with pytest.raises(EdgellmError, match=r"this package is 9\.9\.9; run: pip"):
        _native._check_library(ffi, lib, Path("x.so"))


def test_a_library_with_other_structs_is_refused() -> None:
    ffi, lib = _native.load()

    class Other:
        edgellm_version = lib.edgellm_version

        def edgellm_struct_size(self, name: bytes) -> int:
            return 4

    with pytest.raises(EdgellmError, match="edgellm_model_info of 4 bytes"):
        _native._check_library(ffi, Other(), Path("x.so"))


def test_files_that_are_no_models(tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("hello")
    for open_ in (Tokenizer, _native.Model, inspect):
        with pytest.raises(FileError, match=r"nothing\.gguf"):
            open_(tmp_path / "nothing.gguf")
        with pytest.raises(FormatError):
            open_(text)
        with pytest.raises(InvalidArgument, match="NUL"):
            open_("a\0b")


def test_inspect_cuts_long_arrays(tiny: Tiny) -> None:
    found = inspect(tiny("llama"), max_array=4)
    assert found["metadata"]["general.architecture"] == "llama"
    assert len(found["metadata"]["tokenizer.ggml.tokens"]["items"]) == 4
    assert found["metadata"]["tokenizer.ggml.tokens"]["count"] > 256
    assert {"name", "shape", "type", "offset", "n_bytes"} <= set(found["tensors"][0])


def test_system_info_is_plain_data() -> None:
    assert isinstance(_native.system_info(), dict)


@pytest.mark.parametrize("bad", [["a"], [1.5], [1 << 31], [-(1 << 31) - 1], [None], 5, object()])
def test_tokens_are_checked(bad: Any) -> None:
    with pytest.raises(InvalidArgument, match="token"):
        _native.token_array(bad)


def test_logging_is_silent_until_asked_for(tiny: Tiny) -> None:
    path = tiny("llama")
    done = run(f"from edgellm import LLM\nwith LLM({str(path)!r}, threads=1) as llm: llm.generate('Hi', max_tokens=2)")
    assert (done.stdout, done.stderr) == ("", "")


def test_messages_of_the_library_reach_logging(caplog: pytest.LogCaptureFixture, monkeypatch: Any) -> None:
    wanted: list[int] = []

    class Lib:
        edgellm_log_take = staticmethod(lambda text, cap, level: 0)

        def edgellm_log_set_level(self, level: int) -> None:
            wanted.append(level)

    monkeypatch.setattr(_native, "load", lambda: (None, Lib()))
    monkeypatch.setattr(_native, "_log_level", 0)
    for level in (logging.INFO, logging.DEBUG, logging.ERROR, logging.CRITICAL):
        with caplog.at_level(level, "edgellm"):
            _native.follow_log_level()
    assert wanted == [3, 4, 1, 0]


def test_handles_close_once(tiny: Tiny) -> None:
    vocab = _native.Vocab(tiny("llama"))
    assert not vocab.closed
    vocab.close()
    vocab.close()
    assert vocab.closed
    with pytest.raises(ClosedError, match="this vocab is closed"):
        vocab.size()
    model = _native.Model(tiny("llama"))
    engine = model.engine(n_ctx=64, n_seqs=1, n_threads=1)
    borrowed = model.vocab()
    model.close()  # the engine and the vocabulary keep what they need
    seq = engine.open_seq()
    engine.step([(seq, [5, 6, 7], _native.OUT_LAST, False)])
    assert engine.length(seq) == 3
    assert borrowed.size() > 256
    engine.close()
    with pytest.raises(ClosedError):
        engine.open_seq()


def test_objects_may_be_forgotten_in_any_order(tiny: Tiny) -> None:
    path = str(tiny("llama"))
    code = (
        "import gc\nfrom edgellm import _native\n"
        f"model = _native.Model({path!r})\nengine = model.engine(n_ctx=64, n_seqs=1, n_threads=1)\n"
        "vocab = model.vocab()\n"
        "del model; gc.collect(); print(vocab.size() > 0); del engine; gc.collect()\n"
        f"class Cycle: pass\nc = Cycle(); c.me = c; c.model = _native.Model({path!r})\n"
        "c.engine = c.model.engine(n_ctx=64, n_seqs=1, n_threads=1)\n"
        "from edgellm import LLM\nkept = LLM(" + repr(path) + ", threads=1)\nstream = kept.stream('Hi')\nnext(stream)\n"
    )
    done = run(code)
    assert (done.stdout, done.stderr, done.returncode) == ("True\n", "", 0)
    gc.collect()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_gets_an_error(tiny: Tiny) -> None:
    code = f"""
import os
from edgellm import LLM, EdgellmError
llm = LLM({str(tiny("llama"))!r}, threads=1)
llm.generate("Hi", max_tokens=2)
for use in (lambda: llm.generate("Hi"), lambda: llm.tokenize("Hi"), lambda: LLM({str(tiny("llama"))!r}), llm.cancel):
    child = os.fork()
    if child == 0:
        try:
            use()
            code = 1
        except EdgellmError as error:
            code = 0 if "fork" in str(error) and "spawn" in str(error) else 2
        llm.close()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(len(llm.generate("Hi", max_tokens=2).token_ids))
"""
    done = run(code)
    assert (done.stdout.split(), done.stderr) == (["0", "0", "0", "0", "2"], "")


def test_ctrl_c_while_something_is_freed_is_passed_on() -> None:
    def free(pointer: object) -> None:
        raise KeyboardInterrupt

    handle = _native.Handle(_native.load()[0].cast("void *", 1), free)
    with pytest.raises(KeyboardInterrupt):
        handle.close()
    assert handle.closed
    handle.close()
