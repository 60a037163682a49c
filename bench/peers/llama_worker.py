"""A native llama.cpp through llama_shim.c, as llama-bench drives it: llama_decode, nothing sampled."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from bench.peers.flat import FlatBatch
from bench.peers.worker import Item, serve


class LlamaEngine:
    """
    One model and one context at a time.

    The library comes from EDGELLM_BENCH_SHIM (native.py compiles it). Variants: words out of ``-fa0`` (flash attention
    off; the default lets llama.cpp choose) and ``-nrp`` (no repacking of weights at load; the default repacks).
    """

    def __init__(self, model: str, threads: int, variant: str) -> None:
        lib = ctypes.CDLL(os.environ["EDGELLM_BENCH_SHIM"])
        lib.shim_open.restype = lib.shim_logits.restype = ctypes.c_void_p
        lib.shim_system.restype = ctypes.c_char_p
        self._lib = lib
        self._threads = threads
        self._flash = 0 if "-fa0" in variant else -1
        self._shim = ctypes.c_void_p(lib.shim_open(os.fsencode(model), 0 if "-nrp" in variant else 1))
        if not self._shim.value:
            raise RuntimeError(f"llama.cpp cannot load {model}")
        self.n_vocab: int = lib.shim_n_vocab(self._shim)
        self.version = os.environ.get("EDGELLM_BENCH_SHIM_VERSION", "unknown")
        self.flags = variant or "default"
        self._batch = FlatBatch(1)

    def shape(self, n_seqs: int, n_ctx: int, kv_type: str = "f16") -> None:
        if self._lib.shim_shape(self._shim, n_seqs, n_ctx, self._threads, self._flash, kv_type == "f32"):
            raise RuntimeError(f"llama.cpp gives no context of {n_seqs} x {n_ctx} tokens")
        self._batch = FlatBatch(n_seqs)

    def clear(self) -> None:
        self._lib.shim_clear(self._shim)
        self._batch.clear()

    def step(self, items: Sequence[Item], every: bool = False) -> None:
        for n, tokens, seqs, positions, want in self._batch.parts(items, 2048, every):
            status = self._lib.shim_step(self._shim, n, tokens, seqs, positions, want)
            if status:
                raise RuntimeError(f"llama_decode of {n} tokens returned {status}")

    def rows(self, tokens: Sequence[int]) -> bytes:
        self.step([(0, tokens)], every=True)
        return b"".join(self._row(i) for i in range(len(tokens)))

    def logits(self, i: int) -> bytes:
        return self._row(self._batch.rows[i])

    def _row(self, row: int) -> bytes:
        pointer = self._lib.shim_logits(self._shim, row)
        if not pointer:
            raise RuntimeError("llama.cpp kept no logits")
        return ctypes.string_at(pointer, 4 * self.n_vocab)


if __name__ == "__main__":
    serve(LlamaEngine)
