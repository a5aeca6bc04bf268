"""Tasks whose answer has several tokens: is all of it right?"""

from __future__ import annotations

from torch import Tensor

from chimeralab.contracts import IGNORE, Batch, Evaluation
from chimeralab_plugins.tasks.generated import GeneratedTask


class ExactMatchTask(GeneratedTask):
    """Also reports `exact_match`, the share of sequences all of whose counted targets are ranked first.

    Each is predicted from the true ones before it. Whether all are right is the same as in greedy decoding, which
    departs from the answer where the first of them is wrong.
    """

    metric = "exact_match"

    def measure(self, logits: Tensor, batch: Batch) -> Evaluation:  # logits: B T V
        total = super().measure(logits, batch)
        counted = batch.targets != IGNORE
        right = (logits.argmax(-1) == batch.targets) | ~counted
        asked = counted.any(1)
        total.sums |= {"sequences": float(asked.sum()), "matches": float((right.all(1) & asked).sum())}
        return total

    def metrics(self, total: Evaluation) -> dict[str, float]:
        match = total.sums.get("matches", 0.0) / max(total.sums.get("sequences", 0.0), 1.0)
        return {**super().metrics(total), "exact_match": match}
