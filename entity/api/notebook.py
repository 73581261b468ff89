"""What a notebook shows while a block of code runs: one output, written over."""

import html
import sys
from typing import Any

_MOST_LINES = 12
"""Lines above the bar; of more, the last ones."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which draws HTML."""
    ipython = sys.modules.get("IPython")  # of a kernel it is imported
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")


class Output:
    """One output of a notebook's cell: a bar with text around it, and lines above it.

    Parameters
    ----------
    title
        Text before the bar.
    total
        Steps in all.
    """

    def __init__(self, title: str, total: float) -> None:
        self.title, self.total = title.strip(), total
        self.done, self.facts = 0.0, "starting"
        self.lines: list[str] = []
        self.handle: Any = None

    def show(self) -> None:
        """Draw it, for the first time or over what was there."""
        from IPython.display import display

        if self.handle is None:
            self.handle = display(self, display_id=True)
        else:
            self.handle.update(self)

    def __repr__(self) -> str:
        return "\n".join([*self.lines, f"{self.title}  {self.facts.strip()}"])

    def _repr_html_(self) -> str:
        lines = "".join(f"{html.escape(line)}\n" for line in self.lines[-_MOST_LINES:])
        return (
            (f"<pre>{lines}</pre>" if lines else "")
            + f'<span>{html.escape(self.title)}</span> <progress max="{self.total:g}" '
            f'value="{min(self.done, self.total):g}"></progress> '
            f'<code style="white-space:pre">{html.escape(self.facts)}</code>'
        )
