"""A run begun from anywhere trains its clients: workers start only where they can."""

import json
import os
import subprocess
import sys
import textwrap
import types

import pytest

from entity.config.schema import ConfigError
from entity.engine import check_engine, choose_engine, main_module

CALL = """
import json, logging, sys
import entity
from entity.setup import resolve

logging.basicConfig(level=logging.INFO, format="%(message)s")
tables = json.loads(sys.argv[1])

def go():
    result = entity.run(resolve.experiment(tables), sys.argv[2])
    print("said", result.summary["state"], result.summary["mta"]["final"], result.summary["lost"])

"""


@pytest.fixture
def played(tables, tmp_path):
    """Play a program that runs the tiny experiment on two workers; return what it said."""

    def play(program, engine="auto", by=None):
        file = tmp_path / "program.py"
        file.write_text(CALL + textwrap.dedent(program))
        config = json.dumps(tables({"settings.engine": engine, "settings.workers": 2}))
        arguments = [config, str(tmp_path / "run")]
        command = [sys.executable, *([str(file)] if by is None else by), *arguments]
        done = subprocess.run(
            command,
            input=file.read_text(),
            capture_output=True,
            text=True,
            timeout=200,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([os.getcwd()])},
        )
        return done.returncode, done.stdout, done.stderr

    return play


@pytest.fixture(scope="module")
def expected(experiment):
    from entity import run

    summary = run(experiment()).summary
    return f"said finished {summary['mta']['final']} 0"


@pytest.mark.parametrize(
    "by",
    [
        pytest.param(["-"], id="piped", marks=pytest.mark.slow),
        pytest.param(["-q", "-i", "-"], id="interactive", marks=pytest.mark.slow),
    ],
)
def test_a_program_from_standard_input_trains_inline(played, expected, by):
    code, out, err = played("go()\n", by=by)
    assert code == 0, err
    assert expected in out
    assert "engine auto: one client trains after another, as" in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_script_without_the_guard_trains_inline_and_is_run_once(played, expected):
    code, out, err = played("print('once'); go()")
    assert code == 0, err
    assert expected in out
    assert out.count("once") == 1
    assert "program.py again, whose line" in err


@pytest.mark.slow
def test_a_script_with_the_guard_has_workers(played, expected):
    code, out, err = played(
        """
        from entity.engine import Pool
        if __name__ == "__main__":
            Pool.closed, close = False, Pool.close
            Pool.close = lambda self: (print("pool of", len(self.processes)), close(self))
            go()
        """
    )
    assert code == 0, err
    assert expected in out
    assert "pool of 2" in out


@pytest.mark.slow
def test_the_pool_is_refused_in_a_script_without_the_guard(played, tmp_path):
    code, _, err = played("go()", engine="pool")
    assert code == 1
    assert "ConfigError: settings.engine = pool: workers cannot be started, as" in err
    assert 'not under `if __name__ == "__main__":`; mend that, or use inline or auto.' in err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_workers_that_die_of_the_script_are_found_out(played, expected):
    """This guard is none."""
    code, out, err = played("if __name__ != 'imported':\n    go()")
    assert code == 0, err
    assert expected in out
    assert err.count("a worker process is running the script again: it lacks `if __name__") == 2
    assert "engine auto: one client trains after another, as no worker process starts here" in err


@pytest.mark.slow
def test_inside_a_worker_of_multiprocessing_a_run_trains_inline(played, expected):
    program = """
    import multiprocessing
    if __name__ == "__main__":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            pool.apply(go)
    """
    code, out, err = played(program)
    assert code == 0, err
    assert expected in out
    assert "AssertionError" not in err


def test_a_daemonic_process_has_no_pool(experiment, make_roster, monkeypatch):
    process = types.SimpleNamespace(daemon=True)
    monkeypatch.setattr("multiprocessing.current_process", lambda: process)
    many = {"settings.engine": "auto", "settings.workers": 4}
    assert choose_engine(make_roster(many)) == "inline"
    with pytest.raises(ConfigError, match=r"engine = pool: .* a daemonic process"):
        check_engine(experiment({"settings.engine": "pool"}).settings)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("run()", 1),
        ("if True:\n    run()", 2),
        ("if __name__ == '__main__':\n    run()", None),
        ("if '__main__' == __name__:\n    pass\nrun()", 3),
        ("def main():\n    run()\n\nmain()", 4),
        ("try:\n    if __name__ == '__main__' and True:\n        run()\nfinally:\n    pass", None),
    ],
)
def test_the_line_that_an_import_would_run_again_is_found(tmp_path, monkeypatch, text, line):
    path = tmp_path / "script.py"
    path.write_text(text)
    main, found = types.ModuleType("__main__"), []
    main.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "__main__", main)
    vars(main)["run"] = lambda: found.append(main_module.obstacle())
    exec(compile(text, str(path), "exec"), vars(main))
    assert found == (
        [""]
        if line is None
        else [
            f"they would run script.py again, whose line {line} is not under "
            '`if __name__ == "__main__":`'
        ]
    )


def test_the_main_module_of_a_package_is_never_imported(monkeypatch, tmp_path):
    main = types.ModuleType("__main__")
    main.__file__ = str(tmp_path / "absent.py")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert "absent.py is no file" in main_module.obstacle()
    main.__spec__ = types.SimpleNamespace(name="pytest.__main__")
    assert main_module.obstacle() == ""


@pytest.mark.parametrize(
    ("program", "guarded"),
    [
        ('go() if __name__ == "__main__" else None', True),
        ('__name__ == "__main__" and go()', True),
        ('if __name__ == "__main__":\n    go()', True),
        ('match __name__:\n    case "__main__":\n        go()', True),
        ('go() if "__main__" else None', False),
        ("True and go()", False),
        ("go()", False),
    ],
)
def test_a_guard_may_be_a_statement_or_an_expression(tmp_path, monkeypatch, program, guarded):
    found = []
    file = tmp_path / "program.py"
    file.write_text(program)
    main = types.ModuleType("__main__")
    vars(main).update(__file__=str(file), go=lambda: found.append(main_module.obstacle()))
    monkeypatch.setitem(sys.modules, "__main__", main)
    exec(compile(program, str(file), "exec"), vars(main))
    assert (found == [""]) == guarded
    assert guarded or "is not under" in found[0]
