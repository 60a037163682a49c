"""
jinja2's immutable sandbox, with a budget.

The sandbox of jinja2 decides what a template may touch; it does not bound work (of the bombs in our tests it stops
one in three). Three additions do:

- the syntax tree is checked (size, depth, no loading of other templates) and rewritten: loops, macros and everything
  that makes a value go through filters of ours that count;
- operators, calls, attributes and printing pass through methods of `Sandbox` that price the work first;
- filters and methods come from lists of what is allowed (`filters`, `methods`).
"""

# ruff: noqa: N802, N815  # visit_For and the like are the names jinja2 looks for

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from typing import Any

from jinja2 import Undefined, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro, TemplateReference
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace, pass_eval_context
from jinja2.visitor import NodeTransformer

from edgellm._turns import Turns
from edgellm.template import methods
from edgellm.template.budget import MAX_BITS, Budget, LimitError, Limits
from edgellm.template.filters import filters_for

FILE = "<chat template>"  # stands for the template in Python's tracebacks

_FORBIDDEN = (
    nodes.Extends,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.EvalContextModifier,
    nodes.ScopedEvalContextModifier,
)
_COMPARING_TESTS = frozenset(
    ("==", "eq", "equalto", "!=", "ne", ">", "gt", "greaterthan", ">=", "ge", "<", "lt", "lessthan", "<=", "le", "in")
)


class RenderError(Exception):
    """The template cannot be compiled or rendered; the text completes 'the chat template ...'."""


class OverLimitError(RenderError):
    """The template asked for more than its limits."""


class RaisedError(RenderError):
    """The template called raise_exception(text): it refuses these messages."""


class _RaiseError(TemplateError):
    """Carries the text of raise_exception out of the template."""


# ---- the syntax tree -------------------------------------------------------------------------------------------------


