"""
Tokenizing English text on one thread: edgellm beside Hugging Face's ``tokenizers``, from the same vocabulary.

    python -m bench.tokenizing VOCABULARY.gguf ...

The text is that of Python's own help topics (0.7 MB, on every machine). The other library is optional
(``pip install tokenizers``); its tokenizer is built from the file's pieces and merges, and both must give the same
ids. Each figure is the best of several runs over the whole text, from a string to a list of ids.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("RAYON_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# tokenizer.ggml.pre: the expression in the models' tokenizer.json, and whether pieces that are tokens stay whole
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
EXPRESSIONS = {
    "gpt-2": (r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", False),
    "llama-bpe": (rf"{_SHORT}|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}", True),
    "qwen2": (rf"{_SHORT}|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}", False),
}


def english() -> str:
    """About 0.7 MB of English with some code in it."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def hugging_face(path: Path) -> Callable[[str], list[int]] | None:
    """The same tokenizer in the other library; None when it or the expression is not there."""
    try:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    except ImportError:
        return None
    from gguf import GGUFReader

    fields = GGUFReader(path).fields
    name = fields["tokenizer.ggml.pre"].contents() if "tokenizer.ggml.pre" in fields else ""
    if fields["tokenizer.ggml.model"].contents() != "gpt2" or name not in EXPRESSIONS:
        return None
    expression, whole = EXPRESSIONS[name]
    vocab = {piece: number for number, piece in enumerate(fields["tokenizer.ggml.tokens"].contents())}
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    built: Any = Tokenizer(models.BPE(vocab, merges, ignore_merges=whole))
    split = pre_tokenizers.Split(Regex(expression), "isolated")
    built.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    return lambda text: list(built.encode(text, add_special_tokens=False).ids)


def best_of(encode: Callable[[str], list[int]], text: str, runs: int = 7) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        encode(text)
        times.append(time.perf_counter() - start)
    return min(times)


def main(arguments: Sequence[str]) -> None:
    """Print a line for each file."""
    from edgellm import Tokenizer

    if not arguments:
        sys.exit("usage: python -m bench.tokenizing VOCABULARY.gguf ...")
    text = english()
    size = len(text.encode()) / 1e6
    print(f"{size:.2f} MB of English, one thread, best of 7")
    for argument in arguments:
        path = Path(argument)
        with Tokenizer(path) as tokenizer:
            ids = tokenizer.encode(text)
            ours = size / best_of(tokenizer.encode, text)
        other = hugging_face(path)
        line = f"{path.stem:28} {len(ids):7} tokens  edgellm {ours:6.1f} MB/s"
        if other:
            equal = "equal ids" if other(text) == ids else "OTHER IDS"
            line += f"   tokenizers {size / best_of(other, text):6.1f} MB/s   {equal}"
        print(line)


if __name__ == "__main__":
    main(sys.argv[1:])
