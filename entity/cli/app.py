"""The frame of the command line: the parser, the exit codes and the signals."""

import argparse
import errno
import logging
import signal
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress

from rich.logging import RichHandler

from entity import __version__
from entity.cli import console
from entity.cli.data import add_data_command
from entity.cli.demo import add_demo_command
from entity.cli.deploy import add_deploy_command
from entity.cli.fields import add_fields_command
from entity.cli.list import add_list_command
from entity.cli.options import add_commands
from entity.cli.report import add_report_command
from entity.cli.reproduce import add_reproduce_command
from entity.cli.results import add_results_command
from entity.cli.run import add_run_command
from entity.cli.streams import give_up_output, take_any_letter
from entity.cli.sweep import add_sweep_command
from entity.cli.watch import add_watch_command
from entity.config.schema import CannotGoOn, ConfigError
from entity.engine.allocator import keep_pages
from entity.setup.overrides import BadFieldName
from entity.setup.plugin_files import refusal

COMMANDS = (
    add_run_command,
    add_demo_command,
    add_data_command,
    add_sweep_command,
    add_results_command,
    add_reproduce_command,
    add_watch_command,
    add_deploy_command,
    add_report_command,
    add_list_command,
    add_fields_command,
)
"""In the order of `drop --help`."""

EXAMPLES = """\
examples:
  drop run --config mnist5k/drop --DPR 0.25 --out runs/mine
  drop sweep --config mnist5k/drop --defense drop,flame --seed 1,2,3
  drop report runs/mine --out report.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0, 1 for what ends a command though its input is right (a full disk), 2 for bad input, 130 for
    Ctrl-C, 143 for SIGTERM.
    """
    handler = RichHandler(console=console.err, show_time=False, show_path=False, show_level=False)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[handler])
    take_any_letter()
    keep_pages()
    parser = _parser()
    try:
        options, rest = parser.parse_known_args(argv)
        if rest:
            raise ConfigError(f"{rest[0]} is not an option of drop {options.command}.")
        with _terminable():
            code = options.go(options)
        sys.stdout.flush()
        return code
    except ConfigError as error:
        said = error.as_option if isinstance(error, BadFieldName) else error
        console.warn(str(said), style="red")
        return 2
    except CannotGoOn as error:
        console.warn(str(error), style="red")
        return 1
    except KeyboardInterrupt as stop:
        console.warn("stopped; the finished rounds are kept.")
        return 143 if isinstance(stop, _Terminated) else 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of a pipe has left; nothing to tell anybody
        return 0
    except (Exception, SystemExit) as error:  # a plugin may call sys.exit
        if (refused := refusal(error)) is not None:
            console.warn(str(refused), style="red")
            return 2
        if isinstance(error, OSError):  # a full disk, a folder where a file is to be written
            _warn_of_a_place(error)
            return 2 if error.errno == errno.ENAMETOOLONG else 1
        raise


def _warn_of_a_place(error: OSError) -> None:
    give_up_output()
    reason = error.strerror or str(error)
    with suppress(OSError):  # which may be the same device
        console.warn(f"{error.filename}: {reason}." if error.filename else f"{reason}.")
    give_up_output()


class _Terminated(KeyboardInterrupt):
    """SIGTERM; whoever cleans up after Ctrl-C does so after this."""


@contextmanager
def _terminable() -> Generator[None]:
    """Let SIGTERM, by which schedulers end a job, stop a command as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return

    def stop(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="drop",
        description="DROP and a laboratory of backdoors and defenses in federated learning.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("-V", "--version", action="version", version=f"drop-fl {__version__}")
    commands = add_commands(parser, "command")
    for add in COMMANDS:
        add(commands)
    return parser
