"""Methods with a memory, against their equations worked out one example and query at a time."""

import math

import torch
import torch.nn.functional as F
from by_hand import WAYS, answers, features, lstm_step, shuffled_episodes, vector_case
from torch import Tensor

from innerloop_learner import Params
from innerloop_learner.methods.snail import ATTENTION
from innerloop_learner.update_rules.coordinates import log_and_sign


def snail_of_one_sequence(params: Params, x: Tensor, filters: int, depth: int) -> Tensor:
    """Outputs [W] at the end of a sequence [N, C], layers as in figure 2 of Mishra et al. 2018."""

    def layer(name: str, x: Tensor) -> Tensor:
        return x @ params[f"{name}.weight"].T + params[f"{name}.bias"]

    length = len(x)
    for block, (keys, _) in enumerate(ATTENTION):
        query, key, value = (layer(f"attention.{block}.{part}", x) for part in ("query", "key", "value"))
        read = []
        for place in range(length):
            weights = (query[place] @ key[: place + 1].T / math.sqrt(keys)).softmax(0)
            read.append(weights @ value[: place + 1])
        x = torch.cat([x, torch.stack(read)], 1)
        for power in range(depth if block < 2 else 0):
            distance = 2**power
            before = torch.stack([x[i - distance] if i >= distance else torch.zeros_like(x[0]) for i in range(length)])
            both = layer(f"dense{block}.{distance}.now", x) + layer(f"dense{block}.{distance}.before", before)
            x = torch.cat([x, both[:, :filters].tanh() * both[:, filters:].sigmoid()], 1)
    return x[-1] @ params["head.weight"].T + params["head.bias"]


def test_snail_answers_at_the_end_of_the_sequence() -> None:
    case = vector_case("snail", filters=5, context=8)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)
    for task in range(3):

        def embed(x: Tensor) -> Tensor:
            return features(params, x) @ params["embedding.weight"].T + params["embedding.bias"]

        labels = F.one_hot(episodes.support.y[task], WAYS).double()
        support = torch.cat([embed(episodes.support.x[task]), labels], 1)
        for index, query in enumerate(embed(episodes.query.x[task])):
            asked = torch.cat([query, torch.zeros(WAYS, dtype=torch.float64)])
            expected = snail_of_one_sequence(params, torch.cat([support, asked[None]]), filters=5, depth=3)
            torch.testing.assert_close(logits[task, index], expected)


def test_a_memory_is_written_where_it_was_used_least() -> None:
    slots, heads, width = 5, 2, 3  # fewer slots than examples: the least used one is written over
    case = vector_case("mann", hidden=4, slots=slots, heads=heads, width=width, decay=0.9)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)

    def keys_of(hidden: Tensor) -> Tensor:
        return (hidden @ params["memory.keys.weight"].T + params["memory.keys.bias"]).tanh().view(heads, width)

    def look_up(key: Tensor, memory: Tensor) -> Tensor:
        cosines = torch.stack([key @ slot / (key.norm() * (slot @ slot + 1e-6).sqrt()) for slot in memory])
        return (params["memory.strength"].exp() * cosines).softmax(0)

    for task in range(3):
        hidden = cell = torch.zeros(1, 4, dtype=torch.float64)
        memory, used = params["memory.initial"].clone(), [1e-6 * slot for slot in range(slots)]
        read = [torch.zeros(slots, dtype=torch.float64) for _ in range(heads)]
        labels = F.one_hot(episodes.support.y[task], WAYS).double()
        for x in torch.cat([features(params, episodes.support.x[task]), labels], 1):
            hidden, cell = lstm_step(params, "controller", x[None], hidden, cell)
            keys = keys_of(hidden[0])
            gates = (hidden[0] @ params["memory.gates.weight"].T + params["memory.gates.bias"]).sigmoid()
            least = sorted(range(slots), key=lambda slot: used[slot])[:heads]
            memory = memory.clone()
            memory[least[0]] = 0
            write = []
            for head in range(heads):
                place = F.one_hot(torch.tensor(least[head]), slots).double()
                write.append(gates[head] * read[head] + (1 - gates[head]) * place)
                memory = memory + torch.outer(write[head], keys[head])
            read = [look_up(key, memory) for key in keys]
            used = [
                0.9 * used[slot] + sum((r[slot] + w[slot]).item() for r, w in zip(read, write, strict=True))
                for slot in range(slots)
            ]
        for index, query in enumerate(features(params, episodes.query.x[task])):
            asked = torch.cat([query, torch.zeros(WAYS, dtype=torch.float64)])
            after, _ = lstm_step(params, "controller", asked[None], hidden, cell)
            recalled = torch.cat([look_up(key, memory) @ memory for key in keys_of(after[0])])
            expected = params["head.weight"] @ torch.cat([after[0], recalled]) + params["head.bias"]
            torch.testing.assert_close(logits[task, index], expected)


def test_meta_networks_make_fast_weights_of_the_gradients_of_slow_ones() -> None:
    case = vector_case("meta-networks", embedding=4, hidden=5)
    params, episodes = case.params(), shuffled_episodes(case)
    logits = answers(case, params, episodes)

    def generated(name: str, gradient: Tensor) -> Tensor:
        hidden = log_and_sign(gradient) @ params[f"fast.{name}.hidden"].T + params[f"fast.{name}.bias"]
        return hidden.relu() @ params[f"fast.{name}.output"]

    def slow(name: str, x: Tensor, weight: Tensor | None = None) -> Tensor:
        return x @ (params[f"slow.{name}.weight"] if weight is None else weight).T + params[f"slow.{name}.bias"]

    for task in range(3):
        inputs = slow("input", features(params, episodes.support.x[task])).relu()
        labels = episodes.support.y[task]
        weight = params["slow.embedding.weight"].clone().requires_grad_()
        loss = F.cross_entropy(slow("labels", slow("embedding", inputs, weight).relu()), labels)
        fast_embedding = generated("d", torch.autograd.grad(loss, weight)[0])

        def embed(x: Tensor, fast: Tensor = fast_embedding) -> Tensor:
            return slow("embedding", x).relu() + (x @ fast.T).relu()

        fast = []
        for example, label in zip(inputs, labels, strict=True):
            weight = params["slow.task.weight"].clone().requires_grad_()
            loss = F.cross_entropy(slow("task", example[None], weight), label[None])
            fast.append(generated("m", torch.autograd.grad(loss, weight)[0]))
        for index, query in enumerate(slow("input", features(params, episodes.query.x[task])).relu()):
            cosines = F.cosine_similarity(embed(query)[None], embed(inputs))
            attention = (params["attention.log_scale"].exp() * cosines).softmax(0)
            mixed = sum(share * weights for share, weights in zip(attention, fast, strict=True))
            torch.testing.assert_close(logits[task, index], slow("task", query) + mixed @ query)
