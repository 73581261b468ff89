import json

import numpy as np
import pytest
from sklearn import metrics

from entity.report import read_run
from entity.report.entries import make_entries
from entity.report.roc import draw_rocs, ordered_pairs, roc_of, roc_points, rocs, suspicious_end


def entries_of(*paths):
    return make_entries([read_run(path) for path in paths])


def rewrite(path, change):
    lines = [json.loads(line) for line in (path / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        change(line)
    (path / "rounds.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.mark.parametrize("seed", range(5))
def test_curve_and_area_are_those_of_scikit_learn_with_ties(seed):
    rng = np.random.default_rng(seed)
    poisoned = rng.random(60) < 0.3
    scores = np.round(rng.normal(size=60) + poisoned, 1)  # rounded: many ties
    fpr, tpr = roc_points(scores, poisoned)
    theirs = metrics.roc_curve(poisoned, scores, drop_intermediate=False)
    assert np.allclose(fpr, theirs[0])
    assert np.allclose(tpr, theirs[1])
    area = ordered_pairs(scores, poisoned) / (poisoned.sum() * (~poisoned).sum())
    assert area == pytest.approx(metrics.roc_auc_score(poisoned, scores))
    assert area == pytest.approx(np.trapezoid(tpr, fpr))


def test_a_group_pools_rounds_and_seeds_and_pairs_within_rounds(make_recorded):
    entries = entries_of(*(make_recorded(f"{s}", "krum", seed=s) for s in (1, 2)))
    rounds = [each for entry in entries for each in entry.run.rounds]
    scores = [[each.scores[one] for one in each.selected] for each in rounds]
    truth = [[one in each.malicious for one in each.selected] for each in rounds]
    (roc,) = rocs(entries)
    assert roc.auc == pytest.approx(
        metrics.roc_auc_score(np.concatenate(truth), np.concatenate(scores))
    )
    # Every round has as many of each kind, so pairs within rounds weigh rounds alike.
    within = np.mean([metrics.roc_auc_score(t, s) for t, s in zip(truth, scores, strict=True)])
    assert roc.within == pytest.approx(within)
    assert (roc.poisoned, roc.honest) == (2 * 12 * 4, 2 * 12 * 6)
    caught = sum(len(each.malicious & each.refused) for each in rounds)
    assert roc.decided[1] == caught / roc.poisoned


def test_a_scale_that_drifts_from_round_to_round_leaves_the_area_within_rounds(make_recorded):
    path = make_recorded("a", "drop")
    before = roc_of(entries_of(path))

    def drift(line):
        line["scores"] = {one: score + 50 * line["round"] for one, score in line["scores"].items()}

    after = roc_of(entries_of(rewrite(path, drift)))
    assert after.within == pytest.approx(before.within)
    assert after.auc < before.auc - 0.1


def test_scores_of_trust_are_turned_by_the_verdicts(make_recorded):
    path = make_recorded("a", "krum")
    before = roc_of(entries_of(path))

    def turn(line):
        line["scores"] = {one: -score for one, score in line["scores"].items()}

    run = read_run(rewrite(path, turn))
    assert suspicious_end(run.rounds) == -1
    assert roc_of(entries_of(path)).auc == pytest.approx(before.auc)


def test_the_suspicious_end_is_read_from_weights_where_nobody_is_refused(make_recorded):
    path = make_recorded("a", "krum")

    def weigh(line):
        line["refused"] = []
        line["weights"] = line["scores"]  # trusted by what they score

    assert suspicious_end(read_run(rewrite(path, weigh)).rounds) == -1


def test_the_suspicious_end_does_not_look_at_the_truth(make_recorded):
    path = make_recorded("a", "krum")
    before = suspicious_end(read_run(path).rounds)

    def swap(line):
        line["malicious"] = [one for one in line["selected"] if one not in line["malicious"]]

    entries = entries_of(rewrite(path, swap))
    assert suspicious_end(entries[0].run.rounds) == before
    assert roc_of(entries).auc < 0.5


def test_without_scores_or_without_an_attack_there_is_no_curve(make_recorded):
    entries = entries_of(
        make_recorded("scoreless", "undefended"), make_recorded("calm", "krum", attack=None)
    )
    assert rocs(entries) == []
    assert draw_rocs([]) is None
