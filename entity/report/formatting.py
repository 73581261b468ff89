"""Numbers in words: sensible digits, units, and a dash where there is none."""

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


def counted(number: int, noun: str) -> str:
    """Write a number with its noun.

    Examples
    --------
    >>> counted(1, "run").replace(NBSP, " "), counted(12000, "client").replace(NBSP, " ")
    ('1 run', '12,000 clients')
    """
    return f"{number:,}{NBSP}{noun}{'' if number == 1 else 's'}"


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
