"""`fevertools.options`: what is taken, as which type, and what is refused."""

import itertools

import numpy as np
import pytest

from fevertools.errors import OptionError
from fevertools.options import choice, flag, fraction, fractions, whole


@pytest.mark.parametrize("value", [1, 7, np.int8(7), np.uint64(7), 10**400])
def test_whole_numbers_become_int(value):
    assert whole(value, "x") == value
    assert type(whole(value, "x")) is int


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None, [1], np.array([1]), np.float32(1)])
def test_what_is_no_whole_number_above_0(value):
    with pytest.raises(OptionError, match=r"x is .*; use a whole number of at least 1"):
        whole(value, "x")


def test_a_number_that_python_does_not_write_is_refused_in_words():
    with pytest.raises(OptionError, match="x is a number of type int, too long to show"):
        whole(-(10**5000), "x")


def test_the_ends_of_a_range_belong_to_it():
    assert [whole(value, "x", 4, 6) for value in (4, 5, 6)] == [4, 5, 6]
    for value in (3, 7):
        with pytest.raises(OptionError, match=f"x is {value}; use a whole number from 4 to 6"):
            whole(value, "x", 4, 6)


@pytest.mark.parametrize("value", [0.5, 5e-324, np.float16(0.5), np.float32(0.5), 1 - 2**-53])
def test_fractions_become_float(value):
    assert fraction(value, "x") == float(value)
    assert type(fraction(value, "x")) is float


BAD_FRACTIONS = [0, 1, -0.5, 1.5, float("nan"), float("inf"), True, "0.5", None, 10**400, [0.5], np.array([0.5]), 0.5j]


@pytest.mark.parametrize("value", BAD_FRACTIONS)
def test_what_is_no_fraction(value):
    with pytest.raises(OptionError, match=r"x is .*; use a number between 0 and 1"):
        fraction(value, "x")
    with pytest.raises(OptionError, match=r"x\[1\] is "):
        fractions([0.5, value], "x", 2)


def test_a_fraction_may_have_a_lower_end():
    assert fraction(0.99, "x", 0.99) == 0.99
    with pytest.raises(OptionError, match=r"above 0 and not above 0\.99"):
        fraction(0.991, "x", 0.99)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant <= 52, reason="no floats longer than Python's")
def test_a_fraction_that_python_rounds_to_1_is_refused():
    with pytest.raises(OptionError, match="use a number between 0 and 1"):
        fraction(np.longdouble(1) - np.finfo(np.longdouble).epsneg, "x")


@pytest.mark.parametrize("values", [(0.1, 0.2), [0.1, 0.2], np.array([0.1, 0.2]), iter((0.1, 0.2))])
def test_fractions_of_any_iterable(values):
    assert fractions(values, "x", 2) == (0.1, 0.2)


@pytest.mark.parametrize("values", [(), (0.1,), (0.1, 0.2, 0.3), 5, None, np.array(0.5), itertools.repeat(0.5)])
def test_another_number_of_fractions(values):
    with pytest.raises(OptionError, match=r"x is .*; use 2 numbers between 0 and 1"):
        fractions(values, "x", 2)


def test_flags():
    assert [flag(value, "x") for value in (True, False, np.True_, np.False_)] == [True, False, True, False]
    for value in (0, 1, "no", None, [], np.array([True])):
        with pytest.raises(OptionError, match=r"x is .*; use True or False"):
            flag(value, "x")


def test_choices():
    assert choice("b", "x", ("a", "b")) == "b"
    for value in ("c", "", None, 1, [], ["a"], np.array(["a", "b"])):
        with pytest.raises(OptionError, match=r"no x named .*; known: a, b"):
            choice(value, "x", ("a", "b"))
