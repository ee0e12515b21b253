// Adapts an exported bundle to the examples of a task and answers its queries, with onnxruntime-web and nothing else.
//
//   node adapt.js BUNDLE TASK.json
//
// TASK.json holds {"support": [[...], ...], "labels": [0, ...], "queries": [[...], ...], "steps": 5}. Each example and
// each query is one row of its elements. Labels count from 0; for regression they are rows of target values. "steps" may
// be left out. The script prints {"answers": [[...], ...], "losses": [...]}: probabilities (or values) of each query, and
// the loss before each inner step.

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { InferenceSession, Tensor } from "onnxruntime-web";

const [bundle, taskFile] = process.argv.slice(2);
const manifest = JSON.parse(await readFile(join(bundle, "manifest.json"), "utf8"));
const { support, labels, queries, steps } = JSON.parse(await readFile(taskFile, "utf8"));
const { input, task_kind: kind } = manifest.learner;

// Makes rows a tensor [1, rows, *input], the inputs of one task.
function inputs(rows) {
  const elements = input.dtype === "uint8" ? Uint8Array.from(rows.flat()) : Float32Array.from(rows.flat());
  return new Tensor(input.dtype, elements, [1, rows.length, ...input.shape]);
}

function integers(values, shape) {
  return new Tensor("int64", BigInt64Array.from(values, BigInt), shape);
}

// Runs a graph on those of the given tensors that it takes, and returns its outputs by name.
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
