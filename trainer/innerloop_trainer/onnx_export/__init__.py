"""Learners as ONNX graphs: the whole of adapting and predicting, inner loop included, in standard operators."""
