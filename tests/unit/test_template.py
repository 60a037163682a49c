"""Templates stay inside their limits, touch nothing they should not, and otherwise render as jinja2 does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgellm.template.budget import Limits
from edgellm.template.sandbox import RaisedError, RenderError, Template

MESSAGES = [{"role": "user", "content": " Hi <b>there</b> "}, {"role": "assistant", "content": "Hello."}]

DOUBLING = "{% set ns = namespace(x=START) %}{% for i in range(64) %}{% set ns.x = STEP %}{% endfor %}"


def doubling(start: str, step: str, use: str = "") -> str:
    """A template that runs *step* 64 times."""
    return DOUBLING.replace("START", start).replace("STEP", step) + use


BOMBS = {
    "repeat": "{{ 'x' * 10**9 }}",
    "repeat_list": "{{ ([0] * 10**9)|length }}",
    "repeat_tuple": "{{ (1,) * 10**9 }}",
    "repeat_in_variable": "{% set a = 'x' * 30000000 %}{% set b = a * 30 %}{{ b|length }}",
    "nested_loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}"
    "{% endfor %}{% endfor %}",
    "million_range": "{% for i in range(10**6) %}{% for j in range(10**6) %}x{% endfor %}{% endfor %}",
    "range_of_everything": "{{ range(10**12)|list }}",
    "range_overflow": "{{ range(10**40)|length }}",
    "filtered_loop": "{% for i in range(400000) %}{% for j in range(400000) if j < 0 %}{% endfor %}{% endfor %}",
    "string_doubling": doubling("'x'", "ns.x + ns.x", "{{ ns.x }}"),
    "tilde_doubling": doubling("'x'", "ns.x ~ ns.x", "{{ ns.x }}"),
    "list_doubling": doubling("[1]", "ns.x + ns.x"),
    "shared_list_printed": doubling("[1]", "[ns.x, ns.x]", "{{ ns.x }}"),
    "shared_list_compared": doubling("[1]", "[ns.x, ns.x]", "{{ ns.x == ns.x + [1] }}"),
    "shared_tuple_hashed": doubling("(1,)", "(ns.x, ns.x)", "{{ {ns.x: 1} }}"),
    "shared_dict_json": doubling("{}", "{'a': ns.x, 'b': ns.x}", "{{ ns.x|tojson }}"),
    "replace_doubling": doubling("'ab'", "ns.x.replace('a', 'aa')", "{{ ns.x|length }}") * 40,
    "replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "replace_filter": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replace_empty": "{{ ('a' * 100000).replace('', 'b' * 100000) }}",
    "join": "{{ ('x' * 100000).join('y' * 100000) }}",
    "join_filter": "{{ range(100000)|join('x' * 100000) }}",
    "ljust": "{{ 'a'.ljust(10**9) }}",
    "rjust": "{{ 'a'.rjust(10**9) }}",
    "zfill": "{{ 'a'.zfill(10**9) }}",
    "center": "{{ 'a'|center(10**9) }}",
    "expandtabs": "{{ '\t'.expandtabs(10**9) }}",
    "indent": "{{ ('\n' * 100000)|indent(10**7) }}",
    "indent_by_text": "{{ ('\n' * 100000)|indent('x' * 100000) }}",
    "wordwrap": "{{ ('x' * 1000000)|wordwrap(1) }}",
    "batch": "{{ [1]|batch(10**9, 'x')|list }}",
    "slice": "{{ [1]|slice(10**9, 'x')|list }}",
    "percent_width": "{{ '%1000000000d' % 1 }}",
    "percent_width_filter": "{{ '%1000000000d'|format(1) }}",
    "percent_star": "{{ '%*d' % (10**9, 1) }}",
    "percent_precision": "{{ '%.1000000000f' % 1.0 }}",
    "percent_name": "{{ '%((x))1000000000d' % {'(x)': 1} }}",
    "percent_many": "{{ ('%(a)s' * 100000) % {'a': 'x' * 100000} }}",
    "format_width": "{{ '{:1000000000}'.format(1) }}",
    "format_nested_width": "{{ '{:{}}'.format(1, 10**9) }}",
    "format_attribute": "{{ ('{0}' * 100000).format('x' * 100000) }}",
    "power": "{{ 9**(9**9) }}",
    "power_negative": "{{ 9**(-(9**9)) }}",
    "squaring": doubling("10", "ns.x * ns.x", "{{ ns.x }}"),
    "round": "{{ 1|round(10**9) }}",
    "int": "{{ ('9' * 1000000)|int }}",
    "int_hex": "{{ ('f' * 1000000)|int(0, 16) + 1 }}",
    "sum_of_lists": "{% set l = [[0] * 1000] * 5000 %}{{ l|sum(start=[])|length }}",
    "split": "{{ ('a ' * 8000000).split()|length }}",
    "split_by": "{{ ('a,' * 8000000).split(',')|length }}",
    "list_of_text": "{{ ('\u00e9' * 8000000)|list|length }}",
    "title": "{{ ('a ' * 8000000)|title|length }}",
    "wordcount": "{{ ('a ' * 8000000)|wordcount }}",
    "rfind": "{{ ('a' * 8000000).rfind('b' ~ 'a' * 4000000) }}",
    "strip": "{{ ('a' * 8000000).strip('bcdefghijk' * 100000 ~ 'a') }}",
    "slices": "{% set a = 'x' * 10000000 %}" + "".join(f"{{% set a{i} = a[{i}:] %}}" for i in range(500)),
    "list_slices": "{% set a = [0] * 1000000 %}" + "".join(f"{{% set a{i} = a[{i}:] %}}" for i in range(500)),
    "compares": "{% set a = range(90000)|list %}{% set b = range(90000)|list %}"
    + "{% set c = [a == b, a == b, a == b, a == b] %}" * 1000,
    "macro_recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "macro_tree": "{% macro m(n) %}{% if n > 0 %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(30) }}",
    "macro_data": "{% macro m() %}" + "x" * 10_000 + "{% endmacro %}{% for i in range(90000) %}{{ m() }}{% endfor %}",
    "loop_recursion": "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}",
    "loop_data": "{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}",
    "set_block_data": "{% set a %}{% for i in range(99999) %}" + "x" * 100_000 + "{% endfor %}{% endset %}",
    "block_recursion": "{% block b %}{{ self.b() }}{{ self.b() }}{% endblock %}",
    "namespace_chain": "{% set ns = namespace() %}{% set ns.a = ns %}{{ [ns] * 100000|int }}"
    "{{ ([ns] * 100000)|map(attribute='a" + ".a" * 9000 + "')|list|length }}",
    "namespace_printed": "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    "deep_parentheses": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "deep_brackets": "{{ " + "[" * 300 + "]" * 300 + " }}",
    "deep_blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "deep_not": "{{ " + "not " * 10_000 + "1 }}",
    "deep_minus": "{{ " + "- " * 10_000 + "1 }}",
    "deep_sum": "{{ " + "+".join("1" * 5_000) + " }}",
    "deep_filters": "{{ 1" + "|string" * 5_000 + " }}",
    "deep_attributes": "{{ messages" + ".a" * 5_000 + " }}",
    "deep_else": "{{ " + "1 if 0 else " * 5_000 + "1 }}",
    "many_tokens": "{{ messages }}" * 18_000,
    "many_characters": "x" * 2_000_000,
    "long_number": "{{ " + "9" * 200_000 + " }}",
    "lipsum": "{{ lipsum(n=1000000) }}",
    "json_indent": "{{ [1]|tojson(indent=10**9) }}",
    "urlencode": "{{ ('\U0001f600' * 7000000)|urlencode|length }}",
    "escape": "{{ ('&' * 20000000)|e|length }}",
    "strftime": "{{ strftime_now('%1000000000Y') }}",
}

INJECTIONS = {
    "mro": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "attr_filter": "{{ ''|attr('__class__')|attr('__mro__') }}",
    "globals": "{{ raise_exception.__globals__['os'].system('touch CANARY') }}",
    "namespace_init": "{{ namespace.__init__.__globals__.__builtins__.open('CANARY', 'w') }}",
    "cycler": "{{ cycler.__init__.__globals__.os.system('touch CANARY') }}",
    "self": "{{ self.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
    "self_private": "{{ self._TemplateReference__context.environment.filters }}",
    "loop_private": "{% for m in messages %}{{ loop._iterator.gi_frame.f_globals }}{% endfor %}",
    "format": "{{ '{0.__class__.__mro__}'.format(messages) }}",
    "format_map": "{{ '{x.__class__}'.format_map({'x': messages}) }}",
    "format_indirect": "{% set f = '{0.__class__.__init__.__globals__}'.format %}{{ f(raise_exception) }}",
    "format_mapped": "{{ ['{0.__class__}']|map('format', messages)|list|attr('x') }}",
    "macro": "{% macro m() %}{% endmacro %}{{ m.__call__.__globals__ }}{{ m._func.__code__ }}",
    "getitem": "{{ messages['__class__']['__base__'] }}",
    "map_attribute": "{{ [messages]|map(attribute='__class__')|list|first }}{{ ''['__class__'].mro() }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import 'os' as os %}{{ os }}",
    "extends": "{% extends '/etc/passwd' %}",
    "append": "{{ messages.append({'role': 'system'}) }}",
    "pop": "{{ messages[0].pop('role') }}",
    "update": "{{ messages[0].update({'role': 'system'}) }}",
    "undefined": "{{ nothing.__class__.__init__.__globals__ }}",
    "generator": "{{ (messages|map('upper')).gi_frame.f_globals }}",
    "method": "{{ ''.join.__self__.__class__ }}{{ ''.join._function.__globals__ }}",
    "environment": "{{ ''.join._budget.limits }}",
    "call_type": "{{ dict.__class__('X', (), {}) }}",
}

RUN_BOMBS = """
import json, resource, sys, time
from edgellm.template.sandbox import RenderError, Template

