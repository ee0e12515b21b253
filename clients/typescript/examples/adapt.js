// Adapts an exported bundle to the examples of a task and answers its queries, by onnxruntime-web alone.
//
//   node adapt.js BUNDLE TASK.json
//
// TASK.json: {"support": [[...], ...], "labels": [0, ...], "queries": [[...], ...], "steps": 5}, of every example and
// query its elements in one row, labels counted from 0 (for regression: rows of target values), steps if one likes.
// Prints {"answers": [[...], ...], "losses": [...]}: each query's probabilities (or values), the loss before each step.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { InferenceSession, Tensor } from "onnxruntime-web";

const [bundle, taskFile] = process.argv.slice(2);
const manifest = JSON.parse(await readFile(join(bundle, "manifest.json"), "utf8"));
const { support, labels, queries, steps } = JSON.parse(await readFile(taskFile, "utf8"));
const { input, task_kind: kind } = manifest.learner;

// [1, rows, *input]: one task.
function inputs(rows) {
  const elements = input.dtype === "uint8" ? Uint8Array.from(rows.flat()) : Float32Array.from(rows.flat());
  return new Tensor(input.dtype, elements, [1, rows.length, ...input.shape]);
}

function integers(values, shape) {
  return new Tensor("int64", BigInt64Array.from(values, BigInt), shape);
}

// A graph's outputs by name; of the inputs, it is given those that it has.
async function run(file, given) {
  const session = await InferenceSession.create(await readFile(join(bundle, file)));
  return session.run(Object.fromEntries(session.inputNames.map((name) => [name, given[name]])));
}

function rows({ data, dims }) {
  const width = dims.at(-1);
  return Array.from({ length: data.length / width }, (_, row) => [...data.slice(row * width, (row + 1) * width)]);
}

const labelled =
  kind === "regression"
    ? { support_y: new Tensor("float32", Float32Array.from(labels.flat()), [1, labels.length, labels[0].length]) }
    : { support_y: integers(labels, [1, labels.length]), ways: integers([Math.max(...labels) + 1], [1]) };
const { losses, ...state } = await run("adapt.onnx", {
  ...labelled,
  support_x: inputs(support),
  support_mask: new Tensor("bool", new Uint8Array(support.length).fill(1), [1, support.length]),
  steps: integers([steps ?? manifest.traits.default_steps], []),
});
const { probabilities, values } = await run("predict.onnx", { ...state, query_x: inputs(queries) });
console.log(JSON.stringify({ answers: rows(probabilities ?? values), losses: losses ? [...losses.data] : [] }));
