"""Cards of weights files that tests write."""

from __future__ import annotations

from typing import Any

from cellseg.models.network_settings import Network
from cellseg.models.settings import Percentile
from cellseg.models.weights import Card


def card_of(network: Network, **changes: Any) -> Card:
    """Return the card of a network that was trained on nothing."""
    given: dict[str, Any] = {
        "architecture": network.architecture,
        "name": "small",
        "network": network,
        "normalise": Percentile(),
        "diameter_px": 12,
        "score": 0.5,
        "data": "none",
        "data_licence": "none",
        "training": {},
        "accuracy": {},
    }
    return Card(**given | changes)