Template("{{ 1 }}").render({})
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, source in json.load(sys.stdin).items():
    start = time.process_time()  # neighbours do not count
    try:
        text = Template(source).render({"messages": [{"role": "user", "content": "Hi"}]})
        refused = ""
    except RenderError as error:
        text, refused = "", str(error)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base
    print(json.dumps([name, refused, len(text), time.process_time() - start, grown / 1024]), flush=True)
"""


def render(source: str, **variables: Any) -> str:
    """*source* rendered with the test's messages."""
    return Template(source).render({"messages": MESSAGES, **variables})


@pytest.mark.unsanitized("freed memory is kept for a while, and the test measures memory")
def test_bombs_are_refused_in_time_and_memory() -> None:
    """Each bomb ends in one sentence within 2 s, and all of them together within 200 MB."""
    pytest.importorskip("resource")
    child = subprocess.run(
        [sys.executable, "-c", RUN_BOMBS], input=json.dumps(BOMBS), capture_output=True, text=True, timeout=300
    )
    assert child.returncode == 0, child.stderr[-2000:]
    rows = [json.loads(line) for line in child.stdout.splitlines()]
    assert [row[0] for row in rows] == list(BOMBS)
    for name, refused, n_text, seconds, grown in rows:
        assert refused, f"{name} rendered {n_text} characters"
        assert len(refused) < 600, name
        assert "\n" not in refused, name
        assert seconds < 2, f"{name} took {seconds:.2f} s"
        assert grown < 200, f"memory grew by {grown:.0f} MB up to {name}"


