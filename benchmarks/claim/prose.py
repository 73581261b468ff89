"""Paragraphs of the page that say what the figures are, not what came out."""

from claim.results import BROKEN, HOLDS
from claim.texts import NONE

INTRODUCTION = (
    "DROP's paper (arXiv 2502.07011) claims robustness over *learning configurations*: rate, batch "
    "size and epochs of the clients, at stealthy poisoning rates and several shares of malicious "
    "clients. This page tests that at a size for two cores. It is made by "
    "`python benchmarks/study_page.py` from `docs/results/configurations.jsonl`, a line a run; "
    "every sentence about its runs is computed, but for what is said to be of the runs' records "
    "or was not tested, and the limits at its end.\n\n"
    "*Worst ASR* is the highest ASR of all rounds whose MTA is at least 90 % of the run's last: "
    f"training may end in any of them. A defense *holds* in a cell if that is at most "
    f"{100 * HOLDS:.0f} % in every seed, and is *broken* if it is at least {100 * BROKEN:.0f} % in "
    "one. A run whose undefended twin, with the same seed, has a worst ASR below "
    f"{100 * BROKEN:.0f} % is *void*: the attack does not work there, and the run counts for "
    f"nobody. {NONE} is a run that was not made yet, or one that says nothing."
)

SCOPE = (
    "So nothing here speaks of fewer malicious clients or of the rates that the paper calls "
    'stealthy, and "holds in N of ten" is of one rate and one share.'
)

PLAN = (
    "Rate, batch size and epochs are those of the paper's table VIII (EMNIST). MNIST-50k/10k, "
    "the `cnn`, 50 clients with 980 images each, 25 a round by random selection; BadNets with "
    "four pixels, 0 is to be taken for 7. Rates are of all samples of a malicious client. The "
    "ten configurations are compared at the corner, 5 %/40 %; at C4 one factor is changed at a "
    "time from 1.25 %/20 %, too. All defenses are run at C4; undefended, DROPlet, DROP, "
    "DROP+ and Median in the other configurations. K is of DROP alone."
)

EXPECTED = (
    "What was expected, written into the study files before: the side of 50 % on which the "
    "paper's EMNIST tables have a defense, and for DROP, DROPlet and DROP+ that they hold. A void "
    "cell counts for nobody but undefended: there it is itself what was not expected."
)

JUDGED = (
    "A cell is judged here by the seeds that were run, one of two in most, and its MTA is that of"
    " a run's last round; `drop reproduce` calls it unfinished until both are there, and takes the"
    " mean MTA of the last ten rounds."
)

RANKING = (
    "The paper's EMNIST tables III (C5) and VI (C9) have cells that are like three of ours, all"
    " of C4; the last is at 5 % here and at 2.5 % there. RFA is in none of its tables. Ours are"
    " the highest worst ASR of the seeds that count; of the paper's it does not say the round: "
    "if it is the last one, ours can only look worse."
)

EXPLANATIONS = (
    "What may explain it, and was not tested: honest clients with IID digits and a small model "
    "are more alike than those of a ResNet-18 on 47 classes, which helps whatever looks for the"
    " odd one out, and the median; 36 rounds are less than half of the 80 of the authors' code; "
    "C4 is neither C5 nor C9; a class is a tenth of the images here, not a forty-seventh; and the "
    "worst round of several seeds is harder than the last one of a run."
)