class _GenerationTag(Extension):
    """``{% generation %}...{% endgeneration %}`` marks what the assistant wrote, for training; here it prints it."""

    tags = {"generation"}  # noqa: RUF012  # the name and type jinja2 asks for

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _counted(name: str, node: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Rewriter(NodeTransformer):
    """Puts the budget into a syntax tree: a step where work repeats, a price where a value is made."""

    def visit_made(self, node: nodes.Expr) -> nodes.Node:
        return _counted("edgellm_made", self.generic_visit(node))  # type: ignore[arg-type]

    visit_List = visit_Dict = visit_Compare = visit_made

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self.generic_visit(node) if node.ctx == "store" else self.visit_made(node)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        # jinja2 compiles slices to Python's own: they pass by getitem().
        return self.visit_made(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        return self.visit_made(node) if node.name in _COMPARING_TESTS else self.generic_visit(node)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _counted("edgellm_concat", nodes.List(node.nodes, lineno=node.lineno))

    def visit_body(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        tick = _counted("edgellm_body", nodes.Const(_static_size(node.body), lineno=node.lineno))
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_For = visit_Macro = visit_CallBlock = visit_Block = visit_body


def _static_size(body: list[nodes.Node]) -> int:
    """Bytes of fixed text that one run of *body* can print: it reaches the output without passing print()."""
    return sum(data.data.__sizeof__() for node in body for data in _with_self(node, nodes.TemplateData))


def _with_self(node: nodes.Node, kind: type[nodes.TemplateData]) -> list[nodes.TemplateData]:
    return [*([node] if isinstance(node, kind) else []), *node.find_all(kind)]


def _check_tokens(source: str, env: Sandbox, limits: Limits) -> None:
    """Size and nesting, before the recursive parser and compiler see the text."""
    n_tokens = nesting = unary = 0
    after_begin = False
    for _, kind, value in env.lex(source):
        if kind == "whitespace":
            continue
        n_tokens += 1
        if kind == "operator" and value in "([{":
            nesting += 1
        elif kind == "operator" and value in ")]}":
            nesting -= 1
        if after_begin and kind == "name":
            opens = value in ("if", "for", "macro", "call", "filter", "with", "block", "generation", "set")
            # A set without a body never closes: counting it would grow with each; its body rarely nests.
            nesting += (opens and value != "set") - (value.startswith("end") and value != "endset")
        after_begin = kind == "block_begin"
        unary = unary + 1 if value in ("-", "+", "not") and kind in ("operator", "name") else 0
        if n_tokens > limits.n_tokens:
            raise LimitError(f"has more than {limits.n_tokens:,} tokens")
        if nesting > limits.n_nesting or unary > limits.n_nesting:
            raise LimitError(f"nests more than {limits.n_nesting} deep")


def _check_tree(tree: nodes.Template, limits: Limits) -> None:
    level: list[nodes.Node] = [tree]
    for _ in range(limits.n_depth):
        for node in level:
            if isinstance(node, _FORBIDDEN):
                raise LimitError(f"uses {type(node).__name__.lower()} (line {node.lineno}), which is not allowed")
        level = [child for node in level for child in node.iter_child_nodes()]
        if not level:
            return
    raise LimitError(f"has expressions more than {limits.n_depth} deep")


# ---- the environment -------------------------------------------------------------------------------------------------


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of one template. `budget` is that of the rendering under way."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def __init__(self, limits: Limits) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,  # or constants would be computed while compiling, outside the budget
            autoescape=False,
            extensions=[LoopControlExtension, _GenerationTag],
            finalize=self._finalize(),
            cache_size=0,
        )
        self.limits = limits
        self.budget = Budget(limits)
        self.filters = filters_for(self)
        self.filters["edgellm_made"] = lambda value: self.budget.made(value)
        self.filters["edgellm_concat"] = self._concat
        self.filters["edgellm_body"] = self._body
        self.globals = {
            "range": self._range,
            "dict": self._dict,
            "namespace": Namespace,
            "raise_exception": self._raise,
            "strftime_now": self._strftime_now,
        }
        self._functions = frozenset(self.globals.values())

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        _check_tokens(source, self, self.limits)
        tree = super()._parse(source, name, filename)
        _check_tree(tree, self.limits)
        rewritten = _Rewriter().visit(tree)
        rewritten.set_environment(self)
        return rewritten  # type: ignore[no-any-return]

    # What the compiled template calls.

    def _finalize(self) -> Any:
        # With the context as an argument jinja2 leaves constants alone when compiling.
        @pass_eval_context
        def finalize(_: Any, value: Any) -> str:
            self.budget.tick()
            text = self.budget.text(value)
            self.budget.spend(text.__sizeof__())
            return text

        return finalize

    def _body(self, n_bytes: int) -> None:
        self.budget.tick()
        self.budget.spend(n_bytes)

    def _concat(self, values: list[Any]) -> Any:
        texts = [self.budget.text(value) for value in values]
        self.budget.need(4 * sum(map(len, texts)))
        return self.budget.made("".join(texts))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic and concatenation, priced."""
        self._price_binop(operator, left, right)
        if operator == "%" and isinstance(left, str):
            return self.budget.made(methods.percent(self.budget, left, right))
        return self.budget.made(super().call_binop(context, operator, left, right))

    def _price_binop(self, operator: str, left: Any, right: Any) -> None:
        sized = [value for value in (left, right) if isinstance(value, (str, list, tuple))]
        if operator == "+" and len(sized) == 2:
            self.budget.need(left.__sizeof__() + right.__sizeof__() + 4 * (len(left) + len(right)))
        elif operator == "*" and len(sized) == 1:
            times = right if sized[0] is left else left
            if isinstance(times, int) and times > 0:
                self.budget.need(len(sized[0]) * (4 if isinstance(sized[0], str) else 8) * times)
        elif (
            operator == "**"
            and isinstance(left, int)
            and isinstance(right, int)
            and left.bit_length() * abs(right) > MAX_BITS
        ):
            raise LimitError("computes a number of more than a thousand digits")

    def getattr(self, obj: Any, attribute: str) -> Any:
        """``obj.attribute``: an allowed method, an item of a dict, or a public attribute of a template object."""
        self.budget.tick()
        if isinstance(obj, dict) and attribute in obj and attribute not in methods.methods_of(obj):
            return obj[attribute]
        method = self._method(obj, attribute)
        if method is not None:
            return method
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, tuple) and attribute in getattr(obj, "_fields", ()):
            return getattr(obj, attribute)  # of groupby
        if isinstance(
            obj, (LoopContext, Namespace, BlockReference, TemplateReference, Undefined)
        ) or attribute.startswith("_"):
            return super().getattr(obj, attribute)
        if isinstance(obj, Macro) and attribute in ("name", "arguments", "catch_kwargs", "catch_varargs", "caller"):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """``obj[argument]``."""
        self.budget.tick()
        if isinstance(obj, (str, list, tuple, dict, range)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                pass
        if isinstance(obj, Undefined):
            return super().getitem(obj, argument)  # raises
        if isinstance(argument, str):
            return self.getattr(obj, argument)
        return self.undefined(obj=obj, name=argument)

    def _method(self, obj: Any, name: str) -> methods.Method | None:
        if isinstance(obj, str) and name == "format":
            function: Any = methods.formatter(self.budget, obj, self.getattr, self.getitem)
        else:
            function = methods.methods_of(obj).get(name)
        return methods.Method(self.budget, name, function, obj) if function else None

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  # as in jinja2
        """Call a method of a value, a macro, or one of the few functions there are."""
        self = __self
        self.budget.tick()
        if isinstance(__obj, methods.Method):
            kwargs.pop("_loop_vars", None)
            kwargs.pop("_block_vars", None)
            return __obj(*args, **kwargs)
        if __obj is Namespace:
            self.budget.spend(512)
        elif not isinstance(__obj, (Macro, LoopContext, BlockReference, Undefined)):
            owner = getattr(__obj, "__self__", None)
            if not isinstance(owner, LoopContext) and not (owner is self and __obj in self._functions):
                raise SecurityError(f"calls a {type(__obj).__name__}, which is not allowed")
        if self.budget.n_calls >= self.limits.n_calls:
            raise LimitError(f"calls itself more than {self.limits.n_calls} deep")
        self.budget.n_calls += 1
        try:
            return __context.call(__obj, *args, **kwargs)
        finally:
            self.budget.n_calls -= 1

    # The functions a template finds.

    def _range(self, *args: int) -> range:
        result = range(*args)
        if len(result) > self.limits.n_steps:
            raise LimitError(f"counts to {len(result):,}; the limit is {self.limits.n_steps:,}")
        return result

    def _dict(self, *args: Any, **kwargs: Any) -> Any:
        for arg in args:
            self.budget.need(4 * self.budget.weigh(arg).n_bytes)
        return self.budget.made(dict(*args, **kwargs))

    def _raise(self, message: Any = "") -> None:
        raise _RaiseError(self.budget.text(message)[:500])

    def _strftime_now(self, format_: Any) -> str:
        if not isinstance(format_, str) or not re.fullmatch(r"(?:[^%]|%-?[A-Za-z%]){0,100}", format_):
            raise LimitError("formats the date with something else than plain % letters")
        return time.strftime(format_)


# ---- the way in ------------------------------------------------------------------------------------------------------


class Template:
    """
    One compiled template. Threads may share it; they render one after the other.

    Args:
        source: Jinja text.
        limits: What compiling and each rendering may use.

    Raises:
        RenderError: The text is not a template, or too large.
    """

    def __init__(self, source: str, limits: Limits | None = None) -> None:
        self.source = source
        self.limits = limits or Limits()
        self._turns = Turns()
        if len(source) > self.limits.n_source:
            raise RenderError(f"has {len(source):,} characters; the limit is {self.limits.n_source:,}")
        try:
            self._env = Sandbox(self.limits)
            code = self._env.compile(source, filename=FILE)
            self._template = self._env.template_class.from_code(self._env, code, self._env.globals)
        except LimitError as error:
            raise RenderError(str(error)) from None
        except TemplateSyntaxError as error:
            raise RenderError(f"has a syntax error in line {error.lineno}: {error.message}") from None
        except (RecursionError, MemoryError, SyntaxError):
            raise RenderError("is nested too deeply") from None
        except (TemplateError, ValueError, OverflowError) as error:
            raise RenderError(f"cannot be compiled: {_one_line(error)}") from None

    def render(self, variables: Mapping[str, Any]) -> str:
        """
        Fill in *variables*: plain strings, numbers, lists and dicts.

        Raises:
            RaisedError: The template refused the messages by raise_exception.
            RenderError: The template is wrong, or asked for more than its limits.
        """
        with self._turns.turn():
            try:
                self._env.budget = Budget(self.limits, dict(variables))
                context = self._template.new_context(dict(variables))
                return "".join(self._template.root_render_func(context))
            except _RaiseError as error:
                raise RaisedError(f"refuses these messages: {_one_line(error)}") from None
            except LimitError as error:
                raise OverLimitError(f"{error}{self._where(error)}") from None
            except RecursionError:
                raise RenderError("is nested too deeply") from None
            except Exception as error:  # noqa: BLE001  # whatever a template can provoke in the values it is given
                raise RenderError(f"fails{self._where(error)}: {_one_line(error)}") from None
            finally:
                self._env.budget = Budget(self.limits)  # lets go of the values

    def _where(self, error: BaseException) -> str:
        """The line of the template that raised *error*."""
        line, trace = 0, error.__traceback__
        while trace is not None:
            if trace.tb_frame.f_code.co_filename == FILE:
                line = trace.tb_lineno
            trace = trace.tb_next
        return f" (line {self._template.get_corresponding_lineno(line)})" if line else ""


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:300] + "..."
