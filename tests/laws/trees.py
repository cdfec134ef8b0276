"""Trees of any depth, and what their branches say when each is run alone through the model's own forward."""

import torch

from burnish.types import Node, TokenTree

FOREST = ((7, -1), (6, 0), (5, 1), (3, 1), (1, 2), (4, 0), (1, 0), (5, -1), (1, -1), (8, 8))
"""(length, parent) of each node: a root with three branches, one of which forks twice more, a row alone, and a root of one token."""


def make_tree(vocabulary: int, shape=FOREST, *, trained: float = 0.7, seed: int = 0) -> TokenTree:
    """A tree of that shape with random tokens, about that share of them trained. `branch_N` names the node."""
    generator = torch.Generator().manual_seed(seed)
    nodes: list[Node] = []
    positions, depth_after = [], []
    for length, parent in shape:
        start, depth = nodes[-1].end if nodes else 0, depth_after[parent] if parent >= 0 else 0
        nodes.append(Node(start=start, end=start + length, parent=parent))
        positions += range(depth, depth + length)
        depth_after.append(depth + length)
    chosen = torch.rand(len(positions), generator=generator) < trained
    index, source, branch = [], [], []
    for number, node in enumerate(nodes):
        for i in range(node.start, node.end):
            before = i - 1 if i > node.start else nodes[node.parent].end - 1 if node.parent >= 0 else -1
            if chosen[i] and before >= 0:
                index.append(i)
                source.append(before)
                branch.append(number)
    return TokenTree(
        token_ids_T=torch.randint(0, vocabulary, (len(positions),), generator=generator),
        position_T=torch.tensor(positions),
        nodes=tuple(nodes),
        index_N=torch.tensor(index),
        source_N=torch.tensor(source),
        branch_N=torch.tensor(branch),
        example_B=torch.arange(len(nodes)),
        group_ids=tuple(f"node {i}" for i in range(len(nodes))),
    )


def path_to(tree: TokenTree, node: int) -> torch.Tensor:
    """Flat indices from the root to the end of `node`."""
    chain = [node]
    while tree.nodes[chain[0]].parent >= 0:
        chain.insert(0, tree.nodes[chain[0]].parent)
    return torch.cat([torch.arange(tree.nodes[n].start, tree.nodes[n].end) for n in chain])


def visible(tree: TokenTree) -> torch.Tensor:
    """`[N, T]`: does the prediction of that target follow from that token? By walking each path, not by any mask."""
    seen = torch.zeros(tree.N, tree.T, dtype=torch.bool)
    for n, (i, source) in enumerate(zip(tree.index_N.tolist(), tree.source_N.tolist(), strict=True)):
        node = next(k for k, one in enumerate(tree.nodes) if one.start <= i < one.end)
        path = path_to(tree, node).tolist()
        seen[n, path[: path.index(source) + 1]] = True
    return seen


def alone(model, tree: TokenTree, *, temperature: float = 1.0) -> torch.Tensor:
    """`logp_N` of `tree`: every path through the model by itself, logits as the model returns them, shifted the textbook way."""
    parts, order = [], []
    for number, node in enumerate(tree.nodes):
        mine = ((tree.index_N >= node.start) & (tree.index_N < node.end)).nonzero()[:, 0]
        if not len(mine):
            continue
        path = path_to(tree, number)
        ids = tree.token_ids_T[path]
        log_p = (model(input_ids=ids[None], use_cache=False).logits[0, :-1] / temperature).log_softmax(-1)
        logp = log_p.gather(1, ids[1:, None])[:, 0]
        place = {int(flat): k for k, flat in enumerate(path)}
        parts.append(logp[[place[int(i)] - 1 for i in tree.index_N[mine]]])
        order.append(mine)
    return torch.cat(parts)[torch.cat(order).argsort()]
