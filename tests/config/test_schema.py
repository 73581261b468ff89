import json
import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entity.config import schema
from entity.config.schema import (
    ConfigError,
    Count,
    Fraction,
    NonNegative,
    Positive,
    Range,
    Whole,
)


@dataclass(frozen=True)
class Inner:
    rate: Positive
    """Steps
    a second."""
    kind: Literal["round", "square"] = "round"


@dataclass(frozen=True)
class Outer:
    inner: Inner
    points: tuple[tuple[int, ...], ...] = ()
    share: Fraction | None = None
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Heir(Inner):
    size: Count = 1
    """Its own field."""


KINDS = [
    *(int, float, bool, str, Fraction, Positive, NonNegative, Count, Whole, Outer, Inner),
    *(int | None, str | tuple[tuple[int, ...], ...], Whole | Literal["estimate", "oracle"]),
    *(Literal["a", "b"], tuple[float, ...], dict[str, Any], Inner | None),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63), 10**400, -(10**400)])
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["a", "round", "estimate", "inner", "rate"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["inner", "rate", "kind", "x"]) | st.text(), inner)
    ),
    max_leaves=6,
)

PLAIN = (
    *(st.none(), st.booleans(), st.integers(0, 3), st.floats(0, 1), st.just({"rate": 0.5})),
    *(st.sampled_from(["a", "round", "estimate"]), st.lists(st.integers(0, 3))),
)
"""Values that some of the kinds allow."""


@pytest.mark.parametrize(
    ("kind", "value", "result"),
    [
        (int, 5e6, 5_000_000),  # the original's budget
        (int, -3, -3),
        (int, 2**63 - 1, 2**63 - 1),
        (float, 3, 3.0),
        (float, 1e308, 1e308),
        (Fraction, 0, 0.0),
        (Fraction, 1, 1.0),
        (NonNegative, 0, 0.0),
        (Whole, 0, 0),
        (Count, 1, 1),
        (bool, False, False),
        (str, "7", "7"),
        (int | None, None, None),
        (Literal["a", "b"], "b", "b"),
        (Literal[1, 3], 1.0, 1),
        (Literal[True, "no"], True, True),
        (Whole | Literal["estimate"], "estimate", "estimate"),
        (Whole | Literal["estimate"], 3, 3),
        (tuple[tuple[int, ...], ...], [[1, 2], []], ((1, 2), ())),
        (dict[str, Any], {"a": [1]}, {"a": [1]}),
        (Any, {"a": [None]}, {"a": [None]}),
    ],
)
def test_values_that_belong_to_a_type(kind, value, result):
    converted = schema.convert(kind, value, "x")
    assert converted == result
    assert type(converted) is type(result)


