"""The script that a downloaded adaptation comes with."""

SCRIPT_NAME = "predict.py"

SCRIPT = '''"""Answers as the server did, with NumPy and ONNX Runtime alone: python predict.py QUERIES.npy

QUERIES.npy holds raw queries, an array [Q, *input]; adaptation.json says their shape and type under "input".
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime

folder = Path(__file__).resolve().parent
about = json.loads((folder / "adaptation.json").read_text("utf-8"))
session = onnxruntime.InferenceSession(str(folder / "predict.onnx"), providers=["CPUExecutionProvider"])
state = dict(np.load(folder / "state.npz"))
given = {each.name: state[each.name] for each in session.get_inputs() if each.name in state}


def predict(queries):
    """Probabilities [Q, classes] of raw queries [Q, *input]; values [Q, D] of a regression."""
    x = np.asarray(queries).astype(about["input"]["dtype"], casting="same_kind")[np.newaxis]
    answers = session.run(["logits" if about["classes"] else "values"], {**given, "query_x": x})[0][0]
    scaled = answers[:, : len(about["classes"])].astype(np.float64) / about["temperature"]
    weights = np.exp(scaled - scaled.max(-1, keepdims=True)) if about["classes"] else None
    return answers if weights is None else weights / weights.sum(-1, keepdims=True)


if __name__ == "__main__":
    for row in predict(np.load(sys.argv[1])):
        print(f"{about['classes'][row.argmax()]} {row.max():.1%}" if about["classes"] else row)
'''
