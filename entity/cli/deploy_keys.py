"""The command `drop deploy keys`: keys and certificates, made and renewed."""

import argparse
from importlib.util import find_spec
from typing import Any

from entity.cli import console
from entity.config.paths import user_path
from entity.config.schema import ConfigError


def add_keys_command(commands: Any) -> None:
    """Add `drop deploy keys`."""
    parser = commands.add_parser(
        "keys",
        help="make and renew the keys of a federation",
        description="Make what TLS and node authentication need, as far as the folder does not "
        "have it, or renew one of it; what that replaces is kept as NAME.old.",
        allow_abbrev=False,
    )
    parser.add_argument("folder", type=user_path, metavar="DIR", help="folder of the keys")
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--nodes", type=_count, default=0, metavar="N", help="nodes in all: node-0 and so on"
    )
    what.add_argument(
        "--renew", metavar="NAME", help="replace the certificate of server, or the key of node-3"
    )
    parser.add_argument(
        "--host",
        action="append",
        default=[],
        help="address of the SuperLink, several times if need be (default: 127.0.0.1, or those of "
        "the certificate that is renewed)",
    )
    parser.set_defaults(go=_keys)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) <= 100_000):
        raise argparse.ArgumentTypeError(f"{text} is no whole number from 1 to 100000")
    return int(text)


def _keys(options: argparse.Namespace) -> int:
    if find_spec("cryptography") is None:
        raise ConfigError("drop deploy keys: needs Flower; pip install -e '.[flower]'.")
    from entity.deployment import keys

    if options.renew:
        made = keys.renew(options.folder, options.renew, options.host)
    else:
        made = keys.make_keys(options.folder, options.nodes, options.host)
    for path in made:
        console.say(str(path))
    if not made:
        console.say(f"{options.folder} has all of it; --renew NAME replaces one.")
    elif options.renew == keys.SERVER:
        console.say("Next: restart the SuperLink with it; nodes and state stay as they are.")
    elif options.renew:
        console.say(f"Next: flwr supernode register {made[1]}, and drop deploy rekey.")
    return 0
