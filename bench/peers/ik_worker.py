"""ik_llama.cpp from the wheel ik-llama-cpp-python, through the C functions its package binds."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
from collections.abc import Sequence
from typing import Any

from ik_llama_cpp import _ctypes_api as C  # noqa: N812 - the package's own name for it

from bench.peers.flat import FlatBatch
from bench.peers.worker import Item, serve


class IkEngine:
    """
    One model and one context at a time.

    Variants: words out of ``-rtr`` (weights repacked at load) and ``-fa`` (flash attention; ik_llama.cpp's own default
    depends on its version, so without the word it is switched off).
    """

    def __init__(self, model: str, threads: int, variant: str) -> None:
        self._threads = threads
        self._flash = "-fa" in variant.split()
        self._context: Any = None
        C.llama_backend_init()
        params = C.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_mmap = True
        params.repack_tensors = "-rtr" in variant.split()
        if params.repack_tensors:
            params.use_mmap = False  # as its common code does: repacked weights need memory of their own
        self._model = C.llama_model_load_from_file(os.fsencode(model), params)
        if not self._model:
            raise RuntimeError(f"ik_llama.cpp cannot load {model}")
        self.n_vocab: int = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self._model))
        self.version = importlib.metadata.version("ik-llama-cpp-python")
        self.flags = variant or "default"
        self._batch = FlatBatch(1)

    def shape(self, n_seqs: int, n_ctx: int) -> None:
        if self._context:
            C.llama_free(self._context)
        params = C.llama_context_default_params()
        params.n_ctx = n_ctx * n_seqs
        params.n_seq_max = n_seqs
        params.n_threads = params.n_threads_batch = self._threads
        params.flash_attn = self._flash
        self._context = C.llama_init_from_model(self._model, params)
        if not self._context:
            raise RuntimeError(f"ik_llama.cpp gives no context of {n_seqs} x {n_ctx} tokens")
        self._batch = FlatBatch(n_seqs)

    def clear(self) -> None:
        C.llama_kv_cache_clear(self._context)
        self._batch.clear()

    def step(self, items: Sequence[Item]) -> None:
        for n, tokens, seqs, positions, want in self._batch.parts(items, 2048):
            one = ctypes.c_int32 * 1
            ids = [one(seq) for seq in seqs]
            pointers = (ctypes.POINTER(ctypes.c_int32) * n)(
                *(ctypes.cast(i, ctypes.POINTER(ctypes.c_int32)) for i in ids)
            )
            counts = (ctypes.c_int32 * n)(*([1] * n))
            batch = C.llama_batch(n, tokens, None, positions, counts, pointers, want, 0, 0, 0)
            status = C.llama_decode(self._context, batch)
            if status:
                raise RuntimeError(f"llama_decode of {n} tokens returned {status}")
            C.llama_get_logits_ith(self._context, self._batch.rows[0])  # waits for the result

    def logits(self, i: int) -> bytes:
        pointer = C.llama_get_logits_ith(self._context, self._batch.rows[i])
        return ctypes.string_at(ctypes.cast(pointer, ctypes.c_void_p), 4 * self.n_vocab)


if __name__ == "__main__":
    serve(IkEngine)
