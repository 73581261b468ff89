"""What somebody's own code has returned or raised, in words for a message."""

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
