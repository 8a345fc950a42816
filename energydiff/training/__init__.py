"""Training: the LightningModule, its data and its callbacks."""

from energydiff.training.data import DiffusionData
from energydiff.training.defaults import TRAINER
from energydiff.training.ema import EMA
from energydiff.training.finish import CalibrateAndExport
from energydiff.training.guard import NonFiniteGuard
from energydiff.training.memorisation import MemorisationMonitor
from energydiff.training.module import DiffusionModule
from energydiff.training.monitor import LyapunovMonitor
from energydiff.training.quality import QualityMonitor
from energydiff.training.stop import StopOnSignal

__all__ = [
    "EMA",
    "TRAINER",
    "CalibrateAndExport",
    "DiffusionData",
    "DiffusionModule",
    "LyapunovMonitor",
    "MemorisationMonitor",
    "NonFiniteGuard",
    "QualityMonitor",
    "StopOnSignal",
]
