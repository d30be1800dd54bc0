"""How numbers with a sign are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotate_ui import wording
from plumbline.numbers import signed
from plumbline.preferences.quality.figures import Figure


@pytest.mark.parametrize(
    ("value", "digits", "plus", "text"),
    [
        (-0.004, 2, False, "0.00"),
        (-0.0, 0, True, "0"),
        (0.4, 0, True, "0"),
        (-0.006, 2, False, "−0.01"),
        (-11.2, 0, True, "−11"),
        (11.2, 0, True, "+11"),
        (0.5, 1, False, "0.5"),
    ],
)
def test_signs(value, digits, plus, text):
    assert signed(value, digits, plus=plus) == text


@given(st.floats(-1e6, 1e6), st.integers(0, 4))
def test_it_is_the_number_and_what_is_nothing_has_no_sign(value, digits):
    text = signed(value, digits)
    assert "-" not in text
    assert float(text.replace("−", "-")) == round(float(f"{value:.{digits}f}"), digits)
    assert "−" not in text or float(text[1:]) > 0


def test_the_quality_page_writes_its_numbers_so():
    figure = Figure(-0.001, -0.3, 0.002)
    assert (wording.number(figure), wording.numbers(figure)) == ("0.00", "−0.30 to 0.00")