@pytest.mark.parametrize(
    ("kind", "value", "sentence"),
    [
        (int, 1.9, "x = 1.9: allowed is a whole number."),  # no silent cast to 1
        (int, True, "x = true: allowed is a whole number."),
        (int, "5", 'x = "5": allowed is a whole number.'),
        (int, math.nan, "x = NaN: allowed is a whole number."),
        (int, math.inf, "x = Infinity: allowed is a whole number."),
        (
            int,
            2**63,
            "x = 9223372036854775808: allowed is a whole number; whole numbers end below 2^63.",
        ),
        (int, 1e300, "x = 1e+300: allowed is a whole number; whole numbers end below 2^63."),
        (float, False, "x = false: allowed is a number."),
        (float, None, "x = null: allowed is a number."),
        (float, -math.inf, "x = -Infinity: allowed is a number."),
        (bool, 1, "x = 1: allowed is true or false."),
        (bool, "true", 'x = "true": allowed is true or false.'),
        (str, 5, "x = 5: allowed is a text."),
        (Fraction, 1.01, "x = 1.01: allowed is a number from 0 to 1."),
        (Fraction, -0.01, "x = -0.01: allowed is a number from 0 to 1."),
        (Positive, 0, "x = 0: allowed is a number above 0."),
        (NonNegative, -1, "x = -1: allowed is a number at least 0."),
        (Count, 0, "x = 0: allowed is a whole number at least 1."),
        (Fraction | None, 2, "x = 2: allowed is a number from 0 to 1 or null."),
        (
            Literal["round", "square"],
            "rond",
            'x = "rond": allowed is one of round, square. Did you mean round?',
        ),
        (tuple[int, ...], [1, "a"], 'x = "a": allowed is a whole number.'),
        (tuple[int, ...], "12", 'x = "12": allowed is a list of whole numbers.'),
        (tuple[str, ...], "a", 'x = "a": allowed is a list of texts.'),
        (tuple[tuple[int, ...], ...], 3, "x = 3: allowed is a list of lists of whole numbers."),
        (tuple[int | str, ...], 3, "x = 3: allowed is a list of (a whole number or a text)."),
        (dict, [], "x = []: allowed is a table of fields."),
        (Inner, 5, "x = 5: expected a table of fields."),
    ],
)
def test_values_that_do_not_are_refused_in_one_sentence(kind, value, sentence):
    with pytest.raises(ConfigError) as refusal:
        schema.convert(kind, value, "x")
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    "kind", [int, float, Count, Positive, int | None, str, bool, Literal["a", "b"]]
)
def test_numbers_of_hundreds_of_digits_are_refused_and_not_an_overflow(kind):
    with pytest.raises(ConfigError, match=r"^x = 10{56}\.\.\.: allowed is "):
        schema.convert(kind, 10**400, "x")
    with pytest.raises(ConfigError, match=r"^x = a number too long to print: allowed is "):
        schema.convert(kind, 10**5000, "x")  # Python prints no more than 4300 digits


def test_any_json_is_converted_or_refused_and_converting_twice_changes_nothing():
    accepted = []

    @given(st.sampled_from(KINDS), JSON | st.one_of(PLAIN))
    @settings(max_examples=300, deadline=None)
    def accepts(kind, value):
        try:
            once = schema.convert(kind, value, "x")
        except ConfigError:
            accepted.append(False)
            return
        accepted.append(True)
        assert schema.convert(kind, schema.dump(once), "x") == once

    accepts()
    assert sum(accepted) > 0.05 * len(accepted)


def test_unknown_keys_are_never_dropped():
    with pytest.raises(ConfigError, match=r"^inner\.rat is unknown\. Did you mean rate\?$"):
        schema.load(Outer, {"inner": {"rat": 1}})
    with pytest.raises(ConfigError, match=r"^zzz is unknown\. Allowed here: inner, points, "):
        schema.load(Outer, {"inner": {"rate": 1}, "zzz": None})
    with pytest.raises(ConfigError, match=r"^5 is unknown\."):
        schema.load(Outer, {5: 1})  # YAML has such keys


def test_missing_fields_say_what_they_need():
    with pytest.raises(ConfigError, match=r"^inner\.rate is missing: it needs a number above 0\.$"):
        schema.load(Outer, {"inner": {}})
    with pytest.raises(ConfigError, match=r"^inner is missing: it needs a table of fields\.$"):
        schema.load(Outer, {})
    with pytest.raises(ConfigError, match=r"^the config = \[\]: expected a table of fields\.$"):
        schema.load(Outer, [])


