import inspect
import pydoc
import subprocess
import sys
from dataclasses import dataclass, make_dataclass

import pytest

from entity.attacks import ATTACKS
from entity.config.field_help import described, show_fields
from entity.config.fields import ExperimentConfig, FederationConfig
from entity.config.schema import Fraction, docs
from entity.defenses import DEFENSES, DropArgs
from entity.poisons import POISONS

METHODS = [entry for registry in (DEFENSES, ATTACKS, POISONS) for entry in registry.values()]


@dataclass(frozen=True)
class Base:
    """A base."""

    share: Fraction = 0.5
    """The share
    of something."""


@dataclass(frozen=True)
class Settings(Base):
    """Some settings.

    With a second paragraph.
    """

    name: str = "x"
    """What it is called."""
    plain: int = 3


def test_the_docstring_is_followed_by_own_and_inherited_fields():
    assert described(Base, "A base.").splitlines() == [
        *("A base.", "", "Fields", "------"),
        *("share : a number from 0 to 1, default 0.5", "    The share", "    of something."),
    ]
    show_fields(Settings)
    show_fields(Settings)
    text = inspect.getdoc(Settings)
    assert text.splitlines() == [
        *("Some settings.", "", "With a second paragraph.", "", "Fields", "------"),
        *('name : a text, default "x"', "    What it is called."),
        *("plain : a whole number, default 3", "", "Fields of Base", "--------------"),
        *("share : a number from 0 to 1, default 0.5", "    The share", "    of something."),
    ]
    assert inspect.cleandoc(Settings().__doc__) == text


@pytest.mark.parametrize(
    "cls", [ExperimentConfig, FederationConfig, *(entry.hyperparameters for entry in METHODS)]
)
def test_help_shows_every_field_of_every_settings_class(cls):
    text = pydoc.render_doc(cls)
    for name, doc in docs(cls).items():
        assert f"{name} : " in text
        assert doc.splitlines()[0] in text


def test_the_settings_of_drop_say_which_stage_they_belong_to():
    text = inspect.getdoc(DropArgs)
    stages = ("StudentArgs", "MazeArgs", "DropletArgs")
    places = [text.index(f"Fields of {name}") for name in stages]
    assert places == sorted(places)
    assert places[0] < text.index("K : a whole number, default 5") < places[1]


def test_without_a_source_there_is_the_docstring_alone():
    made = make_dataclass("Made", [("x", int, 1)])
    made.__doc__ = "Made."
    show_fields(made)
    assert made.__doc__ == "Made."


@pytest.mark.slow
def test_importing_the_package_reads_no_source():
    code = (
        "from entity.config import schema; schema.inspect = None; "
        "import entity.defenses, entity.attacks, entity.poisons, entity.config.fields"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
