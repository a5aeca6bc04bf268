"""The queue and the Ray workers: carries runs from the store to workers, and their events back.

The store is the only meeting place: submitting, cancelling and watching need no Ray. A dispatcher (one detached actor
a cluster) claims queued runs, starts a worker actor for each, and writes what the workers send.
"""

from chimeralab.scheduling.cluster import Cluster, connect, embedded

__all__ = ["Cluster", "connect", "embedded"]
