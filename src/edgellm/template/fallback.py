"""
Our own templates for files that bring none, chosen by the control tokens of the vocabulary.

Each is the format that models with those tokens were trained on, as their authors document it.
"""

from __future__ import annotations

from collections.abc import Callable

_CHATML = """\
{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

_GEMMA = """\
{{ bos_token }}{% for m in messages %}
{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{{ '<start_of_turn>' ~ ('model' if m.role == 'assistant' else m.role) ~ '\\n' ~ m.content|trim ~ '<end_of_turn>\\n' }}
{%- endfor %}{% if add_generation_prompt %}<start_of_turn>model
{% endif %}"""

_LLAMA3 = """\
{{ bos_token }}{% for m in messages -%}
<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content|trim }}<|eot_id|>
{%- endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"""

_MISTRAL = """\
{{ bos_token }}{% for m in messages %}
{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}
{% if m.role == 'user' %}{{ '[INST] ' ~ m.content|trim ~ ' [/INST]' }}{% else %}{{ ' ' ~ m.content|trim ~ eos_token }}
{%- endif %}{% endfor %}"""

_PHI3 = """\
{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}<|end|>
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""

_ZEPHYR = """\
{% for m in messages %}<|{{ m.role }}|>
{{ m.content }}{{ eos_token }}
{% endfor %}{% if add_generation_prompt %}<|assistant|>
{% endif %}"""

_PLAIN = """\
{% for m in messages %}
{{ '' if m.role == 'system' else m.role|capitalize ~ ': ' }}{{ m.content|trim }}

{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"""

TEMPLATES = {
    "chatml": _CHATML,
    "gemma": _GEMMA,
    "llama3": _LLAMA3,
    "mistral": _MISTRAL,
    "phi3": _PHI3,
    "zephyr": _ZEPHYR,
    "plain": _PLAIN,
}

_SIGNS = (
    ("chatml", ("<|im_start|>", "<|im_end|>")),
    ("gemma", ("<start_of_turn>", "<end_of_turn>")),
    ("llama3", ("<|start_header_id|>", "<|eot_id|>")),
    ("phi3", ("<|user|>", "<|assistant|>", "<|end|>")),
    ("zephyr", ("<|user|>", "<|assistant|>")),
    ("mistral", ("[INST]", "[/INST]")),
)


def choose(is_token: Callable[[str], bool]) -> str:
    """The name of the template for a vocabulary; *is_token* says whether a text is one control token of it."""
    for name, signs in _SIGNS:
        if all(is_token(sign) for sign in signs):
            return name
    return "plain"
