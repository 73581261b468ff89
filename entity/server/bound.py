"""The bound f on the malicious clients of a round, for rules that need one.

The guarantees of Krum, Bulyan and the trimmed mean hold for `n >= a f + b` clients. Papers and
benchmarks often give them the true number, which no server knows; here it is an oracle that a
config must ask for by name.
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
    allows for n clients; `oracle` is the federation's true share, ceil(malicious * n / size)."""


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
        if not cls.condition.holds(n, f):
            where = "server.defense.defense_args.f"
            remedies = {"estimate": "", "oracle": f"set {where} to estimate or "}
            remedy = remedies.get(str(args.f), f"lower {where} or ")
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
        return cls.condition.largest(n) if args.f == "estimate" else args.f

    def bound(self, n: int) -> int:
        """Return f for a round of n clients."""
        known = self.resources
        if self.args.f == "oracle":
            given = known.malicious_count is not None and known.federation_size > 0
            assert given, "needs() asks for the true count"
        return self.expected(self.args, n, known.malicious_count or 0, known.federation_size)

    def report(self, n: int, f: int) -> dict[str, float]:
        """Return diagnostics: f, and whether a round that lost clients is too small for it."""
        return {"f": float(f), "condition_violated": float(not self.condition.holds(n, f))}
