"""Rewrites a parsed template so that loops count steps and new containers are weighed.

The rewritten tree calls `tick`, `weighed` and `joined` of the sandbox (`template_sandbox.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.utils import Namespace


def inside(item: Any) -> Any:
    """Returns the values one level inside a container; none for anything else."""
    if isinstance(item, dict):
        return item.values()
    if isinstance(item, list | tuple):
        return item
    return item._Namespace__attrs.values() if isinstance(item, Namespace) else ()


def add_meters(tree: nodes.Template) -> nodes.Template:
    """Returns the tree with a step counted in each loop and macro, and each list, dict, join and comparison weighed."""

    def ask(method: str, *args: nodes.Expr) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(method), list(args), [], None, None)

    for block in list(tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock))):
        if isinstance(block, nodes.For | nodes.Macro | nodes.CallBlock):
            block.body.insert(0, nodes.Output([ask("tick")]))
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
            node.expr = ask("weighed", node.expr)
            for operand in node.ops:
                operand.expr = ask("weighed", operand.expr)
    return node
