"""`emitter.sprintf`: what Go's fmt documents for each verb, and for each mistake."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from bridge.emitter.sprintf import sprintf


@pytest.mark.parametrize(
    ("text", "values", "written"),
    [
        ("Node %s startup complete", ("FNode0",), "Node FNode0 startup complete"),
        ("%v %v %v %v", (1, True, None, b"raw"), "1 true <nil> raw"),
        ("%v", (ValueError("gone"),), "gone"),
        ("100%% of %d", (7,), "100% of 7"),
        ("%5d|%-5d|%05d|%+d", (7, 7, 7, 7), "    7|7    |00007|+7"),
        ("%x %X %x %x", (255, 255, b"\x00\xff", "hi"), "ff FF 00ff 6869"),
        ("%.2f %g %e", (1.005, 0.5, 1), "1.00 0.5 1.000000e+00"),
        ("%t %t %c", (True, False, 0x41), "true false A"),
        ("%q %q", ('say "hi"', b"\n"), '"say \\"hi\\"" "\\n"'),
        ("%6.2s|", ("abc",), "    ab|"),
    ],
)
def test_verbs_write_what_go_writes(text: str, values: tuple[object, ...], written: str) -> None:
    assert sprintf(text, *values) == written


@pytest.mark.parametrize(
    ("text", "values", "written"),
    [
        # Source: Go, package fmt, "Format errors"; factomd's own ValidatorLoop makes the first.
        ("A panic state occurred.", ("gone",), "A panic state occurred.%!(EXTRA str=gone)"),
        ("%d", (1, None, 2.5), "1%!(EXTRA NoneType=<nil>, float=2.5)"),
        ("hi%d", (), "hi%!d(MISSING)"),
        ("50 % down", (), "50 %!d(MISSING)own"),
        ("100%", ("x",), "100%!(NOVERB)%!(EXTRA str=x)"),
        ("%d", ("x",), "%!d(str=x)"),
        ("%d %f", (2.5, True), "%!d(float=2.5) %!f(bool=true)"),
        ("%t %q", (1, 2), "%!t(int=1) %!q(int=2)"),
        ("%z %\n", (1, 2), "%!z(int=1) %!\n(int=2)"),
        ("%c", (-1,), "%!c(int=-1)"),
        ("%f", (10**400,), f"%!f(int=1{'0' * 400})"),
        ("%99999d", (1,), "%!9(int=1)9d"),
    ],
)
def test_a_mistake_shows_in_the_text(text: str, values: tuple[object, ...], written: str) -> None:
    assert sprintf(text, *values) == written


@given(
    st.text(alphabet="%vsdxXqtcefg.+-# 019a\n\ud800"),
    st.lists(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()),
)
def test_no_text_and_no_value_is_an_error(text: str, values: list[object]) -> None:
    sprintf(text, *values)
