"""Rewrites a parsed template so that loops count steps, and new containers, comparisons and slices are weighed.

The rewritten tree calls `tick`, `weighed`, `compared`, `sliced` and `joined` of the sandbox (`template_sandbox.py`).
"""

from __future__ import annotations

from collections.abc import Callable

from jinja2 import nodes

from firsthand.errors import TemplateError

MAX_NODES = 1 << 15
"""Most expressions and statements of a template: compiling one takes time too."""


def add_meters(tree: nodes.Template) -> nodes.Template:
    """Returns the tree with steps counted in loops, macros and comparisons, and containers, joins and slices weighed."""
    if sum(1 for _ in tree.find_all(nodes.Node)) > MAX_NODES:
        raise TemplateError(f"the chat template has more than {MAX_NODES} expressions and statements")

    def ask(method: str, *args: nodes.Expr) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(method), list(args), [], None, None)

    for block in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
        if isinstance(block, nodes.For | nodes.Macro | nodes.CallBlock):
            block.body.insert(0, nodes.Output([ask("tick")]))
            if isinstance(block, nodes.For) and block.test is not None:  # the body may never run
                block.test = nodes.Or(ask("tick"), block.test)
    _replace_within(tree, ask)
    return tree


def _replace_within(node: nodes.Node, ask: Callable[..., nodes.Call]) -> None:
    for field, value in node.iter_fields():
        if isinstance(value, list):
            setattr(node, field, [_metered(item, ask) if isinstance(item, nodes.Node) else item for item in value])
        elif isinstance(value, nodes.Node):
            setattr(node, field, _metered(value, ask))


def _metered(node: nodes.Node, ask: Callable[..., nodes.Call]) -> nodes.Node:
    _replace_within(node, ask)
    match node:
        case nodes.Concat():
            return ask("joined", nodes.List(node.nodes)).set_lineno(node.lineno)
        case nodes.List() | nodes.Dict():
            return ask("weighed", node).set_lineno(node.lineno)
        case nodes.Tuple() if node.ctx == "load":
            return ask("weighed", node).set_lineno(node.lineno)
        case nodes.Compare():
            node.expr = ask("compared", node.expr)
            for operand in node.ops:
                operand.expr = ask("compared", operand.expr)
        case nodes.Getitem() if isinstance(node.arg, nodes.Slice):
            part = node.arg
            bounds = [bound or nodes.Const(None) for bound in (part.start, part.stop, part.step)]
            return ask("sliced", node.node, *bounds).set_lineno(node.lineno)
    return node
