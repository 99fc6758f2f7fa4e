"""What can be built: genes, genomes, block families and search spaces. Loads no torch.

Users import from `nas`, which re-exports the public names.
"""

from search_spaces.blocks import FAMILIES, build_module
from search_spaces.catalogue import SPACES, SpaceEntry, find_space
from search_spaces.errors import CheckError, InputError, MachineError, ToolError
from search_spaces.language import ImageInput, Layout, NetworkSpace, Operator, Slot, Stage
from search_spaces.space import Architecture, Condition, Gene, Genomes, Option, SearchSpace
from search_spaces.spec import BlockSpec, NetworkSpec, PlacedBlock, block_fields, block_key, largest_spec

__all__ = [
    "FAMILIES",
    "SPACES",
    "Architecture",
    "BlockSpec",
    "CheckError",
    "Condition",
    "Gene",
    "Genomes",
    "ImageInput",
    "InputError",
    "Layout",
    "MachineError",
    "NetworkSpace",
    "NetworkSpec",
    "Operator",
    "Option",
    "PlacedBlock",
    "SearchSpace",
    "Slot",
    "SpaceEntry",
    "Stage",
    "ToolError",
    "block_fields",
    "block_key",
    "build_module",
    "find_space",
    "largest_spec",
]
