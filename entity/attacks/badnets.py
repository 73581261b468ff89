"""BadNets: plain training on data with a stamped trigger.

Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain",
2017, arXiv 1708.06733. The attack of the DROP experiments: nothing but the data is poisoned.
"""

from entity.client.attacker import Attacker


class BadNets(Attacker):
    """Local SGD on poisoned data."""

    summary = "BadNets: train as everybody does, on data with a stamped trigger"
    paper = "Gu et al. 2017, arXiv 1708.06733"
