"""
Records what llama.cpp makes of tests/support/vocabularies.py: ids, ids with special tokens, and the text back.

From the root, with the native llama.cpp of the benchmarks (``python -m bench.native``)::

    PYTHONPATH=.:src python tests/data/vocab_small/record.py

Recorded with the llama.cpp of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import gzip
import json
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import native
from tests.support.gguf_writer import write_gguf
from tests.support.vocabularies import KINDS, texts

HERE = Path(__file__).parent

# Reads pairs of flags (1: add, 2: parse) and texts, writes ids and the text they give back.
PROGRAM = r"""
#include <stdio.h>
#include <stdlib.h>
#include "llama.h"
static void quiet(enum ggml_log_level level, const char *text, void *data)
{ (void)data; if (level >= GGML_LOG_LEVEL_ERROR) fputs(text, stderr); }
int main(int argc, char **argv)
{
    struct llama_model_params params = llama_model_default_params();
    unsigned head[2];
    (void)argc;
    llama_log_set(quiet, NULL);
    params.vocab_only = true;
    struct llama_model *model = llama_model_load_from_file(argv[1], params);
    if (!model) return 3;
    const struct llama_vocab *vocab = llama_model_get_vocab(model);
    while (fread(head, 4, 2, stdin) == 2) {
        int room = (int)head[1] * 4 + 64, cap = room * 64;
        char *text = malloc(head[1] + 1), *out = malloc(cap);
        int *ids = malloc(4 * room);
        if (fread(text, 1, head[1], stdin) != head[1]) return 4;
        int n = llama_tokenize(vocab, text, head[1], ids, room, head[0] & 1, head[0] >> 1 & 1);
        if (n < 0) return 5;
        int n_out = llama_detokenize(vocab, ids, n, out, cap, false, false);
        fwrite(&n, 4, 1, stdout); fwrite(ids, 4, n, stdout);
        fwrite(&n_out, 4, 1, stdout); fwrite(out, 1, n_out, stdout);
        free(text); free(out); free(ids);
    }
    return 0;
}
"""


def build(folder: Path) -> Path:
    """Compile the program against the native llama.cpp."""
    llama = native.llama()
    source, program = folder / "peer.c", folder / "peer"
    source.write_text(PROGRAM)
    library = llama.build / "bin"
    include = [f"-I{llama.source / 'include'}", f"-I{llama.source / 'ggml' / 'include'}"]
    libraries = [f"-L{library}", "-lllama", "-lggml", "-lggml-base", f"-Wl,-rpath,{library}"]
    subprocess.run(["cc", "-O1", *include, str(source), *libraries, "-o", str(program)], check=True)
    return program


def record(program: Path, vocabulary: Path, strings: list[str]) -> list[dict[str, Any]]:
    """What llama.cpp makes of *strings*."""
    packed = [text.encode() for text in strings]
    asked = b"".join(struct.pack("<II", flags, len(t)) + t for t in packed for flags in (0, 3))
    answer = subprocess.run([str(program), str(vocabulary)], input=asked, stdout=subprocess.PIPE, check=True).stdout
    at = 0

    def block(size: int) -> bytes:
        nonlocal at
        (n,) = struct.unpack_from("<i", answer, at)
        at += 4 + n * size
        return answer[at - n * size : at]

    cases = []
    for text in strings:
        (ids, back), (special, _) = [(block(4), block(1)) for _ in range(2)]
        lists = [list(struct.unpack(f"<{len(b) // 4}i", b)) for b in (ids, special)]
        cases.append({"text": text, "ids": lists[0], "ids_with_special": lists[1], "detokenized_hex": back.hex()})
    return cases


def main() -> None:
    """Record all kinds, or those named on the command line."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = build(folder)
        for kind in sys.argv[1:] or KINDS:
            cases = record(program, write_gguf(folder / f"{kind}.gguf", KINDS[kind]()), texts())
            data = json.dumps(cases, ensure_ascii=False, separators=(",", ":")).encode()
            (HERE / f"{kind}.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))
            print(f"{kind}: {len(cases)} texts")


if __name__ == "__main__":
    main()
