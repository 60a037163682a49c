"""edgellm through its C interface: steps of the engine itself, no sampling, no scheduler, no prefix cache."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.peers.worker import Item, serve
from edgellm import _edgellm_ffi

ffi: Any = _edgellm_ffi.ffi  # its structs have the members of edgellm.h, which a type checker cannot know


def _library() -> Any:
    import edgellm

    folder = Path(edgellm.__file__).parent / "lib"
    return ffi.dlopen(os.environ.get("EDGELLM_LIBRARY") or str(folder / "libedgellm.so"))


class EdgellmEngine:
    """One model, and one engine at a time."""

    def __init__(self, model: str, threads: int, variant: str) -> None:
        self._lib = _library()
        self._path = model
        self._threads = threads
        self._engine: Any = None
        self._seqs: list[int] = []
        self._items: dict[int, Any] = {}
        out = ffi.new("edgellm_model **")
        self._check(self._lib.edgellm_model_open(out, os.fsencode(model)))
        self._model = out[0]
        info = ffi.new("edgellm_model_info *")
        info.struct_size = ffi.sizeof("edgellm_model_info")
        self._check(self._lib.edgellm_model_get_info(self._model, info))
        self.n_vocab: int = info.n_vocab
        self.version = ffi.string(self._lib.edgellm_version()).decode()
        self.flags = variant

    def _check(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(ffi.string(self._lib.edgellm_last_error()).decode())

    def shape(self, n_seqs: int, n_ctx: int, kv_type: str = "f16") -> None:
        self._lib.edgellm_engine_free(self._engine or ffi.NULL)
        self._engine = None
        options = ffi.new("edgellm_engine_options *")
        self._lib.edgellm_engine_options_init(options)
        options.n_ctx = n_ctx
        options.n_seqs = n_seqs
        options.n_batch = 512
        options.n_threads = self._threads
        options.kv_type = {"f16": 0, "f32": 1}[kv_type]  # EDGELLM_KV_F16 and EDGELLM_KV_F32
        out = ffi.new("edgellm_engine **")
        self._check(self._lib.edgellm_engine_new(out, self._model, options))
        self._engine = out[0]
        info = ffi.new("edgellm_engine_info *")
        info.struct_size = ffi.sizeof("edgellm_engine_info")
        self._check(self._lib.edgellm_engine_get_info(self._engine, info))
        if info.n_threads != self._threads:
            raise RuntimeError(f"the engine runs {info.n_threads} threads instead of {self._threads}")
        backend = os.environ.get("EDGELLM_CPU_BACKEND")
        self.flags = ffi.string(info.isa).decode() + (f", EDGELLM_CPU_BACKEND={backend}" if backend else "")
        self._seqs = [self._open_seq() for _ in range(n_seqs)]

    def _open_seq(self) -> int:
        seq = ffi.new("int32_t *")
        self._check(self._lib.edgellm_seq_open(self._engine, seq))
        return int(seq[0])

    def clear(self) -> None:
        # Closed and opened anew, so that nothing of the last repetition can be found again.
        for seq in self._seqs:
            self._check(self._lib.edgellm_seq_close(self._engine, seq))
        self._seqs = [self._open_seq() for _ in self._seqs]

    def step(self, items: Sequence[Item]) -> None:
        longest = max(len(tokens) for _, tokens in items)
        if longest > 512:  # a prompt beyond n_batch, alone: only its last part's logits count
            ((seq, tokens),) = items
            for at in range(0, len(tokens), 512):
                self.step([(seq, tokens[at : at + 512])])
            return
        self._step(items, 1)  # EDGELLM_OUT_LAST

    def rows(self, tokens: Sequence[int]) -> bytes:
        self._step([(0, tokens)], 2)  # EDGELLM_OUT_ALL
        return self.logits(0)

    def _step(self, items: Sequence[Item], outputs: int) -> None:
        lib, n = self._lib, len(items)
        array = self._items.get(n)
        if array is None:
            array = self._items[n] = ffi.new("edgellm_item[]", n)
        keep = []
        for slot, (seq, tokens) in zip(array, items, strict=True):
            ids = ffi.new("int32_t[]", list(tokens))
            keep.append(ids)
            slot.seq = self._seqs[seq]
            slot.n_tokens = len(tokens)
            slot.tokens = ids
            slot.outputs = outputs
        self._check(lib.edgellm_step_begin(self._engine, array, n))
        self._check(lib.edgellm_step_run(self._engine, 0))

    def logits(self, i: int) -> bytes:
        out = ffi.new("const float **")
        rows = ffi.new("int32_t *")
        self._check(self._lib.edgellm_step_logits(self._engine, i, out, rows))
        return bytes(ffi.buffer(out[0], 4 * self.n_vocab * rows[0]))

    def render(self, text: str) -> str:
        """*text* as one user message in the chat template; as it is when the file has none."""
        import edgellm

        with edgellm.LLM(self._path) as llm:
            if not llm.metadata.get("tokenizer.chat_template"):
                return text
            return str(llm.render([{"role": "user", "content": text}]))


if __name__ == "__main__":
    serve(EdgellmEngine)
