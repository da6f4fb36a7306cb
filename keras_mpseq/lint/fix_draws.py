"""Draws from the generator of the process that a `numpy.random.Generator` makes just as well.

A function is listed only if the generator's has the same distribution, the same shapes and arguments that follow from
those that are written; of the rest some differ in an argument's meaning (`random.triangular`), some in the kind of
result (`random.sample`), and they are left to the reader.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Sequence
from typing import NamedTuple

import libcst as cst

from keras_mpseq.lint.model import dotted_of

# fmt: off
_SAME = [
    "beta", "binomial", "bytes", "chisquare", "choice", "dirichlet", "exponential", "f", "gamma", "geometric",
    "gumbel", "hypergeometric", "laplace", "logistic", "lognormal", "logseries", "multinomial",
    "multivariate_normal", "negative_binomial", "noncentral_chisquare", "noncentral_f", "normal", "pareto",
    "permutation", "poisson", "power", "rayleigh", "shuffle", "standard_cauchy", "standard_exponential",
    "standard_gamma", "standard_normal", "standard_t", "triangular", "vonmises", "wald", "weibull", "zipf",
]
# fmt: on
_SAMPLED = ("random", "random_sample", "ranf", "sample")


class Draw(NamedTuple):
    """What a call becomes.

    Args:
        rng: Name of the local generator.
        method: Of the generator.
        shape: How the call changes.
    """

    rng: str
    method: str
    shape: str


class Form(NamedTuple):
    """What a function becomes, and how its calls must be written for that."""

    method: str
    shape: str
    fits: Callable[[ast.Call], bool]


def _anyhow(call: ast.Call) -> bool:
    return all(keyword.arg is not None for keyword in call.keywords)


def _positional(least: int, most: int) -> Callable[[ast.Call], bool]:
    def fits(call: ast.Call) -> bool:
        starred = any(isinstance(argument, ast.Starred) for argument in call.args)
        return not call.keywords and not starred and least <= len(call.args) <= most

    return fits


def _ascending(call: ast.Call) -> bool:
    """The old `uniform`s take their ends in any order, the generator raises if the first is the greater."""
    low, high = [_number(argument) for argument in call.args[:2]] if len(call.args) >= 2 else (None, None)
    return _anyhow(call) and (low is None or high is None or low <= high)


def _number(node: ast.expr) -> float | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, (int, float)) else None


def _repeatable(call: ast.Call) -> bool:
    """The source of `random.choice` is written twice, so that it must be a name, or a list that is short."""
    if not _positional(1, 1)(call):
        return False
    node = call.args[0]
    if isinstance(node, (ast.List, ast.Tuple)):
        return bool(node.elts) and all(
            _number(part) is not None or isinstance(part, ast.Constant) for part in node.elts
        )
    return bool(dotted_of(node)) and not isinstance(node, ast.Call)


FORMS: dict[str, Form] = {
    **{f"numpy.random.{name}": Form(name, "same", _anyhow) for name in _SAME},
    **{f"numpy.random.{name}": Form("random", "same", _anyhow) for name in _SAMPLED},
    "numpy.random.uniform": Form("uniform", "same", _ascending),
    "numpy.random.randint": Form("integers", "same", _anyhow),
    "numpy.random.rand": Form("random", "sizes", lambda call: not call.keywords),
    "numpy.random.randn": Form("standard_normal", "sizes", lambda call: not call.keywords),
    "random.random": Form("random", "same", _positional(0, 0)),
    "random.uniform": Form("uniform", "same", lambda call: _ascending(call) and _positional(2, 2)(call)),
    "random.gauss": Form("normal", "same", _positional(0, 2)),
    "random.normalvariate": Form("normal", "same", _positional(0, 2)),
    "random.lognormvariate": Form("lognormal", "same", _positional(2, 2)),
    "random.betavariate": Form("beta", "same", _positional(2, 2)),
    "random.gammavariate": Form("gamma", "same", _positional(2, 2)),
    "random.randbytes": Form("bytes", "same", _positional(1, 1)),
    "random.shuffle": Form("shuffle", "same", _positional(1, 1)),
    "random.randrange": Form("integers", "int", _positional(1, 2)),
    "random.randint": Form("integers", "closed", _positional(2, 2)),
    "random.choice": Form("integers", "element", _repeatable),
}
"""By the full name of the function."""


def form_of(full_name: str, call: ast.Call) -> Form | None:
    """Return what a call of the function becomes; None if that is not exact."""
    form = FORMS.get(full_name)
    return form if form is not None and form.fits(call) else None


def drawn(call: cst.Call, draw: Draw) -> cst.BaseExpression:
    """Return what stands in the place of a call."""
    function = cst.Attribute(cst.Name(draw.rng), cst.Name(draw.method))
    match draw.shape:
        case "sizes":
            return call.with_changes(func=function, args=_sizes(call.args))
        case "int":
            return _int(call.with_changes(func=function))
        case "closed":
            whole = cst.Arg(cst.Name("True"), keyword=cst.Name("endpoint"), equal=_tight())
            args = [call.args[0], call.args[1].with_changes(comma=_comma()), whole]
            return _int(call.with_changes(func=function, args=args))
        case "element":
            return _element(call.args[0].value, function)
    return call.with_changes(func=function)


def _int(call: cst.Call) -> cst.Call:
    # `random` gives Python's ints, which some callers insist on; the parentheses of the draw stay outermost.
    plain = call.with_changes(lpar=[], rpar=[])
    return cst.Call(cst.Name("int"), [cst.Arg(plain)], lpar=call.lpar, rpar=call.rpar)


def _sizes(args: Sequence[cst.Arg]) -> list[cst.Arg]:
    """Return the one argument that stands for the sizes of `rand(2, *shape)`."""
    if not args or (len(args) == 1 and not args[0].star):
        return list(args)
    only = args[0].value
    if len(args) == 1 and isinstance(only, cst.Attribute) and only.attr.value == "shape":
        return [cst.Arg(only)]
    elements = [
        cst.StarredElement(arg.value, comma=arg.comma) if arg.star else cst.Element(arg.value, comma=arg.comma)
        for arg in args
    ]
    return [cst.Arg(cst.Tuple(elements), whitespace_after_arg=args[-1].whitespace_after_arg)]


def _element(source: cst.BaseExpression, function: cst.Attribute) -> cst.Subscript:
    if isinstance(source, (cst.List, cst.Tuple)):
        length: cst.BaseExpression = cst.Integer(str(len(source.elements)))
    else:
        length = cst.Call(cst.Name("len"), [cst.Arg(source)])
    if isinstance(source, cst.Tuple) and not source.lpar:
        source = source.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    index = cst.Call(function, [cst.Arg(length)])
    return cst.Subscript(source, [cst.SubscriptElement(cst.Index(index))])


def _tight() -> cst.AssignEqual:
    return cst.AssignEqual(cst.SimpleWhitespace(""), cst.SimpleWhitespace(""))


def _comma() -> cst.Comma:
    return cst.Comma(whitespace_after=cst.SimpleWhitespace(" "))
