"""Conditions: what they choose, and that any text is one or is refused in a sentence."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from entity.config.schema import ConfigError
from entity.results.filter import full_name, parse

ROWS = [
    {"defense": "drop", "client.attack.DPR": 0.1, "K": 5, "client.lr": 0.1, "seed": 1, "on": True},
    {
        "defense": "drop",
        "client.attack.DPR": 0.5,
        "K": 10,
        "client.lr": 0.1,
        "seed": 2,
        "on": False,
    },
    {"defense": "median", "client.attack.DPR": 0.5, "client.lr": 0.01, "seed": 1, "asr": None},
    {"defense": "krum", "client.lr": 0.01, "server.lr": 1, "seed": 3, "note": "a b", "asr": 0.0},
]
COMMAS = [{"note": "a, b"}, {"note": "a"}, {"note": "b"}, {"note": "it's, that's"}]


def chosen(*words):
    return [place for place, meant in enumerate(parse(words).select(ROWS)) if meant]


@pytest.mark.parametrize(
    ("words", "places"),
    [
        ([], [0, 1, 2, 3]),
        (["defense=drop"], [0, 1]),
        (["defense==drop"], [0, 1]),
        (["defense=drop,krum"], [0, 1, 3]),
        (["defense!=drop"], [2, 3]),
        (["defense!=drop,krum"], [2]),
        (["DPR=0.5"], [1, 2]),
        (["DPR=.50"], [1, 2]),
        (["attack.DPR<0.5"], [0]),
        (["DPR<=0.5"], [0, 1, 2]),
        (["DPR>0.1"], [1, 2]),
        (["DPR>=1e-1"], [0, 1, 2]),
        (["client.attack.DPR = 0.1"], [0]),
        (["seed=1", "defense=drop"], [0]),
        (["seed=1 and defense=drop"], [0]),
        (["seed=3 or defense=drop and DPR=0.1"], [0, 3]),
        (["seed=1 or seed=2", "defense=drop or defense=krum"], [0, 1]),
        (["K=null"], [2, 3]),  # a field that a run lacks
        (["K!=none"], [0, 1]),
        (["K<100"], [0, 1]),
        (["on=true"], [0]),
        (["on=False"], [1]),
        (["on>0"], []),  # true is no number
        (["asr=0"], [3]),
        (["note='a b'"], [3]),
        (["note=a b"], [3]),
        (["seed=9"], []),
        (["seed=1 OR seed=2"], [0, 1, 2]),
        (["seed=1 And defense=drop"], [0]),
        (["note='a b' or seed=2"], [1, 3]),
        (["note='a or b'"], []),
        (["seed=1  or\tseed=2"], [0, 1, 2]),
        (["note=or"], []),
    ],
)
def test_conditions_choose_rows(words, places):
    assert chosen(*words) == places


@pytest.mark.parametrize(
    ("word", "places"),
    [
        ("note='a, b'", [0]),
        ('note="a, b"', [0]),
        ("note='a, b',b", [0, 2]),
        ("note=a, b", [1, 2]),
        ("note=b,'a, b' , a", [0, 1, 2]),
        ("note!='a, b'", [1, 2, 3]),
        ("note=\"it's, that's\"", [3]),
        ("note=it's,b", [2]),  # an apostrophe within a value begins no quotation
        ("note!=it's and note!=a and note!=b's", [0, 2, 3]),
        ("note=it's or note='a, b'", [0]),
    ],
)
def test_a_comma_in_quotes_is_part_of_the_value(word, places):
    assert [place for place, meant in enumerate(parse([word]).select(COMMAS)) if meant] == places


PATTERNS = [{"p": [[0, 0], [1, 1]]}, {"p": "[[0, 0], [1, 1]]"}, {"p": "4pixel"}, {"p": "a]b,[c"}]


@pytest.mark.parametrize(
    ("word", "places"),
    [
        ("p=[[0, 0], [1, 1]]", [0, 1]),
        ("p=[[0,0],[1,1]]", [0, 1]),
        ("p=4pixel,[[0, 0],[1, 1]]", [0, 1, 2]),
        ("p!=[[0, 0], [1, 1]] , 4pixel", [3]),
        ("p='a]b,[c'", [3]),
        ("p=[4pixel,4pixel", [2]),  # a bracket that is not closed holds nothing together
        ("p='4pixel", []),  # nor is a quote that nothing closes taken away
        ("p=4pixel'", []),
        ("p=''4pixel''", []),
    ],
)
def test_a_list_is_one_value(word, places):
    assert [place for place, meant in enumerate(parse([word]).select(PATTERNS)) if meant] == places


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("defence=drop", "defence is a field of none of the runs. Did you mean defense?"),
        ("lr=0.1", "lr is ambiguous: write client.lr or server.lr."),
        ("drop", '"drop": is no condition; write NAME=VALUE'),
        ("=3", '"=3": is no condition'),
        ("", '"": is no condition'),
        ("seed=1 and", '"seed=1 and": a condition must follow the and; '),
        ("seed=1 or", '"seed=1 or": a condition must follow the or; '),
        ("seed=1 or seed=2 AND ", "a condition must follow the and; "),
        ("or seed=1", '"or seed=1": is no condition'),
        ("K<many", '"K<many": < needs a number to compare with.'),
        ("K>=1,2", ">= needs a number to compare with."),
        ("K<nan", "< needs a number to compare with."),
    ],
)
def test_what_is_no_condition_is_refused_in_a_sentence(word, said):
    with pytest.raises(ConfigError) as refusal:
        chosen(word)
    assert said in str(refusal.value)
    assert str(refusal.value).endswith((".", "?"))


def test_no_rows_are_asked_nothing():
    assert parse(["anything=1"]).select([]) == []


def test_a_whole_name_goes_before_the_end_of_another():
    assert full_name("lr", ["client.lr", "lr"]) == "lr"


def test_any_text_is_a_condition_or_a_config_error():
    accepted = []

    @given(
        st.lists(
            st.text(max_size=12) | st.sampled_from(["K=1 or ", "K<1 and K>0", "K=", "seed>1"]),
            max_size=3,
        )
    )
    def accepts(words):
        try:
            chosen = parse(words).select(ROWS)
        except ConfigError:
            accepted.append(False)
            return
        accepted.append(True)
        assert len(chosen) == len(ROWS)

    accepts()
    assert sum(accepted) > 0.03 * len(accepted)


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
def test_a_value_equals_its_own_text(value):
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
    text = text or json.dumps(value)
    assert parse([f"x={text}"]).select([{"x": value}]) == [True]
    assert parse([f"x!={text}"]).select([{"x": value}]) == [False]


@pytest.mark.timeout(20)
def test_forty_words_with_an_or_take_no_longer_than_forty_conditions():
    assert chosen(*["defense=drop or defense=krum"] * 40) == [0, 1, 3]
    assert chosen(*["defense=drop or defense=krum"] * 40, "seed=3 or seed=2") == [1, 3]
