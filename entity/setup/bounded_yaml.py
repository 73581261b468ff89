"""A YAML loader that ends: a few lines of aliases can stand for more tables than memory holds.

Ten names of ten names of ten ..., nine times, are a thousand million values. PyYAML keeps them as
one shared list; whoever copies or prints the tables does not.
"""

from typing import Any

import yaml
from yaml.composer import ComposerError

MOST_NODES = 100_000
"""Tables, lists and values that a file may have once its aliases are written out."""
MOST_DIGITS = 1_000
"""Characters of a number. Python writes none of more than 4,300 digits, which a hexadecimal one of
4,000 has, and 1:1:1:... to the base 60 takes time with the square of its length."""


NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
"""Tags of scalars that are numbers."""


class BoundedLoader(yaml.SafeLoader):
    """PyYAML's safe loader with a limit on what aliases amount to and on the length of numbers."""

    def compose_document(self) -> yaml.Node | None:
        """Compose a document, and refuse one that its aliases make too large."""
        document = super().compose_document()
        if document is not None and _size(document, {}) > MOST_NODES:
            raise ComposerError(
                None,
                None,
                f"aliases make more than {MOST_NODES:,} values of it",
                document.start_mark,
            )
        return document

    def construct_scalar(self, node: yaml.Node) -> Any:
        """Construct a scalar, unless it is a number that nobody could have meant."""
        if node.tag in NUMBERS and len(node.value) > MOST_DIGITS:
            raise yaml.constructor.ConstructorError(
                None, None, f"a number has {len(node.value):,} characters", node.start_mark
            )
        return super().construct_scalar(node)  # pyright: ignore[reportArgumentType]


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many nodes there are once aliases are written out; a circle counts once."""
    if id(node) not in known:
        known[id(node)] = 0  # while its children are counted
        children: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            children = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            children = node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]
