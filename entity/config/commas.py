"""Values with commas between them, as axes and conditions on the command line have them."""

import re

_QUOTED = re.compile(r"""\s*('[^']*'|"[^"]*")\s*(?=,|$)""")
_IN_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]')


def between_commas(text: str) -> list[str]:
    """Return the values that commas part; those within quotes and brackets part nothing.

    Quotes are such around a whole value, and brackets where they are closed again.

    Examples
    --------
    >>> between_commas("drop, flame"), between_commas("[[0, 0]],4pixel")
    (['drop', 'flame'], ['[[0, 0]]', '4pixel'])
    >>> between_commas("'a, b',it's,[c")
    ["'a, b'", "it's", '[c']
    """
    parts, start, place = list[str](), 0, _begin(text, 0)
    while place < len(text):
        if text[place] == ",":
            parts.append(text[start:place].strip())
            start = place + 1
            place = _begin(text, start)
        else:
            place = _end_of_brackets(text, place) if text[place] in "[{" else place + 1
    return [*parts, text[start:].strip()]


def _begin(text: str, start: int) -> int:
    """Return where to look for the end of a value from: behind its quotes, if it has any."""
    quoted = _QUOTED.match(text, start)
    return quoted.end() if quoted else start


def _end_of_brackets(text: str, start: int) -> int:
    """Return the place behind the bracket that closes one; behind that one where none does."""
    depth = 0
    for found in _IN_BRACKETS.finditer(text, start):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth == 0:
            return found.end()
    return start + 1
