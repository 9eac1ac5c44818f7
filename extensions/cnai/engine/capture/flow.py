"""Flow: finds the names that a cell reads from the notebook before it assigns them itself."""

from __future__ import annotations

import ast
from typing import TypeAlias

from cnai.engine.capture.suspects import globals_read

Tree: TypeAlias = ast.Module
_Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
_Comprehension: TypeAlias = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def parse(source: str, filename: str) -> Tree:
    """Return the syntax tree of a cell."""
    return ast.parse(source, filename)


def names(tree: Tree) -> tuple[set[str], set[str]]:
    """Return the names that may be read before they are assigned, and all assigned names.

    The names that a function or a class's methods read count as read where the function or class is used, and once
    more at the end of the cell, because it may be called later.
    """
    flow = _Flow()
    flow.block(tree.body)
    for name in list(flow.deferred):
        flow.read(name)
    return flow.reads, flow.writes


class _Flow(ast.NodeVisitor):
    """Walks the tree in execution order; `bound` holds the names that certainly have a value at the current point."""

    def __init__(self) -> None:
        self.reads: set[str] = set()
        self.writes: set[str] = set()
        self.bound: set[str] = set()
        self.deferred: dict[str, set[str]] = {}
        self.reading: list[str] = []

    def block(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.visit(statement)

    def read(self, name: str) -> None:
        if name not in self.bound:
            self.reads.add(name)
        if name not in self.reading:
            self.reading.append(name)
            for later in self.deferred.get(name, ()):
                self.read(later)
            self.reading.pop()

    def bind(self, name: str) -> None:
        self.deferred.pop(name, None)
        self.bound.add(name)
        self.writes.add(name)

    def branches(self, *blocks: list[ast.stmt]) -> None:
        """Walk alternative blocks: afterwards only the names that all of them bind are certain."""
        before, ends = set(self.bound), []
        for block in blocks:
            self.bound = set(before)
            self.block(block)
            if not _leaves(block):
                ends.append(self.bound)
        self.bound = set.intersection(*ends) if ends else before

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.read(node.id)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id)
        else:
            self.read(node.id)
            self.bound.discard(node.id)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.read(node.target.id)
        self.visit(node.value)
        self.visit(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.visit(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.visit(node.target)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        before = set(self.bound)
        self.visit(node.target)
        self.block(node.body)
        self.bound = before
        self.block(node.orelse)

    def visit_While(self, node: ast.While) -> None:
        self.visit(node.test)
        before = set(self.bound)
        self.block(node.body)
        self.bound = before
        self.block(node.orelse)

    def visit_If(self, node: ast.If) -> None:
        self.visit(node.test)
        self.branches(node.body, node.orelse)

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.visit(node.test)
        before = set(self.bound)
        self.visit(node.body)
        self.bound, done = before, self.bound
        self.visit(node.orelse)
        self.bound &= done

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        self.visit(node.values[0])
        before = set(self.bound)
        for value in node.values[1:]:
            self.visit(value)
        self.bound = before

    def visit_Match(self, node: ast.Match) -> None:
        self.visit(node.subject)
        before = set(self.bound)
        for case in node.cases:
            self.bound = set(before)
            self.visit(case.pattern)
            if case.guard is not None:
                self.visit(case.guard)
            self.block(case.body)
        self.bound = before

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.generic_visit(node)
        if node.name:
            self.bind(node.name)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest:
            self.bind(node.rest)

    def visit_Try(self, node: ast.Try) -> None:
        before = set(self.bound)
        self.block([*node.body, *node.orelse])
        ends = [self.bound]
        for handler in node.handlers:
            self.bound = set(before)
            self.visit(handler)
            if not _leaves(handler.body):
                ends.append(self.bound)
        self.bound = set.intersection(*ends)
        self.block(node.finalbody)

    visit_TryStar = visit_Try  # type: ignore[assignment]  # noqa: N815

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bind(node.name)
        self.block(node.body)
        self.bound.discard(node.name or "")

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.bind(alias.asname or alias.name.partition(".")[0])

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            if alias.name != "*":
                self.bind(alias.asname or alias.name)

    def visit_FunctionDef(self, node: _Function) -> None:
        for part in (*node.decorator_list, *_outside(node)):
            self.visit(part)
        self.bind(node.name)
        self.deferred[node.name] = _inside(node)

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in (*node.decorator_list, *node.bases, *node.keywords):
            self.visit(part)
        outer, writes, deferred = set(self.bound), set(self.writes), self.deferred
        self.deferred = {}
        self.block(node.body)
        later = set().union(*self.deferred.values())
        self.bound, self.writes, self.deferred = outer, writes, deferred
        self.bind(node.name)
        self.deferred[node.name] = later

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for part in _outside(node):
            self.visit(part)
        for name in _inside(node):
            self.read(name)

    def comprehension(self, node: _Comprehension) -> None:
        before = set(self.bound)
        targets: set[str] = set()
        for generator in node.generators:
            self.visit(generator.iter)
            inner = {part.id for part in ast.walk(generator.target) if isinstance(part, ast.Name)}
            targets |= inner - before
            self.bound |= inner
            for test in generator.ifs:
                self.visit(test)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)
        self.bound -= targets

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension  # noqa: N815


def _outside(node: _Function | ast.Lambda) -> list[ast.AST]:
    """Return the parts of a function that run when it is defined: defaults and annotations."""
    arguments = node.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    parts: list[ast.AST | None] = [
        *arguments.defaults,
        *arguments.kw_defaults,
        *(a.annotation for a in every if a is not None),
    ]
    if not isinstance(node, ast.Lambda):
        parts.append(node.returns)
    return [part for part in parts if part is not None]


def _inside(node: _Function | ast.Lambda) -> set[str]:
    """Return the global names that a function's body reads, according to the compiler's scope analysis."""
    tree = ast.Expression(node) if isinstance(node, ast.Lambda) else ast.Module([node], [])
    code = compile(tree, "<flow>", "eval" if isinstance(node, ast.Lambda) else "exec", dont_inherit=True)
    return set().union(*(globals_read(inner) for inner in code.co_consts if hasattr(inner, "co_code")))


def _leaves(block: list[ast.stmt]) -> bool:
    return bool(block) and isinstance(block[-1], ast.Raise | ast.Return | ast.Continue | ast.Break)
