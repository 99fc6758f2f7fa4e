"""Hardware-aware neural architecture search: one supernet, your device, your budget, a network that fits.

This is the public API. Names load on first use, so `import nas` loads neither torch nor onnxruntime.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.bench import bench_files
    from nas.block_cache import BlockCache
    from nas.data import ImageData, load_data
    from nas.devices import Device, Fingerprint, Measurement, parse_device
    from nas.engine.objectives import Constraint, Objective
    from nas.engine.result import SearchFront, SearchResult
    from nas.engine.search import Search, search
    from nas.evaluate import SubnetEvaluator
    from nas.export.record import ExportedModel
    from nas.export.subnet import ExportOptions, export_subnet
    from nas.export.verify import verify_export
    from nas.finetune import FinetuneSettings, finetune_subnet
    from nas.front import Candidate, Front
    from nas.goal import Goal, parse_goal
    from nas.ledger import Ledger
    from nas.lut import build_lut
    from nas.run import Run
    from nas.search_plan import SearchSettings
    from nas.subnet_search import search_subnets
    from nas.supernet import Network, Supernet, extract
    from nas.training import load_supernet, train_supernet
    from nas.training_record import TrainingConfig
    from predictors.accuracy import AccuracyPredictor, LearnedPredictor
    from predictors.additive import AdditiveCost, largest_over_blocks
    from predictors.balanced import sample_balanced
    from predictors.latency import LatencyPredictor, LatencyTable
    from predictors.published_tables import PublishedTable, read_published_network, read_published_table
    from search_spaces.catalogue import find_space
    from search_spaces.errors import CheckError, InputError, MachineError, ToolError
    from search_spaces.language import NetworkSpace
    from search_spaces.layout import Head, ImageInput, Layout, Operator, Sharing, Stage, Stem
    from search_spaces.network_file import network_json, read_network
    from search_spaces.space import Architecture, Gene, SearchSpace
    from search_spaces.spec import BlockSpec, NetworkSpec

_HOMES = {
    "nas.bench": ("bench_files",),
    "nas.block_cache": ("BlockCache",),
    "nas.data": ("ImageData", "load_data"),
    "nas.devices": ("Device", "Fingerprint", "Measurement", "parse_device"),
    "nas.engine.objectives": ("Constraint", "Objective"),
    "nas.engine.result": ("SearchFront", "SearchResult"),
    "nas.engine.search": ("Search", "search"),
    "nas.evaluate": ("SubnetEvaluator",),
    "nas.export.record": ("ExportedModel",),
    "nas.export.subnet": ("ExportOptions", "export_subnet"),
    "nas.export.verify": ("verify_export",),
    "nas.finetune": ("FinetuneSettings", "finetune_subnet"),
    "nas.front": ("Candidate", "Front"),
    "nas.goal": ("Goal", "parse_goal"),
    "nas.ledger": ("Ledger",),
    "nas.lut": ("build_lut",),
    "nas.run": ("Run",),
    "nas.search_plan": ("SearchSettings",),
    "nas.subnet_search": ("search_subnets",),
    "nas.supernet": ("Network", "Supernet", "extract"),
    "nas.training": ("load_supernet", "train_supernet"),
    "nas.training_record": ("TrainingConfig",),
    "predictors.accuracy": ("AccuracyPredictor", "LearnedPredictor"),
    "predictors.additive": ("AdditiveCost", "largest_over_blocks"),
    "predictors.balanced": ("sample_balanced",),
    "predictors.latency": ("LatencyPredictor", "LatencyTable"),
    "predictors.published_tables": ("PublishedTable", "read_published_network", "read_published_table"),
    "search_spaces.catalogue": ("find_space",),
    "search_spaces.errors": ("CheckError", "InputError", "MachineError", "ToolError"),
    "search_spaces.language": ("NetworkSpace",),
    "search_spaces.layout": ("Head", "ImageInput", "Layout", "Operator", "Sharing", "Stage", "Stem"),
    "search_spaces.network_file": ("network_json", "read_network"),
    "search_spaces.space": ("Architecture", "Gene", "SearchSpace"),
    "search_spaces.spec": ("BlockSpec", "NetworkSpec"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AccuracyPredictor",
    "AdditiveCost",
    "Architecture",
    "BlockCache",
    "BlockSpec",
    "Candidate",
    "CheckError",
    "Constraint",
    "Device",
    "ExportOptions",
    "ExportedModel",
    "FinetuneSettings",
    "Fingerprint",
    "Front",
    "Gene",
    "Goal",
    "Head",
    "ImageData",
    "ImageInput",
    "InputError",
    "LatencyPredictor",
    "LatencyTable",
    "Layout",
    "LearnedPredictor",
    "Ledger",
    "MachineError",
    "Measurement",
    "Network",
    "NetworkSpace",
    "NetworkSpec",
    "Objective",
    "Operator",
    "PublishedTable",
    "Run",
    "Search",
    "SearchFront",
    "SearchResult",
    "SearchSettings",
    "SearchSpace",
    "Sharing",
    "Stage",
    "Stem",
    "SubnetEvaluator",
    "Supernet",
    "ToolError",
    "TrainingConfig",
    "bench_files",
    "build_lut",
    "export_subnet",
    "extract",
    "find_space",
    "finetune_subnet",
    "largest_over_blocks",
    "load_data",
    "load_supernet",
    "network_json",
    "parse_device",
    "parse_goal",
    "read_network",
    "read_published_network",
    "read_published_table",
    "sample_balanced",
    "search",
    "search_subnets",
    "train_supernet",
    "verify_export",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
