"""What a command takes when it is not told: every command works with no other flags."""

from pathlib import Path

RUN = Path("runs/default")
SPACE = "tiny"
DATA = "clutter"
DEVICE = "cpu"
STRATEGY = "predictor"
EVALUATIONS = 96
