import json

import keras
import numpy as np
import pytest

from vaezoo.core import checks

pytestmark = pytest.mark.one_backend

NO_NUMBERS = [True, np.bool_(True), "3", None, [3], np.array([3]), 3j, object()]


@pytest.mark.parametrize("value", [3, np.int64(3), np.uint8(3)])
def test_integers_of_python_and_numpy_become_python_s(value):
    found = checks.check_integer("n", value)
    assert found == 3
    assert type(found) is int


@pytest.mark.parametrize("value", [*NO_NUMBERS, 3.0, np.float32(3), float("nan")])
def test_what_is_no_integer_is_refused(value):
    with pytest.raises(ValueError, match="`n` must be a positive integer. Received: n="):
        checks.check_integer("n", value)


@pytest.mark.parametrize(
    ("limits", "value", "rule"),
    [
        ({}, 0, "a positive integer"),
        ({"least": 0}, -1, "a non-negative integer"),
        ({"least": 2}, 1, "an integer of at least 2"),
        ({"least": 2, "most": 4}, 5, "an integer from 2 to 4"),
        ({"least": None, "most": 4}, 5, "an integer of at most 4"),
        ({"least": None}, "x", "an integer"),
    ],
)
def test_the_range_of_integers_is_named(limits, value, rule):
    with pytest.raises(ValueError, match=f"`n` must be {rule}. Received: n={value!r}"):
        checks.check_integer("n", value, **limits)


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.float64(0.5), np.float16(0.5)])
def test_real_numbers_become_python_s_and_can_be_written_as_json(value):
    found = checks.check_real("r", value, "[0, 1]")
    assert found == 0.5
    assert json.dumps(found) == "0.5"


@pytest.mark.parametrize("value", [*NO_NUMBERS, float("nan"), np.nan, float("inf"), -np.inf])
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ValueError, match="`r` must be a finite number. Received: r="):
        checks.check_real("r", value)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", [0, 1], [-1e-9, 1.001]),
        ("(0, 1]", [1e-9, 1], [0, 2]),
        ("[0, 1)", [0, 0.999], [1, -1]),
        ("(0, inf)", [1e-9, 1e30], [0, float("inf")]),
        ("(0, inf]", [float("inf")], [0]),
    ],
)
def test_brackets_say_which_ends_belong_to_an_interval(interval, inside, outside):
    for value in inside:
        assert checks.check_real("r", value, interval) == value
    for value in outside:
        with pytest.raises(ValueError, match="`r` must be a"):
            checks.check_real("r", value, interval)


def test_flags_are_bools_alone():
    assert checks.check_flag("f", np.bool_(False)) is False
    for value in (0, 1, "maybe", None):
        with pytest.raises(ValueError, match="`f` must be True or False"):
            checks.check_flag("f", value)


def test_choices_are_listed():
    assert checks.check_choice("c", "rms", ("rms", "free")) == "rms"
    assert checks.check_choice("c", None, ("rms", None)) is None
    for value in ("RMS", 1, ["rms"], np.array(["rms", "free"])):
        with pytest.raises(ValueError, match="`c` must be one of 'rms', 'free'. Received: c="):
            checks.check_choice("c", value, ("rms", "free"))


def test_seeds_are_none_or_below_2_to_the_31():
    assert checks.check_seed("seed", None) is None
    assert type(checks.check_seed("seed", np.int64(7))) is int
    for value in (-1, 2**31, 1.0, True, "7"):
        with pytest.raises(ValueError, match=r"`seed` must be an integer in \[0, 2\^31\)"):
            checks.check_seed("seed", value)


@pytest.mark.parametrize("values", [[3, 4], (3, 4), np.array([3, 4]), [np.int64(3), 4]])
def test_sequences_of_integers_become_tuples(values):
    found = checks.check_integers("s", values)
    assert found == (3, 4)
    assert {type(value) for value in found} == {int}


@pytest.mark.parametrize("values", [3, "34", [3, 0], [3, 4.0], np.array([[3]]), {3: 4}, None])
def test_other_sequences_are_refused(values):
    with pytest.raises(ValueError, match="`s` must be a sequence of positive integers"):
        checks.check_integers("s", values)
    with pytest.raises(ValueError, match="`s` must be 3 positive integers"):
        checks.check_integers("s", [3, 4], length=3)


def test_none_is_allowed_where_it_is_optional():
    assert checks.check_integer("n", None, optional=True) is None
    assert checks.check_real("r", None, "(0, 1)", optional=True) is None
    assert checks.check_integers("s", None, optional=True) is None
    assert checks.check_reals("s", None, optional=True) is None
    assert checks.check_kind("k", None, dict, "a dict", optional=True) is None
    with pytest.raises(ValueError, match="`n` must be a positive integer or None. Received: n=0"):
        checks.check_integer("n", 0, optional=True)
    with pytest.raises(ValueError, match="`seed` must be .* Received: seed=None"):
        checks.check_seed("seed", None, optional=False)


def test_other_choices_are_named():
    with pytest.raises(ValueError, match="`r` must be a finite, positive number or 'own' or None."):
        checks.check_real("r", "owm", "(0, inf)", optional=True, also="'own'")
    with pytest.raises(ValueError, match="must be one or two. Received: s="):
        checks.check_integers("s", (1, 0), length=2, rule="one or two")


@pytest.mark.parametrize("values", [[0.5, 1], (0.5, np.int64(1)), np.array([0.5, 1], "float32")])
def test_sequences_of_numbers_become_tuples(values):
    found = checks.check_reals("s", values, "(0, 1]")
    assert found == (0.5, 1)
    assert {type(value) for value in found} <= {int, float}


@pytest.mark.parametrize("values", [0.5, "0.5", [], [0.5, 0.0], [float("nan")], [True], [[0.5]]])
def test_other_sequences_of_numbers_are_refused(values):
    with pytest.raises(ValueError, match=r"`s` must be a sequence of numbers in \(0, 1\]. Rec"):
        checks.check_reals("s", values, "(0, 1]")


def test_kinds_are_classes_of_objects():
    assert checks.check_kind("k", {}, (dict, list), "a dict") == {}
    with pytest.raises(TypeError, match=r"`k` must be a dict. Received: k=3 \(int\)"):
        checks.check_kind("k", 3, dict, "a dict")
    with pytest.raises(TypeError, match=r"`k` must be a dict. Received: .* \(the class dict\)"):
        checks.check_kind("k", dict, dict, "a dict")


def test_what_keras_knows_by_name():
    assert checks.check_keras("activation", "relu", keras.activations) is keras.activations.relu
    assert checks.check_keras("initializer", None, keras.initializers) is None
    for value in ("rleu", 3, ["relu"], {"class_name": "none"}):
        with pytest.raises(ValueError, match="`activation` must be an activation of Keras or its"):
            checks.check_keras("activation", value, keras.activations)
    with pytest.raises(ValueError, match="optimizer='adma' .did you mean .*'Adam'"):
        checks.check_keras("optimizer", "adma", keras.optimizers)


def test_keys_are_listed_and_the_nearest_is_offered():
    checks.check_keys("Options", {"gamma": 1}, ["gamma", "beta"])
    with pytest.raises(
        ValueError, match="Options must be among gamma, beta. Received: gama=1 .*'gam"
    ):
        checks.check_keys("Options", {"gama": 1}, ["gamma", "beta"])


def test_long_values_are_cut():
    with pytest.raises(ValueError, match="xxx[.]{3}$") as error:
        checks.check_integer("n", "x" * 10_000)
    assert len(str(error.value)) < 300
