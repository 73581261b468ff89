"""The file of metrics, read back by Prometheus' own client library."""

import re
import stat
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from entity.config.schema import ConfigError
from entity.deployment.metrics import METRICS, MetricsFile
from entity.deployment.reasons import MOST, OF_THE_SERVER, kind_of

ROOT = Path(__file__).parents[2]


def verdict(client, reason="", undecided=False):
    accepted = not reason and not undecided
    return {"client": client, "accepted": accepted, "reason": reason, "undecided": undecided}


def line(number, *verdicts, aggregated=True, **more):
    seconds = {"receive": 2.0, "aggregate": 0.5, "aggregate cluster": 0.25}
    facts = {"time": 1000.0 + number, "seconds": seconds, "decisions": [], "aggregated": aggregated}
    return {"round": number, "verdicts": list(verdicts), **facts, **more}


def read(text):
    """Return values by metric's name and its labels without the federation; all have that one."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            labels.pop("federation")
            found[(sample.name, *labels.values())] = sample.value
    return found


@pytest.fixture
def file(tmp_path):
    made = MetricsFile(tmp_path / "clinics.prom", clock=lambda: 5000.0)
    made.begin([], 7, "Droplet", "1.0.0")
    return made


def test_rounds_refusals_clients_and_seconds_are_counted(file):
    file.add(line(1, verdict("5"), verdict("6"), verdict("7", "2 penalty points")))
    file.add(
        line(
            2,
            verdict("5"),
            verdict("6", "no reply in time"),
            verdict("7", "1.5 penalty points"),
            verdict("8", undecided=True),
            decisions=[{"kind": "pardon"}, {"kind": "rekey"}],
            aggregated=False,
        )
    )
    file.scored({"mta": 0.75, "asr": float("nan"), "per class": [0.1]})
    found = read(file.path.read_text())
    assert found == {
        ("drop_info", "Droplet", "1.0.0"): 1,
        ("drop_running",): 1,
        ("drop_rounds_planned",): 7,
        ("drop_round",): 2,
        ("drop_rounds_total", "new"): 1,
        ("drop_rounds_total", "kept"): 1,
        ("drop_run_started_timestamp_seconds",): 5000,
        ("drop_last_round_timestamp_seconds",): 1002,
        ("drop_asked_clients",): 4,
        ("drop_accepted_clients",): 1,
        ("drop_refused_clients",): 2,
        ("drop_undecided_clients",): 1,
        ("drop_refusals_total", "penalty points"): 2,
        **{("drop_refusals_total", kind): 0 for kind in OF_THE_SERVER},
        ("drop_refusals_total", "no reply"): 1,
        ("drop_stage_seconds_total", "receive"): 4,
        ("drop_stage_seconds_total", "aggregate"): 1,
        ("drop_defense_seconds_total", "cluster"): 0.5,
        ("drop_pardons_total",): 1,
        ("drop_score", "mta"): 0.75,
    }
    file.write(running=False)
    assert read(file.path.read_text())[("drop_running",)] == 0


def test_every_metric_has_its_type_and_its_meaning(file):
    file.add(line(1, verdict("5"), verdict("7", "2 penalty points")))
    file.scored({"mta": 0.5})
    families = list(text_string_to_metric_families(file.path.read_text()))
    declared = {(f.name, f.type, f.documentation) for f in families}
    expected = {
        (name.removesuffix("_total") if kind == "counter" else name, kind, meaning)
        for name, (kind, meaning) in METRICS.items()
    }
    assert declared == expected


def test_counters_go_on_where_a_restart_finds_them(file, tmp_path):
    rounds = [line(n, verdict("5"), verdict("7", f"{n} penalty points")) for n in (1, 2, 3)]
    for each in rounds:
        file.add(each)
    again = MetricsFile(tmp_path / "again.prom", clock=lambda: 5000.0)
    again.begin(
        [*rounds, {"round": 4, "verdicts": [], "aggregated": None, "lost": True}], 7, "", ""
    )
    again.begin(rounds, 7, "Droplet", "1.0.0")  # of a second run in the same process
    assert read(again.path.read_text()) == read(file.path.read_text())


def test_a_lost_round_is_counted_as_one(file):
    file.begin([{"round": 1, "verdicts": [], "aggregated": None, "lost": True}], 7, "D", "1")
    assert read(file.path.read_text())[("drop_rounds_total", "lost")] == 1


def test_before_the_first_round_there_is_no_time_of_one(file):
    assert not any(
        "last_round" in name or "clients" in name for name, *_ in read(file.text(running=True))
    )


def test_kinds_of_refusals_are_there_at_zero_before_the_first_one(file):
    found = read(file.text(running=True))  # an increase is seen from a value before it alone
    assert all(found["drop_refusals_total", kind] == 0 for kind in OF_THE_SERVER)


def test_what_a_node_says_is_no_label_and_reasons_are_bounded(file):
    bad = 'error reply: "}\nevil{a="b"} 1\\'
    file.add(line(1, verdict("1", bad), verdict("2", 'unexpected array "\\u001b"')))
    file.add(line(2, *(verdict(str(n), f"own reason {chr(97 + n) * 3}") for n in range(26))))
    file.add(line(3, *(verdict(str(n), f"own reason {chr(65 + n) * 3}") for n in range(26))))
    found = read(file.path.read_text())
    kinds = {labels[0]: value for (name, *labels), value in found.items() if "refusals" in name}
    assert (kinds["error reply"], kinds["malformed reply"]) == (1, 1)
    kinds = {kind: value for kind, value in kinds.items() if kind not in OF_THE_SERVER}
    assert len(kinds) == MOST + 1
    assert kinds["other"] == 2 * 26 - MOST


def test_a_defense_s_own_words_are_escaped(file):
    file.add(line(1, verdict("1", 'too "far"\\\nfrom others')))
    assert ("drop_refusals_total", 'too "far"\\ from others') in read(file.path.read_text())


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("no reply in time", "no reply"),
        ("error reply: cannot be decoded (TypeError)", "error reply"),
        ('missing array "head.bias"', "malformed reply"),
        ('array "head.bias" is oversized: 800128 bytes instead of 12', "malformed reply"),
        ('arrays "a" and "b" differ, and are one in the model', "malformed reply"),
        ('record of arrays should be "arrays" alone, found none', "malformed reply"),
        ("empty reply", "malformed reply"),
        ("nonfinite update", "nonfinite update"),
        ("num-examples is -1, not a number above 0 and up to 2**53", "sample count"),
        ("number of samples is not from 0 to 2**53", "sample count"),
        ("was not asked in this round", "repeated or unasked reply"),
        ("repeated client id", "repeated or unasked reply"),
        ("blacklisted", "blacklisted"),
        ("0.5 penalty points", "penalty points"),
        ("not picked by 3 rounds of Krum", "not picked by rounds of Krum"),
        ("history too much like another client's", "history too much like another client's"),
        ("3.2e-05", "other"),
        ("", "other"),
    ],
)
def test_reasons_have_kinds(reason, kind):
    assert kind_of(reason) == kind


def test_every_reason_of_the_intake_has_a_kind_of_its_own():
    """What the server says of replies is in its source; none of it falls among the defenses'."""
    sources = [ROOT / "entity" / "flower" / "intake.py", ROOT / "entity" / "flower" / "arrays.py"]
    texts = [
        text
        for path in sources
        for text in re.findall(r'Malformed\(f?["\'](.*?)["\']\)', path.read_text())
    ]
    assert len(texts) >= 12
    filled = [re.sub(r"^\{(what|one)\}", 'array "a"', text) for text in texts]
    filled = [re.sub(r"^\{SAMPLES\}", "num-examples", text) for text in filled]
    assert {text for text in filled if kind_of(text) not in OF_THE_SERVER} == set()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clinics.txt", "allowed is a name that ends in .prom, which node_exporter reads"),
        ("none/clinics.prom", "allowed is a file in a folder that is there"),
    ],
)
def test_a_file_that_would_not_be_read_is_refused(name, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        MetricsFile(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_another_user_may_read_it_and_nothing_half_written_is_left(file):
    file.add(line(1))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o644
    assert [path.name for path in file.path.parent.iterdir()] == ["clinics.prom"]


def test_a_file_that_cannot_be_written_any_more_is_one_warning(file, caplog):
    file.path.unlink()
    file.path.mkdir()
    for number in (1, 2):
        file.add(line(number))
    assert caplog.text.count("clinics.prom cannot be written") == 1


def test_the_alerts_of_the_docs_are_about_metrics_that_there_are():
    rules = yaml.safe_load((ROOT / "docs" / "deploy" / "alerts.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(alerts) >= 3
    for rule in alerts:
        used = set(re.findall(r"drop_\w+", rule["expr"]))
        assert used
        assert used <= set(METRICS)
        assert rule["annotations"]["summary"]
