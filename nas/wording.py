"""Figures as people read them."""

from __future__ import annotations


def in_words(count: int) -> str:
    """Return a number of any size: 5,872 or 1.26e+21."""
    if count < 10**6:
        return f"{count:,}"
    exponent = len(str(count)) - 1
    return f"{count // 10 ** (exponent - 2) / 100:.2f}e+{exponent:02}"


def counted(count: int, what: str) -> str:
    """Return a number of things: 1 time, 2 times."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def ms_text(value: float) -> str:
    """Return milliseconds with the digits that a measurement can carry."""
    return f"{value:.3f}" if value >= 1 else f"{value:.4f}"


def accuracy_text(value: float, standard_error: float) -> str:
    """Return an accuracy in percent, with its standard error."""
    return f"{100 * value:.1f} ± {100 * standard_error:.1f} %"
