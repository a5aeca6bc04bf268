"""The nodes of the cluster: a run needs all that it asks for on one of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import ray

SLACK = 1e-9  # a dozen times 1/12 of a GPU is one, but for rounding


@dataclass(frozen=True)
class Node:
    id: str
    cpus: float
    gpus: float
    memory: float  # bytes

    def holds(self, cpus: float, gpus: float) -> bool:
        return cpus <= self.cpus + SLACK and gpus <= self.gpus + SLACK


def living() -> list[Node]:
    """Those with the fewest GPUs first, so that runs without one leave the others free."""
    found = [
        Node(node["NodeID"], *(node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU", "memory")))
        for node in ray.nodes()
        if node["Alive"]
    ]
    return sorted(found, key=lambda node: (node.gpus, node.id))


def described(nodes: Iterable[Node]) -> dict[str, Any]:
    """What the store keeps of a cluster: totals, and each shape that a node of it has."""
    every = list(nodes)
    shapes = sorted({(node.cpus, node.gpus, node.memory) for node in every})
    return {
        "CPU": sum(node.cpus for node in every),
        "GPU": sum(node.gpus for node in every),
        "memory": sum(node.memory for node in every),
        "nodes": len(every),
        "shapes": [{"CPU": cpus, "GPU": gpus, "memory": memory} for cpus, gpus, memory in shapes],
    }
