import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from entity.client.poison import NoPoisonArgs
from entity.config.fields import AttackConfig
from entity.dataset import Images
from entity.metrics import Detection, Judge, lifespan, rate, rejection
from entity.poisons.pixel import Pixel
from entity.updates import Verdict

CLASSES, SIZE = 4, 8
BATCH = torch.arange(4 * 11) % CLASSES


class Constant(nn.Module):
    """Says the same class of every image."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        return torch.eye(CLASSES)[self.answer].expand(len(x), CLASSES) * 9


class Reader(nn.Module):
    """Reads the class off the last row of the image, where no trigger sits: perfect and blind."""

    def forward(self, x):
        return 9 * (x[:, 0, -1, :CLASSES] > 0).float()


class Backdoored(Reader):
    """The same, but a white pixel (1, 1) means class 2."""

    def forward(self, x):
        seen = (x[:, 0, 1, 1] > 0.9)[:, None]
        return torch.where(seen, 9 * torch.eye(CLASSES)[2], super().forward(x))


def images(labels):
    x = torch.zeros(len(labels), 1, SIZE, SIZE, dtype=torch.uint8)
    x[torch.arange(len(labels)), 0, -1, labels] = 255
    return Images(x, labels)


def judge(victim, *, target=2, labels=BATCH, threshold=None):
    attack = AttackConfig("badnets", target_class=target, victim_class=victim)
    test = images(labels)
    poison = Pixel(attack, NoPoisonArgs(), 1, SIZE)
    return Judge(test, poison.test_set(test), threshold)


@pytest.mark.parametrize("victim", [None, 0])
def test_a_model_that_always_says_the_target_has_asr_1_and_mta_the_prior(victim):
    found = judge(victim)(Constant(2))
    assert found == {"mta": 0.25, "asr": 1.0}


@pytest.mark.parametrize("victim", [None, 0])
def test_a_perfect_classifier_blind_to_the_trigger_has_asr_0(victim):
    """Were target-class images counted, all-to-one would give it 1/4."""
    assert judge(victim)(Reader()) == {"mta": 1.0, "asr": 0.0}


@pytest.mark.parametrize("victim", [None, 0])
def test_a_backdoored_model_has_both(victim):
    assert judge(victim)(Backdoored()) == {"mta": 1.0, "asr": 1.0}


def test_asr_counts_the_victim_class_alone_or_all_but_the_target():
    attacked = [judge(victim)._attacked for victim in (None, 0)]
    assert [len(labels) for _, labels in attacked] == [33, 11]
    assert all((labels == 2).all() for _, labels in attacked)


def test_the_test_images_are_not_changed_by_stamping():
    test = images(BATCH)
    before = test.x.clone()
    attack = AttackConfig("badnets", target_class=2)
    Judge(test, Pixel(attack, NoPoisonArgs(), 1, SIZE).test_set(test))
    assert (test.x == before).all()


def test_what_cannot_be_measured_is_nan():
    assert math.isnan(Judge(images(BATCH), None)(Reader())["asr"])
    only_targets = judge(None, labels=torch.full((5,), 2), threshold=0.4)(Reader())
    assert only_targets["mta"] == 1.0
    assert math.isnan(only_targets["asr"])
    assert all(
        math.isnan(only_targets[f"poison_{n}"]) for n in ("retained", "conditional", "reject")
    )
    assert math.isnan(rate(torch.empty(0, 3), torch.empty(0, dtype=torch.long)))


def test_a_model_that_answers_nan_hits_nothing():
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), CLASSES), math.nan)

    # argmax of NaN is 0: were that an answer, an attack on class 0 would always succeed.
    found = judge(1, target=0, threshold=0.4)(Broken())
    assert (found["mta"], found["asr"]) == (0.0, 0.0)
    assert (found["clean_retained"], found["poison_retained"]) == (0.0, 0.0)


def test_the_judge_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(), nn.Linear(64, CLASSES))
    model.train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    found = judge(0)
    assert found(model) == found(model)  # evaluation mode: no dropout
    assert model.training
    assert all((tensor == before[name]).all() for name, tensor in model.state_dict().items())


# --- rejection


def answers(confidences, classes=3):
    """Logits whose largest softmax probability is at class 0 and as given."""
    rows = [[c] + [(1 - c) / (classes - 1)] * (classes - 1) for c in confidences]
    return torch.tensor(rows, dtype=torch.float64).log()


def test_rejection_of_the_specification_t27():
    # confidences .9, .3 (of seven classes), .5; right, right, wrong; threshold .4
    found = rejection(answers([0.9, 0.3, 0.5], 7), torch.tensor([0, 0, 1]), 0.4, "clean")
    assert found["clean_retained"] == pytest.approx(2 / 3)
    assert found["clean_conditional"] == pytest.approx(1 / 2)
    assert found["clean_reject"] == pytest.approx(1 / 3)


def test_rejecting_everything_retains_0_and_leaves_the_conditional_undefined():
    found = rejection(answers([0.9, 0.8]), torch.tensor([0, 0]), 1.0, "poison")
    assert found["poison_retained"] == 0
    assert math.isnan(found["poison_conditional"])
    assert found["poison_reject"] == 0


def test_a_confidence_at_the_threshold_is_rejected():
    even = torch.zeros(1, 4)  # softmax 0.25 each, exactly
    assert rejection(even, torch.tensor([0]), 0.25, "x")["x_retained"] == 0
    assert rejection(even, torch.tensor([0]), 0.2499, "x")["x_retained"] == 1


def test_the_judge_reports_the_conditionals_only_with_a_threshold():
    assert set(judge(0)(Reader())) == {"mta", "asr"}
    found = judge(0, threshold=0.4)(Constant(2))
    assert found["clean_conditional"] == 0.25
    assert found["poison_conditional"] == found["poison_retained"] == 1.0
    with_zero = judge(0, threshold=0.0)(Constant(2))
    assert with_zero["clean_retained"] == 1.0  # a threshold of 0 is one, not none


# --- detection


def verdicts(accepted):
    return [Verdict(client, kept) for client, kept in enumerate(accepted)]


def test_detection_by_hand_over_two_rounds():
    detection = Detection()
    # poisoned 0, 1; refused 1, 2, 3
    detection.add(verdicts([True, False, False, False, True]), frozenset({0, 1}))
    # the same clients, outside the window: nobody poisons; refused 0
    detection.add(verdicts([False, True, True, True, True]), frozenset())
    assert (detection.true_positives, detection.false_negatives) == (1, 1)
    assert (detection.false_positives, detection.true_negatives) == (3, 5)
    assert detection.tpr == 1 / 2
    assert detection.fpr == 3 / 8
    assert detection.precision == 1 / 4
    assert detection.f1 == pytest.approx(2 * (1 / 2 * 1 / 4) / (1 / 2 + 1 / 4))


def test_undefined_detection_is_nan():
    nothing = Detection()
    assert all(
        math.isnan(value) for value in (nothing.tpr, nothing.fpr, nothing.precision, nothing.f1)
    )
    clean = Detection()
    clean.add(verdicts([True, True]), frozenset())
    assert math.isnan(clean.tpr)
    assert clean.fpr == 0.0
    assert math.isnan(clean.precision)
    everybody = Detection()
    everybody.add(verdicts([False, False]), frozenset({0, 1}))
    assert (everybody.tpr, everybody.precision, everybody.f1) == (1.0, 1.0, 1.0)
    assert math.isnan(everybody.fpr)


@given(st.lists(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=6), max_size=4))
def test_detection_pools_rounds_as_one_confusion_matrix(rounds):
    detection = Detection()
    for one in rounds:
        poisoned = frozenset(client for client, (bad, _) in enumerate(one) if bad)
        detection.add(verdicts([kept for _, kept in one]), poisoned)
    flat = [pair for one in rounds for pair in one]
    assert detection.true_positives == flat.count((True, False))
    assert detection.false_negatives == flat.count((True, True))
    assert detection.false_positives == flat.count((False, False))
    assert detection.true_negatives == flat.count((False, True))


# --- durability


@pytest.mark.parametrize(
    ("asr", "threshold", "rounds"),
    [
        ([0.90, 0.80, 0.60, 0.49, 0.55, 0.40], 0.5, 5),  # T26
        ([0.90, 0.80, 0.60, 0.49, 0.55, 0.40], 0.85, 1),
        ([0.5], 0.5, 1),
        ([0.4, 0.3], 0.5, 0),
        ([], 0.5, 0),
        ([0.9, 0.9, 0.9], 0.5, 3),  # never ended: as long as was watched
    ],
)
def test_lifespan_is_the_last_round_at_or_above_the_threshold(asr, threshold, rounds):
    assert lifespan(asr, threshold) == rounds


def test_the_judge_draws_test_images_with_their_labels():
    judge = Judge(images(BATCH), None)
    x, y = judge.sample(9, torch.Generator().manual_seed(1))
    again, _ = judge.sample(9, torch.Generator().manual_seed(1))
    _, others = judge.sample(9, torch.Generator().manual_seed(2))
    assert len(x) == 9
    assert x[:, 0, -1].argmax(1).tolist() == y.tolist()
    assert torch.equal(x, again)
    assert others.tolist() != y.tolist()
    assert len(judge.sample(10**6, torch.Generator())[0]) == len(BATCH)


def test_accuracy_on_the_victims_is_that_of_their_clean_images_alone():
    """Half of the zeros are read as a 3, everything else is right: 50 %, whatever the MTA."""
    test = Images(torch.zeros(12, 1, SIZE, SIZE, dtype=torch.uint8), torch.arange(12) % CLASSES)
    answers = torch.eye(CLASSES)[test.y]
    answers[0] = torch.eye(CLASSES)[3]
    answers[4:5] = float("nan")  # a broken answer is no class 0

    class Given(nn.Module):
        def forward(self, x):
            return answers[: len(x)]

    found = Judge(test, None, victims=test.y == 0)(Given())
    assert found["victim_accuracy"] == pytest.approx(1 / 3)
    assert found["mta"] == pytest.approx(10 / 12)
    assert math.isnan(Judge(test, None, victims=test.y == 9)(Given())["victim_accuracy"])
    assert "victim_accuracy" not in Judge(test, None)(Given())


def test_a_round_that_kept_the_global_model_refuses_nobody():
    verdicts = (
        Verdict("a", False, reason="nonfinite update"),
        Verdict("b", False, reason="too few", undecided=True),
        Verdict("c", False, reason="too few", undecided=True),
    )
    detection = Detection()
    detection.add(verdicts, frozenset({"a", "b"}))
    assert (detection.true_positives, detection.false_positives) == (1, 0)
    assert (detection.false_negatives, detection.true_negatives) == (0, 0)
