"""What somebody's own code has returned or raised, in words for a message."""

import inspect
from traceback import extract_tb
from types import CodeType
from typing import Any

from torch import Tensor


def kind(found: object) -> str:
    """Say what something is.

    Examples
    --------
    >>> kind(None), kind(Tensor(3)), kind([])
    ('None', 'a tensor of float32 and shape (3,)', 'a list')
    """
    if found is None:
        return "None"
    if isinstance(found, Tensor):
        return f"a tensor of {str(found.dtype).removeprefix('torch.')} and shape {(*found.shape,)}"
    name = type(found).__name__
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def like(found: object, wanted: Tensor) -> bool:
    """Whether something is a tensor of the type and the shape of another.

    Examples
    --------
    >>> like(Tensor(3), Tensor(3)), like([0.0], Tensor(1))
    (True, False)
    """
    return isinstance(found, Tensor) and (found.dtype, found.shape) == (wanted.dtype, wanted.shape)


def said(error: BaseException, most: int = 200) -> str:
    """Return an error on one line of bounded length.

    Examples
    --------
    >>> said(KeyError("boom")), said(SystemExit())
    ("KeyError: 'boom'", 'SystemExit')
    """
    text = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    text = text if len(text) <= most else text[: most - 3] + "..."
    return ": ".join(part for part in (type(error).__name__, text.rstrip(".")) if part)


def place(error: BaseException, *own: object) -> str:
    """Say which line of somebody's own code an error came from: ` at FILE, line N`.

    Where a call itself failed, so that nothing of it ran, that is where the first of them begins.

    Parameters
    ----------
    error
        What was raised.
    own
        Functions and classes; those of PyTorch are nobody's own.

    Returns
    -------
    str
        The last line of their files that ran; "" without any.
    """
    codes = [_code(each) for each in own]
    files = {code.co_filename for code in codes if code}
    frames = [each for each in extract_tb(error.__traceback__) if each.filename in files]
    if frames:
        return f" at {frames[-1].filename}, line {frames[-1].lineno}"
    if isinstance(error, TypeError) and codes and (first := codes[0]):
        return f" at {first.co_filename}, line {first.co_firstlineno}"
    return ""


def _code(own: Any) -> CodeType | None:
    function = inspect.unwrap(own.__init__ if isinstance(own, type) else own)
    module = str(getattr(function, "__module__", ""))
    return None if module.partition(".")[0] == "torch" else getattr(function, "__code__", None)
