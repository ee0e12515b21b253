"""Learners as ONNX graphs: the whole of adapting and predicting, inner loop included, in standard operators.

`graphs` writes the two graphs of a bundle. It runs the learner under `tracing`, with `decompositions` in place of
operators that ONNX lacks; loops are traced once, between `marks`, and become ONNX Loops in `loops`. `check` compares
the graphs' answers with the learner's before they are given away.
"""
