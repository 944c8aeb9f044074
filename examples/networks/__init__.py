"""Classic networks, each declared once and at two sizes: ``network("lenet5")`` is small, ``network("lenet5", full=True)`` as published."""

from . import columns, dense, digits, gan, imagenet, inception, recurrent, resnet, style, transformer, translation, video, words
from .network import NETWORKS, Network, network

__all__ = ["NETWORKS", "Network", "columns", "dense", "digits", "gan", "imagenet", "inception", "network", "recurrent", "resnet", "style",
           "transformer", "translation", "video", "words"]
