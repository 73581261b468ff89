"""The commands `drop deploy pardon` and `drop deploy rekey`: decisions about single clients."""

import argparse
from typing import Any

from entity.cli import console
from entity.config.paths import user_path
from entity.config.schema import ConfigError
from entity.deployment.decisions import client_of, decide, is_node, read
from entity.deployment.followed import FollowedFederation, Standing, find, standings
from entity.deployment.reasons import OF_THE_SERVER, kind_of
from entity.record.json_fields import text

ANEW = (
    "keeps nothing about single clients: it judges every round by itself, so that there is nothing "
    "to pardon, and whom it refuses again it finds unlike the others again. docs/DEPLOY.md says "
    "what helps then."
)


def add_pardon_command(commands: Any) -> None:
    """Add `drop deploy pardon`."""
    parser = commands.add_parser(
        "pardon",
        help="forget what a defense holds against a client",
        description="Let the defense forget what it holds against clients that were refused "
        "wrongly, from the next round on, now or after a restart. Time, reason and login are kept "
        "in decisions.jsonl, what was forgotten in rounds.jsonl and the log.",
        allow_abbrev=False,
    )
    _add_state(parser)
    parser.add_argument(
        "clients", nargs="+", metavar="CLIENT", help="node id, or the name it was registered with"
    )
    _add_reason(parser)
    parser.set_defaults(go=_pardon)


def add_rekey_command(commands: Any) -> None:
    """Add `drop deploy rekey`."""
    parser = commands.add_parser(
        "rekey",
        help="let a client with a new key stay who it was",
        description="Say that node NEW is the client that was OLD, after its key was replaced: it "
        "keeps its penalties and its history from the next round on, and OLD is not asked again.",
        allow_abbrev=False,
    )
    _add_state(parser)
    parser.add_argument("old", metavar="OLD", help="node id or name of the client")
    parser.add_argument("new", metavar="NEW", help="node id of its new key")
    _add_reason(parser)
    parser.set_defaults(go=_rekey)


def _add_state(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("state", type=user_path, metavar="STATE", help="state folder of the server")


def _add_reason(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why; it is kept")


def _pardon(options: argparse.Namespace) -> int:
    federation = FollowedFederation(options.state)
    federation.look()
    defense, remembers = text(federation.now, "defense"), text(federation.now, "remembers")
    if defense and not remembers:
        raise ConfigError(f"{options.state}: {defense} {ANEW}")
    # All of them are looked up first, so that a slip pardons nobody.
    found = {each.client: each for each in (find(options.state, c) for c in options.clients)}
    for client in found.values():
        decide(options.state, "pardon", client.client, options.reason)
        console.say(f"node {client}: {_record(client)}")
    forgets = f"{defense} forgets {remembers}" if remembers else "the defense forgets what it has"
    console.say(f"From the next round on {forgets}; it judges their next updates like anybody's.")
    return 0


def _record(client: Standing) -> str:
    if not client.refused:
        return f"not refused in {client.rounds} rounds"
    said = (
        f"refused in {client.refused} of {client.rounds} rounds, last in round "
        f"{client.last_refused}: {client.reason}"
    )
    if kind_of(client.reason) in OF_THE_SERVER:
        said += " (which no pardon changes: the reply itself was refused)"
    return said


def _rekey(options: argparse.Namespace) -> int:
    new = options.new
    if not is_node(new):
        raise ConfigError(f"{new}: is no node id; flwr supernode list shows those of the keys.")
    client = find(options.state, options.old)
    before = read(options.state)[0]
    federation = FollowedFederation(options.state)
    federation.look()
    if client_of(before, new) != new and client_of(before, new) != client.client:
        raise ConfigError(f"{new}: is client {client_of(before, new)} already.")
    if new in standings(federation.lines) and new != client.client:
        raise ConfigError(f"{new}: has taken part as a client of its own, with its own history.")
    if new == (now := _last(before, client.client)):
        raise ConfigError(f"{new}: is the client's own node already.")
    decide(options.state, "rekey", client.client, options.reason, new)
    console.say(f"From the next round on client {client} is node {new}, with all that it had.")
    console.say(f"Next: flwr supernode unregister {now}")
    return 0


def _last(decisions: Any, client: str) -> str:
    nodes = [d.node for d in decisions if d.kind == "rekey" and d.client == client]
    return nodes[-1] if nodes else client
