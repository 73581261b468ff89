"""The maker of a transcript of the first hour: the pages' commands, and nothing of the machine."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def maker(monkeypatch):
    monkeypatch.syspath_prepend(str(DOCS))
    sys.modules.pop("make_first_hour", None)
    import make_first_hour

    return make_first_hour


def test_the_commands_are_those_of_the_pages_in_their_order(maker, tmp_path):
    (tmp_path / "a.md").write_text(
        "```\nmake demo     # in minutes\ndrop run \\\n    --rounds 2\n```\n```json\n{}\n```\n"
        "```python\nimport entity  # kept\n\nentity.run()\n```\n"
    )
    (tmp_path / "b.md").write_text("```sh\nls 'a # b'\n\n```\n")
    assert maker.commands(("a.md", "b.md"), tmp_path) == [
        ("a.md", "sh", "make demo"),
        ("a.md", "sh", "drop run --rounds 2"),
        ("a.md", "python", "import entity  # kept\n\nentity.run()"),
        ("b.md", "sh", "ls 'a # b'"),
    ]
    first = maker.commands()
    assert [each.text for each in first[:2]] == ["make demo", "make test"]
    assert {each.page for each in first} == {"README.md", "docs/start.md"}


def test_commands_share_a_shell_and_have_their_output_code_and_time(maker, tmp_path):
    shell = maker.Shell(tmp_path, limit=2.0)
    typed = [
        "export A=7 && cd /",
        "echo $A $PWD >&2",
        "(exit 3)",
        "printf half; sleep 60",
        "echo on",
    ]
    done = [shell.type(maker.Command("p", "sh", text)) for text in typed]
    shell.limit = 60.0
    python = shell.type(maker.Command("p", "python", "import sys\nprint('x' * 3)\nsys.exit(4)"))
    shell.close()
    assert [each.output for each in done] == ["", "7 /", "", "half", "on"]
    assert [each.code for each in done] == [0, 0, 3, -1, 0]
    assert (python.output, python.code) == ("xxx", 4)
    assert 2 <= done[3].seconds < 60


def test_an_output_is_cut_in_the_middle_and_tells_nothing_of_the_machine(maker):
    noise = "Looking in indexes: https://index.example/simple\nWARNING: Location 'x' is ignored\n"
    said = f"{noise}\x1b[32mone\x1b[0m\n 10%\r100%\n\n/home/me/x/DROP/runs\n"
    assert maker.shown(said, {"/home/me/x/DROP": "DROP"}) == "one\n100%\nDROP/runs"
    long = "\n".join(map(str, range(100)))
    lines = maker.shown(long, {}).splitlines()
    assert lines[:15] == [*map(str, range(14)), "[... 68 lines ...]"]
    assert lines[15:] == [*map(str, range(82, 100))]


def test_the_page_says_what_was_left_out_stopped_or_failed(maker):
    told = [
        (maker.Command("README.md", "sh", "a"), maker.Done(1.23, 0, "fine")),
        (maker.Command("README.md", "sh", "b"), maker.Done(75.0, 2, "")),
        (maker.Command("docs/start.md", "sh", "c"), "no network"),
        (maker.Command("docs/start.md", "python", "d()"), maker.Done(2.0, -1, "so far")),
    ]
    page = maker.page(told, {}, "Facts.")
    assert "```\n$ a\nfine\n```\n\n*1.2 s*" in page
    assert "```\n$ b\n```\n\n*1 min 15 s, exit code 2*" in page
    assert "## docs/start.md\n\n```\n$ c\n```\n\nNot run here: no network." in page
    assert "```python\nd()\n```\n\n```\nso far\n```\n\n*2.0 s, and was stopped then*" in page
