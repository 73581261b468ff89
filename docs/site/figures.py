"""The figures of the methods' pages, as SVG that takes its colours from the page."""

import json
from base64 import b64encode
from collections import defaultdict
from functools import cache
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from entity.attacks import ATTACKS
from entity.client.untargeted import Untargeted
from entity.config.fields import AttackConfig
from entity.config.schema import load
from entity.dataset.images import Images
from entity.dataset.mnist5k import MNIST5K
from entity.layout import ParamSpec
from entity.poisons import POISONS
from entity.seeding import Seeds
from entity.updates import Updates

RUNS = Path(__file__).parents[1] / "results" / "baselines_rough.jsonl"
SCENARIOS = {
    "none": "no attack",
    "BadNets": "BadNets",
    "Neurotoxin": "Neurotoxin",
    "Chameleon": "Chameleon",
    "DBA": "DBA",
    "model replacement": "model replacement",
}
"""As the lines of baselines_rough.jsonl name them, and the figures."""
ROW, LEFT, WIDTH = 24, 150, 640
Run = dict[str, Any]


def runs() -> dict[tuple[str, str], list[Run]]:
    """Return the measured runs of all defenses against all attacks."""
    found: dict[tuple[str, str], list[Run]] = defaultdict(list)
    for line in RUNS.read_text().splitlines():
        run = json.loads(line)
        defense, attack = run["label"]
        found[defense, attack].append(run)
    return found


def dots(rows: dict[str, list[Run]], beside: dict[str, list[Run]], label: str) -> str:
    """Return MTA and ASR of some runs as dots on a scale from 0 to 100 %, a line a row.

    Parameters
    ----------
    rows
        Runs by the name of the row.
    beside
        Runs whose ASR is shown hollow in the same row; undefended ones.
    label
        What a screen reader says.
    """
    height = ROW * len(rows) + 40
    parts = [
        f'<svg class="dots" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="{escape(label)}"><title>{escape(label)}</title>'
    ]
    for percent in (0, 25, 50, 75, 100):
        x = _x(percent / 100)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="8" y2="{height - 28}"/>')
        parts.append(f'<text x="{x}" y="{height - 10}" text-anchor="middle">{percent} %</text>')
    for number, (name, found) in enumerate(rows.items()):
        y = 20 + ROW * number
        parts.append(f'<text x="{LEFT - 14}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts += [_dot(run["asr"], y, "before", 5) for run in beside.get(name, [])]
        parts += [_dot(run["asr"], y, "asr", 4) for run in found]
        parts += [_square(run["mta"], y) for run in found]
    return "".join([*parts, "</svg>"])


def _x(share: float) -> float:
    return round(LEFT + share * (WIDTH - LEFT - 30), 1)


def _dot(share: float | None, y: float, kind: str, radius: float) -> str:
    if share is None:
        return ""
    return f'<circle class="{kind}" cx="{_x(share)}" cy="{y}" r="{radius}"/>'


def _square(share: float, y: float) -> str:
    return f'<rect class="mta" x="{_x(share) - 3}" y="{y - 3}" width="6" height="6"/>'


def sent(name: str) -> str:
    """Return a round of ten clients in two dimensions, four of which send what an attack makes.

    The attack's own code makes it, from what the four had trained honestly; "" for attacks that
    need a model to train.
    """
    attack = ATTACKS[name]
    if not (issubclass(attack, Untargeted) and "collude" in vars(attack)):
        return ""
    honest = torch.tensor(
        [
            *([1.0, 0.8], [1.5, 0.2], [0.7, 1.3], [1.2, 1.1], [1.7, 0.9], [0.9, 0.3]),
            *([1.3, 0.6], [1.0, 1.2], [1.6, 0.5], [0.8, 0.9]),
        ]
    )
    updates = Updates(
        round=1,
        client_ids=tuple(range(10)),
        weights=honest.clone(),
        buffers=torch.zeros(10, 0),
        num_samples=torch.ones(10),
        global_weights=torch.zeros(2),
        global_buffers=torch.zeros(0),
        spec=ParamSpec.of(torch.nn.Linear(2, 1, bias=False)),
    )
    attack.collude(load(attack.hyperparameters, {}), updates, [6, 7, 8, 9], Seeds(1))
    return _plane(honest, updates.weights[6:], name)


def _plane(trained: Tensor, sent: Tensor, name: str) -> str:
    points = torch.cat([trained, sent, trained.mean(0, keepdim=True), torch.zeros(1, 2)])
    low, high = points.amin(0), points.amax(0)
    scale = 300 / float((high - low).max())
    width = float((high - low)[0]) * scale + 60
    height = float((high - low)[1]) * scale + 60

    def at(point: Tensor) -> tuple[float, float]:
        x, y = ((point - low) * scale + 30).tolist()
        return round(x, 1), round(height - y, 1)

    label = f"What {name} makes four of ten clients send, in two dimensions"
    origin = at(torch.zeros(2))
    parts = [
        f'<svg class="plane" viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        f'aria-label="{label}"><title>{label}</title>'
        f'<path class="cross" d="M{origin[0] - 7} {origin[1]}h14M{origin[0]} {origin[1] - 7}v14"/>'
    ]
    for kind, rows, radius in (
        ("mta", trained[:6], 5),
        ("before", trained[6:], 5),
        ("asr", sent, 5),
    ):
        for row in rows:
            x, y = at(row)
            parts.append(f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}"/>')
    return "".join([*parts, "</svg>"])


STAMPED = ("pixel", "dba", "blended", "label_flip")
"""Data poisons that need neither training nor images of the user's."""


@cache
def zero() -> Images:
    """Return the first 0 among the digits of the installation."""
    _, test = MNIST5K.read(Path(), Seeds(0))
    return test.subset((test.y == 0).nonzero().flatten()[:1])


def poisoned(name: str) -> str:
    """Return a digit before and after a data poison, as it is trained on and as it is tested.

    "" for poisons whose trigger is made by training, and for those that take the user's images.
    """
    if name not in STAMPED:
        return ""
    poison = POISONS[name]
    attack = AttackConfig(
        type="badnets", target_class=7, victim_class=0, trigger_pattern="4pixel", poison=name
    )
    args = load(poison.hyperparameters, {})
    made = poison(attack, args, 1, 28)
    clean, generator = zero(), torch.Generator().manual_seed(0)
    shown = [("clean", clean)]
    if name == "dba":
        parts = [made.poison(clean, rank, generator) for rank in range(4)]
        shown += [(f"attacker {rank + 1}", part) for rank, part in enumerate(parts)]
    else:
        shown.append(("trained on", made.poison(clean, 0, generator)))
    shown.append(("tested on", made.test_set(clean)))
    return '<div class="digits">' + "".join(_picture(*pair) for pair in shown) + "</div>"


def _picture(caption: str, images: Images) -> str:
    image, label = images.x[0, 0], int(images.y[0])
    buffer = BytesIO()
    Image.fromarray(image.numpy()).resize((112, 112), Image.Resampling.NEAREST).save(buffer, "PNG")
    data = b64encode(buffer.getvalue()).decode()
    text = f"{caption}, label {label}"
    return (
        f'<figure><img alt="A digit, {text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )
