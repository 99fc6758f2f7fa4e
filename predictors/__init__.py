"""What an architecture costs and scores. Loads neither torch nor onnxruntime.

Users import from `nas`, which re-exports the public names.
"""

from predictors.accuracy import AccuracyPredictor, RidgePredictor, structure_features
from predictors.additive import AdditiveCost
from predictors.latency import BlockLatency, Calibration, LatencyPredictor, LatencyTable, MeasuredNetwork, calibrate
from predictors.quality import LatencyError, kendall_tau, latency_error, mape_percent

__all__ = [
    "AccuracyPredictor",
    "AdditiveCost",
    "BlockLatency",
    "Calibration",
    "LatencyError",
    "LatencyPredictor",
    "LatencyTable",
    "MeasuredNetwork",
    "RidgePredictor",
    "calibrate",
    "kendall_tau",
    "latency_error",
    "mape_percent",
    "structure_features",
]
