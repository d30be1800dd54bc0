"""How numbers with a sign are written, everywhere."""

from __future__ import annotations


def signed(value: float, digits: int = 2, *, plus: bool = False) -> str:
    """A number with a real minus sign; what rounds to nothing has no sign.

    Args:
        value: the number.
        digits: after the point.
        plus: positive numbers have their sign too.
    """
    text = f"{abs(value):.{digits}f}"
    if not float(text):
        return text
    return f"−{text}" if value < 0 else f"+{text}" if plus else text
