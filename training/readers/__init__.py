"""Readers of pictures as shops and researchers keep them; `training.data` packs what they return.

A file per kind of source (`idx`, `cifar`, `parquet`, `folder`, `archive`) finds the pictures; `pool` and `picture`
decode encoded ones; `splits` makes raw splits of them all.
"""

from training.readers.idx import read_idx
from training.readers.picture import read_image
from training.readers.raw import AlphaSource, Fit, RawData, RawSplit
from training.readers.source import read_source

__all__ = ["AlphaSource", "Fit", "RawData", "RawSplit", "read_idx", "read_image", "read_source"]
