import sys
from pathlib import Path

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"

# Behind everything else: benchmarks are programs, and their modules have short names.
sys.path += [str(BENCHMARKS), *(str(BENCHMARKS / name) for name in ("serving", "training", "training/peers"))]