ONE_DRAW = (
    "**One draw, seen ten times.** The seed alone says which clients are in a round: with seed 1 "
    "they are the same in every record that was kept (all configurations but C4). Round 7 is its "
    "first in which the malicious are the majority, 13 of 25; by chance that are 7.4 % of rounds. "
    "The clustering takes the smaller group for the attackers. By the records of DROPlet's runs in "
    "C1, C3, C5, C8, C9 and C10 it refuses all 12 honest clients there, and points of earlier "
    "rounds keep out 12 of the 13 malicious ones. One update is left, of malicious client 21, who "
    "is in a round for the first time, and becomes the global model. In C2 and C7 two are left, of "
    "21 and 25. In C6 alone all 12 honest clients are admitted, with 7 malicious ones. In the "
    "later rounds with such a majority (17, 19, 24, 29 and 53) DROPlet admits nobody, but in C6, "
    "as all attackers have points by then. So whether DROPlet holds in these configurations is, "
    "but for C6, how much of a backdoor a step of one or two clients brings in one round: largely "
    "one draw, and no ten trials. DROP's worst rounds are those of DROPlet, but in C6 and C10. In "
    "C2 its record has the same two clients in round 7, with an ASR of 100.0 %, and it stays "
    "broken, where DROPlet is at 3.6 % in round 10. The rounds in which Median is broken (17, 19, "
    "24 and 29) have malicious majorities, too. Of another seed's draw this says nothing."
)

BAR = (
    "**That DROPlet holds in C10 hangs on the bar of acceptable MTA.** By its record round 7 has "
    "an ASR of 93.8 % at an MTA of 86.8 %; the bar, nine tenths of the last round's, is 88.5 %. "
    "With 1.7 points of MTA more in that round C10 would be broken."
)

CLUSTERING = (
    "Nor does a median over the run say what came first. By DROP's record in C2 it is 1.8 times in "
    "rounds 5 and 6, in which all attackers are refused, and 2.0 in round 7, whose majority brings "
    "the backdoor; then it is 1.0 to 1.3, for 15 rounds. In C6 it was low before any backdoor: 1.0 "
    "to 1.2 in the first six rounds of DROPlet's record, in five of which attackers are admitted. "
    "So that Ward's tree has no two groups may explain C6; it explains neither C2, C3, C5 nor C9."
)

LEFT = (
    "What is left as an explanation, and was not tested: the paper's run (200 rounds, K = 5) "
    "distils 40 times, from round 5 on, and so may never let a backdoor grow; ours distils once, "
    "in round 50, a model whose backdoor is whole. The paper's data and model are others, too."
)

BUDGET = (
    "In our study of few poisoned images (`mnist5k/stealthy`, [RESULTS.md](RESULTS.md)) a "
    "student that starts from the global model inherits its backdoor; in the paper's table III "
    "the run ends at 1.3 %, with a budget of 5 million queries: by the authors' code, which has "
    "the same switch, 651 iterations of 512 images instead of 60 of 64. Here that federation goes "
    "on for 50 rounds, in which clustering sees next to nobody, and is distilled once, in the last "
    "round: published settings, "
    "`clone_init_with_global`, networks narrow (16 and 8 channels) or of the published width "
    "(128 and 32). Each seed for itself; the first row is the model that the others start from."
)

LIMITS = "\n".join(
    f"- {each}"
    for each in (
        "**Grey digits, a small model.** 10 classes and a `cnn` of 0.1 million parameters, "
        "where the paper has EMNIST (62 classes by its text, 47 in the authors' code) and a "
        "ResNet-18. The data are MNIST-50k/10k, "
        "not the official split.",
        "**Few rounds**: 18 to 56, where the authors' code has 80 for EMNIST. A backdoor that needs"
        " more is not seen here, and a defense that fails late looks better than it is.",
        "**Few seeds.** The tables show each; between one or two of them a difference of some "
        "points is none.",
        "**The ten configurations stand at 5 %/40 %**: with a fifth of the clients malicious a "
        "backdoor takes more rounds than there are (C4 with seed 1 had none after 36, neither at "
        "1.25 % nor at 5 %). At the rates that the paper calls stealthy only C4 is tested.",
        "**What the paper does not give** (momentum, weight decay, penalty and reward) is as in"
        " `mnist/*.json`.",
        "**DROP distils fast and guarded**, as `mnist5k/drop.json` does, at a fraction of the "
        "paper's budget; *published* has its code's settings with narrow networks and a tenth "
        "of the budget, at the centre only.",
        "**CIFAR-10** is JPEG, `resnet8`, 5 of 20 clients a round and far from convergence; one"
        " seed, and two attackers in every round instead of a random number.",
    )
)
