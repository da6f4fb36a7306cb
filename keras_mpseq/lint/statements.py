"""Statements: what is assigned where, which branch can run, and what each test makes certain."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from keras_mpseq.lint import guards
from keras_mpseq.lint.assignments import Assignments
from keras_mpseq.lint.calls import ast_text, call_at, held_roots
from keras_mpseq.lint.frame import Key, join_env
from keras_mpseq.lint.model import is_empty
from keras_mpseq.lint.summary import Summary
from keras_mpseq.lint.values import (
    NONE,
    NOTHING,
    Bound,
    Root,
    Taint,
    Value,
    derived,
    truth,
)


class Statements(Assignments):
    """A frame that can follow a whole function."""

    def run(self) -> Summary:
        """Follow the function, and return what it does."""
        if not self.block(self.function.body):
            self.ends.append(self.env)
            self.falls_off: bool = not is_empty(self.function)
        return self.summary()

    def block(self, body: Sequence[ast.stmt]) -> bool:
        """Follow statements; return whether they never get to what comes after them."""
        depth = len(self.memo)
        ended = False
        for position, statement in enumerate(body):
            if self._statement(statement, body, position):
                ended = True
                break
        del self.memo[depth:]
        return ended

    def _statement(self, node: ast.stmt, block: Sequence[ast.stmt], position: int) -> bool:
        match node:
            case ast.Expr(value=ast.Call() as call):
                self.call(call, statement=True)
            case ast.Expr():
                self.eval(node.value)
            case ast.Assign():
                self._assign_all(node)
            case ast.If():
                return self._if(node, block, position)
            case ast.Return():
                value = self.eval(node.value) if node.value is not None else NONE
                self.exits.append((self.site(node), value))
                self.ends.append(dict(self.env))
                return True
            case ast.Raise():
                for part in (node.exc, node.cause):
                    if part is not None:
                        self.eval(part)
                return True
            case ast.Break() | ast.Continue():
                if self.jumps:
                    self.jumps[-1].append(dict(self.env))
                return True
            case _:
                method = getattr(self, f"_{type(node).__name__.lower()}_statement", None)
                return bool(method(node)) if method is not None else False
        return False

    def _if(self, node: ast.If, block: Sequence[ast.stmt], position: int) -> bool:
        known = truth(self.eval(node.test))
        if known is not None:
            return self.block(node.body if known else node.orelse)
        before = self.env
        ends, envs = [], []
        for body, outcome in ((node.body, True), (node.orelse, False)):
            self.env = dict(before)
            self.memo.append(self._guard(node.test, outcome, body))
            ends.append(self.block(body))
            self.memo.pop()
            envs.append(self.env)
        if ends[0] != ends[1]:
            # An early way out makes the other outcome certain for what follows.
            self.env = envs[0] if ends[1] else envs[1]
            guard = self._guard(node.test, not ends[0], block, position + 1)
            # What is stored behind `if self.ended: raise` is no cache: the next call does not use it, but fails.
            if guard != frozenset() and not isinstance((node.orelse if ends[1] else node.body)[-1], ast.Raise):
                self.memo.append(guard)
        else:
            self.env = join_env(*envs)
        return all(ends)

    def _guard(
        self, test: ast.expr, outcome: bool, block: Sequence[ast.stmt], start: int = 0
    ) -> frozenset[Root] | None:
        """Return what is missing in the statements of a block, from one on."""
        if guards.keyed(self, test, outcome, block, start):
            return None
        return guards.missing(self, test, outcome)

    def _for_statement(self, node: ast.For | ast.AsyncFor) -> None:
        over = self.eval(node.iter)
        if over.roots and over.kinds & {"generator", "iterator"}:
            self.consume(over, "for", node.iter)
        self.orders.append(self.order_of(over, node.iter))
        self._loop(node.body, node.orelse, lambda: self.bind_loop(node.target, over, node.iter))
        self.orders.pop()

    _asyncfor_statement = _for_statement

    def bind_loop(self, target: ast.expr, over: Value, node: ast.expr) -> None:
        """Give a loop's variables what they run over."""
        item = self.iterated(over, node)
        self.assign(target, item._replace(taints=item.taints | {Taint("loop")}), node)

    def _while_statement(self, node: ast.While) -> bool:
        known = truth(self.eval(node.test))
        if known is False:
            return self.block(node.orelse)
        self._loop(node.body, node.orelse, lambda: None)
        return known is True and not any(isinstance(inside, ast.Break) for inside in ast.walk(node))

    def _loop(self, body: Sequence[ast.stmt], orelse: Sequence[ast.stmt], bind: object) -> None:
        before = dict(self.env)
        self.loops += 1
        self.jumps.append([])
        assert callable(bind)
        bind()
        ended = self.block(body)
        after = before if ended else join_env(before, self.env)
        for env in self.jumps.pop():
            after = join_env(after, env)
        self.loops -= 1
        self.env = dict(after)
        self.block(orelse)

    def _with_statement(self, node: ast.With | ast.AsyncWith) -> bool:
        for item in node.items:
            value = self.eval(item.context_expr)
            if "lock" in value.kinds or ast_text(item.context_expr).endswith("lock"):
                for root in held_roots(value):
                    self.record("lock-use", ast_text(item.context_expr), item.context_expr, root)
            if item.optional_vars is not None:
                self.assign(item.optional_vars, self._entered(value, item.context_expr), node)
        return self.block(node.body)

    _asyncwith_statement = _with_statement

    def _entered(self, value: Value, node: ast.expr) -> Value:
        for cls in value.instances:
            method = self.analysis.hierarchy.method(cls, "__enter__")
            if method is not None:
                return self.apply(Bound(method, value), call_at(node))
        return value

    def _try_statement(self, node: ast.Try) -> bool:
        before = dict(self.env)
        ended = self.block(node.body)
        after = self.env
        ends, envs = [], []
        for handler in node.handlers:
            self.env = join_env(dict(before), after)
            if handler.name:
                self.env[handler.name] = NOTHING
            self.memo.append(guards.looked_up(self, handler, node.body))
            ends.append(self.block(handler.body))
            self.memo.pop()
            envs.append(self.env)
        self.env = after
        if not ended:
            ended = self.block(node.orelse)
        live = [env for env, end in zip([self.env, *envs], [ended, *ends], strict=True) if not end]
        self.env = _joined(live) if live else join_env(before, self.env)
        self.in_finally += 1
        last = self.block(node.finalbody)
        self.in_finally -= 1
        return last or not live

    _trystar_statement = _try_statement

    def _match_statement(self, node: ast.Match) -> bool:
        subject = self.eval(node.subject)
        before, ends, envs = self.env, [], []
        for case in node.cases:
            self.env = dict(before)
            for pattern in ast.walk(case.pattern):
                name = getattr(pattern, "name", None) or getattr(pattern, "rest", None)
                if isinstance(name, str):
                    self.env[name] = derived(subject)
            if case.guard is not None:
                self.eval(case.guard)
            ends.append(self.block(case.body))
            envs.append(self.env)
        live = [env for env, end in zip(envs, ends, strict=True) if not end]
        self.env: dict[Key, Value] = _joined([dict(before), *live])
        last = node.cases[-1].pattern
        return not live and isinstance(last, ast.MatchAs) and last.pattern is None

    def _functiondef_statement(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        found = self.function.inner.functions.get(node.name)
        if found is not None:
            self.env[node.name] = self.local_function(found, "local-function")

    _asyncfunctiondef_statement = _functiondef_statement

    def _classdef_statement(self, node: ast.ClassDef) -> None:
        found = self.function.inner.classes.get(node.name)
        if found is not None:
            self.env[node.name] = Value(classes=frozenset({found}))

    def _import_statement(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name.partition(".")[0]
            self.env[name] = self.analysis.project.bound_in(self.function.inner, name)

    _importfrom_statement = _import_statement

    def _assert_statement(self, node: ast.Assert) -> None:
        self.eval(node.test)


def _joined(envs: Sequence[dict[Key, Value]]) -> dict[Key, Value]:
    result = envs[0]
    for env in envs[1:]:
        result = join_env(result, env)
    return result
