"""
Which of GGUF's pre-tokenizers a tokenizer.json has, told by what its pre_tokenizer does.

A pre_tokenizer is a sequence of steps; each step that cuts text becomes a word here (a regular expression, "digits",
"gpt-2"), and the words together are looked up. Names are those llama.cpp gave them.
"""

from __future__ import annotations

from typing import Any

from edgellm.errors import Unsupported

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPELLED_OUT = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"  # the same
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TAIL = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TAIL_SLASH = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"

GPT2 = "gpt-2"
LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_TAIL}"
QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_TAIL}"
QWEN35 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
TEKKEN = rf"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\p{{N}}|{_TAIL_SLASH}"
GPT4O = (
    rf"{_BEFORE}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_TAIL_SLASH}"
)
DEEPSEEK3 = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_STEPS: dict[tuple[str, ...], str] = {
    (GPT2,): "gpt-2",
    ("digits", GPT2): "smollm",
    (r"\p{N}", GPT2): "smollm",
    (QWEN2,): "qwen2",
    (QWEN35,): "qwen35",
    (TEKKEN,): "tekken",
    (GPT4O,): "gpt-4o",
    (LLAMA3,): "llama-bpe",
    tuple(s.replace('\\"', '"') for s in DEEPSEEK3): "deepseek-v3",
}
WHOLE_WORDS = ("llama-bpe", "tekken")  # the runtime takes a word that is a token as it is, without merging
WITHOUT = {"llama-bpe": "smaug-bpe"}  # the same cuts, but merging
BOS_BY_DEFAULT = ("llama-bpe", "tekken")  # the runtime begins with BOS unless a key says otherwise


def recognise(tokenizer: dict[str, Any]) -> str:
    """
    The name of a tokenizer.json's pre-tokenizer.

    Raises:
        Unsupported: It has none that GGUF knows.
    """
    steps = tuple(_steps(tokenizer.get("pre_tokenizer")))
    name = _STEPS.get(steps)
    if name is None:
        raise Unsupported(
            f"tokenizer.json cuts text in a way that no known pre-tokenizer does ({_shown(steps)}); if you know which "
            "of GGUF's names is right, give it with --pre NAME"
        )
    if name in WHOLE_WORDS and not tokenizer.get("model", {}).get("ignore_merges", False):
        return WITHOUT.get(name, name)
    return name


def _steps(pre: Any) -> list[str]:
    kind = pre.get("type") if isinstance(pre, dict) else None
    if kind == "Sequence":
        return [step for part in pre.get("pretokenizers") or [] for step in _steps(part)]
    if kind == "Split":
        pattern = pre.get("pattern")
        if isinstance(pattern, dict) and isinstance(pattern.get("Regex"), str):
            return [_same_spelling(pattern["Regex"])]
        return [f"split at {pattern}"]
    if kind == "Digits":
        return ["digits" if pre.get("individual_digits") else "runs of digits"]
    if kind == "ByteLevel":
        return [GPT2] if pre.get("use_regex", True) else []
    return [str(kind)]


def _same_spelling(regex: str) -> str:
    """One spelling for patterns that mean the same."""
    return regex.replace(_SPELLED_OUT, _CONTRACTIONS).replace("\r", "\\r").replace("\n", "\\n").replace('\\"', '"')


def _shown(steps: tuple[str, ...]) -> str:
    text = ", then ".join(steps)
    return text if len(text) <= 200 else text[:197] + "..."