@pytest.mark.parametrize("name", sorted(INJECTIONS))
def test_injections_reach_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of Python shows through, nothing is run, and the messages stay as they were."""
    monkeypatch.chdir(tmp_path)
    before = json.dumps(MESSAGES)
    with pytest.raises(RenderError):
        render(INJECTIONS[name])
    assert json.dumps(MESSAGES) == before
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ messages[0].content|trim }}", "Hi <b>there</b>"),
        ("{{ messages[0]['content'].split('<b>')[-1].rstrip() }}", "there</b>"),
        ("{{ '%s-%03d' % ('a', 7) }} {{ '%s'|format('x') }}", "a-007 x"),
        ("{{ '{:>4}|{x}'.format(3, x='u') }}", "   3|u"),
        ("{{ '{0[role]} {0.role}'.format(messages[0]) }}", "user user"),
        ("{{ messages|map(attribute='role')|join(', ') }}", "user, assistant"),
        ("{{ messages|selectattr('role', 'equalto', 'user')|list|length }}", "1"),
        ("{{ messages[::-1][0].role ~ 1 ~ none }}", "assistant1None"),
        ("{{ {'b': [1, 'é<'], 'a': none}|tojson }}", '{"b": [1, "é<"], "a": null}'),
        ("{{ [1, 2]|tojson(indent=1) }}", "[\n 1,\n 2\n]"),
        ("{% for k, v in {'x': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "x1"),
        ("{% for m in messages %}{{ loop.index }}{{ loop.cycle('a', 'b') }}{% endfor %}", "1a2b"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        ("{% macro m(x, y=2) %}[{{ x }}{{ y }}{{ caller() if caller }}]{% endmacro %}{{ m(1) }}", "[12]"),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}", "<in>"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% set a %}x{{ 1 }}{% endset %}{{ a|upper }}", "X1"),
        ("{% filter upper %}a{{ 'b' }}{% endfilter %}", "AB"),
        ("{% generation %}a{% endgeneration %}", "a"),
        ("{{ 'a' in 'abc' and 1 in [1] and not (2, 3) == (2, 4) }}", "True"),
        ("{{ messages[0].nothing is defined }}|{{ messages[0].nothing }}|", "False||"),
        ("{{ messages[0].get('name', 'none') }}", "none"),
        ("{{ 7 // 2 }} {{ 7 % 4 }} {{ 2 ** 10 }} {{ -3 + 1.5 }} {{ 7 / 2 }}", "3 3 1024 -1.5 3.5"),
        ("{{ messages[0].content|e }}", " Hi &lt;b&gt;there&lt;/b&gt; "),
        ("{{ 'a\nb'|indent(2) }}", "a\n  b"),
        ("{{ [3, 1, 2]|sort|first }}{{ [1, 2]|sum }}{{ ['a', 'b']|last }}", "13b"),
        ("{{ dict(a=1).a }}{{ {'a': 1}|items|list }}", "1[('a', 1)]"),
        ("{% for g in messages|groupby('role') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}", "assistant1user1"),
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{{ strftime_now('%Y')|length }}", "4"),
    ],
)
def test_ordinary_templates_render(source: str, expected: str) -> None:
    """What chat templates use works as in jinja2 with the settings that Hugging Face's transformers gives it."""
    assert render(source) == expected


def test_raise_exception_is_its_own_error() -> None:
    """A template may refuse messages; that is not a fault of the template."""
    with pytest.raises(RaisedError, match="refuses these messages: no system"):
        render("{{ raise_exception('no system') }}")


def test_errors_name_the_line() -> None:
    """Both kinds of mistakes say where."""
    with pytest.raises(RenderError, match=r"line 2"):
        render("a\n{% if %}")
    with pytest.raises(RenderError, match=r"line 3.*undefined"):
        render("a\n\n{{ nothing.content }}")


def test_limits_grow_with_the_input() -> None:
    """Long messages are the user's own memory: they are not counted as the template's."""
    content = "word " * 2_000_000
    template = Template("{% for m in messages %}{{ '<' + m.content|trim + '>' }}{% endfor %}", Limits(n_bytes=1 << 20))
    assert template.render({"messages": [{"role": "user", "content": content}]}) == f"<{content.strip()}>"


def test_a_template_can_be_used_again_after_a_refusal() -> None:
    """Nothing of one rendering is left for the next."""
    template = Template("{{ 'x' * n }}")
    for _ in range(3):
        with pytest.raises(RenderError):
            template.render({"n": 10**10})
        assert template.render({"n": 3}) == "xxx"
