"""Classic networks, each declared once and at two sizes: ``network("lenet5")`` is small, ``network("lenet5", full=True)`` as published."""

from . import dense, digits, gan, imagenet, inception, resnet, style
from .network import NETWORKS, Network, network

__all__ = ["NETWORKS", "Network", "dense", "digits", "gan", "imagenet", "inception", "network", "resnet", "style"]
