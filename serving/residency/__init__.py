"""Which adapters are in memory: background loading, pins, and a byte budget."""

from serving.residency.cache import AdapterCache
from serving.residency.entry import CacheStats
from serving.residency.loader import ArtefactLoader

__all__ = ["AdapterCache", "ArtefactLoader", "CacheStats"]