def test_tables_become_nested_dataclasses_and_back():
    data = {"inner": {"rate": 2}, "points": [[1, 2], [3]]}
    loaded = schema.load(Outer, data)
    assert loaded == Outer(Inner(2.0), ((1, 2), (3,)))
    dumped = schema.dump(loaded)
    assert list(dumped) == ["inner", "points", "share", "extra"]  # the order of the fields
    assert dumped["inner"] == {"rate": 2.0, "kind": "round"}
    assert json.loads(json.dumps(dumped)) == dumped
    assert schema.load(Outer, dumped) == loaded


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (float, "0.25", 0.25),
        (float, ".5", 0.5),
        (float, "+1", 1.0),
        (float, "1e-3", 1e-3),
        (int, "5e6", 5_000_000),
        (int, "-1", -1),
        (int | None, "none", None),
        (int | None, "NULL", None),
        (bool, "True", True),
        (bool, "false", False),
        (str, "drop", "drop"),
        (str, '"drop"', "drop"),
        (str, "7", "7"),
        (str, "true", "true"),
        (str, "none", "none"),
        (str | None, "none", None),
        (str, "", ""),
        (str, "[" * 50_000, "[" * 50_000),
        (tuple[tuple[int, ...], ...], "[[1, 2], [3, 4]]", ((1, 2), (3, 4))),
        (str | tuple[tuple[int, ...], ...], "[[1, 2]]", ((1, 2),)),
    ],
)
def test_texts_of_the_command_line(kind, text, value):
    assert schema.parse_text(kind, text, "x") == value


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        (float, "fast", 'x = "fast": allowed is a number.'),
        (float, "nan", 'x = "nan": allowed is a number.'),
        (int, "1.5", "x = 1.5: allowed is a whole number."),
        (int, ".5", 'x = ".5": allowed is a whole number.'),
        (Fraction, "two", 'x = "two": allowed is a number from 0 to 1.'),
        (bool, "1", "x = 1: allowed is true or false."),
        (bool, "yes", 'x = "yes": allowed is true or false.'),
        (float, "none", "x = null: allowed is a number."),
        (Count, "0", "x = 0: allowed is a whole number at least 1."),
    ],
)
def test_texts_that_do_not_fit_are_refused_as_the_user_wrote_them(kind, text, sentence):
    with pytest.raises(ConfigError) as refusal:
        schema.parse_text(kind, text, "x")
    assert str(refusal.value) == sentence


def test_any_text_is_read_or_refused():
    accepted = []

    @given(st.sampled_from(KINDS), st.text() | (JSON | st.one_of(PLAIN)).map(json.dumps))
    @settings(max_examples=200, deadline=None)
    def accepts(kind, text):
        try:
            value = schema.parse_text(kind, text, "x")
        except ConfigError:
            accepted.append(False)
            return
        accepted.append(True)
        assert schema.convert(kind, schema.dump(value), "x") == value

    accepts()
    assert sum(accepted) > 0.04 * len(accepted)


def test_ranges_include_their_ends_unless_they_say_above():
    assert 0 in Range(0, 1)
    assert 1 in Range(0, 1)
    assert 1.0001 not in Range(0, 1)
    assert 0 not in Range(0, above=True)
    assert math.nan not in Range(0, 1)
    described = schema.describe(Annotated[float, Range(0, 0.5, above=True)])
    assert described == "a number above 0 to 0.5"


def test_the_string_below_a_field_is_its_documentation_also_for_heirs():
    assert schema.docs(Heir) == {"rate": "Steps\na second.", "size": "Its own field."}


@pytest.mark.parametrize(
    ("word", "hint"),
    [("dpr", " Did you mean DPR?"), ("batchsize", " Did you mean batch_size?"), ("qqq", "")],
)
def test_suggestions_ignore_case(word, hint):
    assert schema.suggest(word, ["DPR", "batch_size"]) == hint


def test_long_values_are_shortened_in_messages():
    assert schema.show(["abc"] * 3) == '["abc", "abc", "abc"]'
    assert schema.show("y" * 1000) == '"' + "y" * 56 + "..."
    assert len(schema.show("x" * 1000)) == 60


def test_a_whole_number_beyond_64_bits_is_told_where_they_end():
    for value in (2**63, 10**30, 1e19):
        with pytest.raises(ConfigError, match="at least 0; whole numbers end below 2\\^63"):
            schema.convert(Whole, value, "settings.seed")
    with pytest.raises(ConfigError, match="or null; whole numbers end below"):
        schema.convert(Whole | None, 2**63, "server.held_out")
    assert schema.convert(Whole, 2**63 - 1, "settings.seed") == 2**63 - 1
    with pytest.raises(ConfigError, match=r"a number from 0 to 1\.$"):
        schema.convert(Fraction, 2**63, "DPR")
