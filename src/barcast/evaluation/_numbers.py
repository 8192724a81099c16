"""Numbers for people."""

from __future__ import annotations


def number(value: float | None, form: str) -> str:
    """As text with a true minus sign; a dash where it is undefined, no sign where it rounds to 0."""
    if value is None:
        return "–"
    text = format(value, form)
    return (text.lstrip("+-") if not any(digit in text for digit in "123456789") else text).replace("-", "−")
