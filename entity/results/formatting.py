"""Numbers as people read them: sensible digits, units, and a dash where there is none.

Pages have a no-break space before a unit and an en dash for nothing. Lines in a terminal have
neither: `compact_percent`, and `counted` with a plain space.
"""

NONE = "\N{EN DASH}"
NBSP = "\N{NO-BREAK SPACE}"


def percent(share: float | None, digits: int = 1) -> str:
    """Write a share of one.

    Examples
    --------
    >>> percent(0.98765).replace(NBSP, " "), percent(0.98765, 0).replace(NBSP, " ")
    ('98.8 %', '99 %')
    """
    return NONE if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def compact_percent(share: float | None, width: int = 0) -> str:
    """Write a share of one for the terminal, right-aligned in a column of some width.

    Examples
    --------
    >>> compact_percent(0.98765), compact_percent(0.05, width=6), compact_percent(None, width=6)
    ('98.8%', '  5.0%', '     -')
    """
    text = "-" if share is None else f"{100 * share:.1f}%"
    return text.rjust(width)


def duration(seconds: float | None) -> str:
    """Write a time with two units at most.

    Examples
    --------
    >>> for seconds in (0.034, 12.34, 754, 7500):
    ...     print(duration(seconds).replace(NBSP, " "))
    0.034 s
    12.3 s
    12 min 34 s
    2 h 05 min
    """
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.3g}{NBSP}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{NBSP}min{NBSP}{rest:02d}{NBSP}s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours}{NBSP}h{NBSP}{minutes:02d}{NBSP}min"


def clock(seconds: float) -> str:
    """Write a time as a clock shows it.

    Examples
    --------
    >>> clock(59), clock(61), clock(3600)
    ('00:59', '01:01', '1:00:00')
    """
    hours, rest = divmod(round(seconds), 3600)
    text = f"{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours}:{text}" if hours else text


def memory(megabytes: float | None) -> str:
    """Write an amount of memory.

    Examples
    --------
    >>> memory(812.4).replace(NBSP, " "), memory(2048).replace(NBSP, " ")
    ('812 MB', '2.0 GB')
    """
    if megabytes is None:
        return NONE
    if megabytes < 1024:
        return f"{megabytes:.0f}{NBSP}MB"
    return f"{megabytes / 1024:.1f}{NBSP}GB"


def counted(number: int, noun: str, space: str = NBSP) -> str:
    """Write a number with its noun.

    Parameters
    ----------
    number
        How many there are.
    noun
        In the singular.
    space
        Between the two.

    Examples
    --------
    >>> counted(1, "run").replace(NBSP, " "), counted(12000, "client").replace(NBSP, " ")
    ('1 run', '12,000 clients')
    """
    return f"{number:,}{space}{noun}{'' if number == 1 else 's'}"


def setting(value: object) -> str:
    """Write a value of a config as a reader would.

    Examples
    --------
    >>> setting(None), setting(True), setting(0.025), setting([1, 2]), setting("")
    ('none', 'yes', '0.025', '1, 2', '""')
    """
    match value:
        case None:
            return "none"
        case bool():
            return "yes" if value else "no"
        case list():
            return ", ".join(setting(one) for one in value) or "empty list"
        case "":
            return '""'
        case _:
            return str(value)
