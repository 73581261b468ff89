"""The bound f on the malicious clients of a round, for rules that need one.

The guarantees of Krum, Bulyan and the trimmed mean hold for `n >= a f + b` clients. Papers and
benchmarks often give them the true number, which no server knows; here it is an oracle that a
config must ask for by name.

The condition is held against the clients that came: where it fails for an f that was given, the
round keeps the global model. An estimate shrinks with the round, but is never 0, for which
Multi-Krum and Bulyan are the plain mean. Among three or more clients with f = 1 and fewer than the
condition asks for, Krum and its mean still leave out the farthest and Bulyan is a median of the
picked: without the proof, which `condition_violated` says. One or two clients keep the global
model, as neither can be told from the other.
"""

from dataclasses import dataclass
from math import ceil
from typing import ClassVar, Literal, NamedTuple, TypeVar

from entity.config.schema import ConfigError, Whole
from entity.server.contract import Needs, Server, Setting


@dataclass(frozen=True)
class BoundArgs:
    """Settings of a rule that takes a bound on the malicious clients of a round."""

    f: Whole | Literal["estimate", "oracle"] = "estimate"
    """Malicious clients to expect in a round. `estimate` is the most that the rule's condition
    allows for the n clients that came, and at least 1; `oracle` is the federation's true share of
    the n that were asked, ceil(malicious * n / size)."""


class Condition(NamedTuple):
    """The condition `n >= factor * f + spare` of a rule."""

    factor: int
    spare: int

    def largest(self, n: int) -> int:
        """Return the largest f that is allowed for n clients, at least 0.

        Examples
        --------
        >>> Condition(2, 3).largest(25), Condition(4, 3).largest(25), Condition(2, 3).largest(2)
        (11, 5, 0)
        """
        return max(0, (n - self.spare) // self.factor)

    def holds(self, n: int, f: int) -> bool:
        """Whether n clients are enough for a bound f."""
        return n >= self.factor * f + self.spare

    def __str__(self) -> str:
        return f"n >= {self.factor}f + {self.spare}"


LEAST_BOUNDED = 3
"""Clients in a round among whom a majority can be told."""

B = TypeVar("B", bound=BoundArgs)


class BoundedServer(Server[B]):
    """A defense that takes a bound f on the malicious clients of a round."""

    condition: ClassVar[Condition]
    """The rule's condition on n and f."""

    @classmethod
    def needs(cls, args: B) -> Needs:
        """Single updates, and a bound on the malicious clients or, asked for, their true number."""
        oracle = args.f == "oracle"
        return Needs(
            individual_updates=True, malicious_bound=not oracle, true_malicious_count=oracle
        )

    @classmethod
    def check(cls, args: B, setting: Setting) -> None:
        """Refuse a bound that the rule's condition does not allow."""
        n = setting.round_size
        f = cls.expected(args, n, setting.malicious_clients, setting.federation_size)
        estimated = cls.estimates(args)
        if not cls._decides(args, n, f):
            where = "server.defense.defense_args.f"
            remedies = {"estimate": "", "oracle": f"set {where} to estimate or "}
            remedy = "" if estimated else remedies.get(str(args.f), f"lower {where} or ")
            raise ConfigError(
                f"{cls.__name__} needs {cls.condition} clients in the round; n = {n}, f = {f}: "
                f"{remedy}raise federation.round_size."
            )

    @classmethod
    def expected(cls, args: B, n: int, malicious: int, federation: int) -> int:
        """Return f for n clients.

        Parameters
        ----------
        args
            The rule's settings.
        n
            Clients in the round.
        malicious, federation
            Malicious clients and all clients of the federation, for the oracle.
        """
        if args.f == "oracle":
            return ceil(malicious * n / federation) if federation else 0
        return max(1, cls.condition.largest(n)) if args.f == "estimate" else args.f

    @classmethod
    def estimates(cls, args: B) -> bool:
        """Whether f follows from the number of clients that came."""
        return args.f == "estimate"

    @classmethod
    def _decides(cls, args: B, n: int, f: int) -> bool:
        return n >= LEAST_BOUNDED if cls.estimates(args) else cls.condition.holds(n, f)

    def bound(self, came: int, asked: int | None = None) -> int:
        """Return f for a round.

        Parameters
        ----------
        came
            Clients with an update; what an estimate goes by.
        asked
            Clients that were sent the model, by default no more; what shares are of.
        """
        known = self.resources
        if self.args.f == "oracle":
            given = known.malicious_count is not None and known.federation_size > 0
            assert given, "needs() asks for the true count"
        n = came if self.estimates(self.args) else asked or came
        return self.expected(self.args, n, known.malicious_count or 0, known.federation_size)

    def too_few(self, came: int, asked: int) -> str:
        """Hold the condition, for an f that is no estimate, against the clients that came."""
        f = self.bound(came, asked)
        if self._decides(self.args, came, f):
            return ""
        return f"{came} of {asked} clients are left, and f = {f} needs {self.condition}"

    def report(self, n: int, f: int) -> dict[str, float]:
        """Return diagnostics: f, and whether the round is too small for it; warn of that once."""
        violated = not self.condition.holds(n, f)
        if violated:
            needed = f"f = {f} needs {self.condition}"
            self.warn_once("condition", f"{n} clients, and {needed}: without its guarantee")
        return {"f": float(f), "condition_violated": float(violated)}
