"""Write the tables of DEPLOY.md that are made from the code and from measurements.

    python docs/make_deploy.py

What each defense must be granted comes from its `needs`, what it holds against clients from its
`remembers`, and the metrics from the module that writes them. The sizes are arithmetic, on the
measured costs in PERFORMANCE.md.
"""

import re
from pathlib import Path

from entity.config.schema import load
from entity.defenses import DEFENSES
from entity.deployment.metrics import METRICS
from entity.server import Needs

DOCS = Path(__file__).parent
NODES = (10, 100, 1_000)
PARAMETERS = {"1M": 1.1e6, "11M": 11e6, "100M": 100e6}
MEASURED_NODES, MEASURED_PARAMETERS = 25, 11e6
"""Of the table of benchmarks/aggregate.py."""


def needs_table() -> str:
    """Return what the operator must hold for every defense, with its default settings."""
    lines = [
        "| defense | clean images | labels | stable node ids | every update in the clear "
        "| honest majority | bound on attackers | clients' votes | square images |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, entry in DEFENSES.items():
        needs: Needs = entry.needs(load(entry.hyperparameters, {}))
        granted = (
            needs.clean_data,
            needs.clean_labels,
            needs.client_identity,
            needs.individual_updates,
            needs.honest_majority,
            needs.malicious_bound or needs.true_malicious_count,
            needs.client_votes,
            needs.images,
        )
        lines.append(f"| `{name}` | " + " | ".join("yes" if one else "" for one in granted) + " |")
    return "\n".join(lines)


LABELS = {
    "drop_info": "defense, version",
    "drop_rounds_total": "model: new, kept, lost",
    "drop_refusals_total": "reason",
    "drop_stage_seconds_total": "stage: receive, aggregate, send",
    "drop_defense_seconds_total": "part",
    "drop_score": "name: mta, asr",
}
"""Labels of metrics beside `federation`."""


def remembers_list() -> str:
    """Return what each defense that holds something against clients forgets by a pardon."""
    kept = {name: entry.remembers for name, entry in DEFENSES.items() if entry.remembers}
    lines = ["| defense | what a pardon makes it forget |", "|---|---|"]
    lines += [f"| `{name}` | {what} |" for name, what in kept.items()]
    return "\n".join(lines)


def metrics_table() -> str:
    """Return the metrics' names, types, labels and meanings."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    lines += [
        f"| `{name}` | {kind} | {LABELS.get(name, '')} | {meaning} |"
        for name, (kind, meaning) in METRICS.items()
    ]
    return "\n".join(lines)


def alerts() -> str:
    """Return the example rules."""
    return f"```yaml\n{(DOCS / 'deploy' / 'alerts.yml').read_text()}```"


def sizes_table() -> str:
    """Return memory and seconds of the server in a round."""
    plain, pairwise = measured("undefended"), measured("droplet")
    per_entry = plain / (MEASURED_NODES * MEASURED_PARAMETERS)
    per_pair = (pairwise - plain) / (MEASURED_NODES**2 * MEASURED_PARAMETERS)
    lines = [
        "| nodes | parameters | matrix | network, 1 Gbit/s | averaging | with all distances |",
        "|---|---|---|---|---|---|",
    ]
    for nodes in NODES:
        for name, parameters in PARAMETERS.items():
            size = 4 * nodes * parameters
            average = per_entry * nodes * parameters
            distances = average + per_pair * nodes**2 * parameters
            cells = [
                f"{nodes:,}",
                name,
                _bytes(size),
                _seconds(2 * 8 * size / 1e9),
                _seconds(average),
                _seconds(distances),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured(defense: str) -> float:
    """Return the measured seconds of a defense at 11M parameters."""
    page = (DOCS / "PERFORMANCE.md").read_text()
    cost = page[page.index("<!-- aggregate -->") : page.index("<!-- /aggregate -->")]
    row = next(line for line in cost.splitlines() if line.startswith(f"| {defense} |"))
    return float(row.split("|")[5])


def _bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _seconds(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.2g} s"


def page(text: str) -> str:
    """Return DEPLOY.md with its tables as they are now."""
    tables = {
        "needs": needs_table(),
        "sizes": sizes_table(),
        "remembers": remembers_list(),
        "metrics": metrics_table(),
        "alerts": alerts(),
    }
    for name, table in tables.items():
        marked = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        text = marked.sub(lambda found, table=table: found[1] + table + "\n" + found[2], text)
    return text


def main() -> int:
    """Write the page."""
    path = DOCS / "DEPLOY.md"
    path.write_text(page(path.read_text()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
