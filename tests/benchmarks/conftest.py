import sys
from pathlib import Path

# Behind everything else: benchmarks are programs, and their modules have short names.
sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks" / "serving"))
