"""Options of requests as command lines have them: some by a flag of their own, any by ``--option NAME=VALUE``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def named_options(flags: Mapping[str, object], given: Sequence[str], what: str = "option") -> dict[str, str]:
    """Options by name.

    Args:
        flags: Values of the flags that stand for an option, by the option's name; None for those that were not given.
        given: Values of ``--option``.
        what: Name of that flag.

    Raises:
        ValueError: one without a name or a value, or one that is given twice.

    Example:
        >>> from imagexplain.cli.named_options import named_options
        >>> named_options({"steps": 20, "method": None}, ["n_segments=30"])
        {'steps': '20', 'n_segments': '30'}
    """
    found = {name: str(value) for name, value in flags.items() if value is not None}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise ValueError(f"--{what}: wanted NAME=VALUE, got {each!r}")
        if name in found:
            raise ValueError(f"--{what} {each}: wanted {name} once, got {found[name]!r} as well")
        found[name] = value
    return found
