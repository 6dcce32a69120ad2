"""The borders of a mesh as closed loops of vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nstr3d.geometry.graph import label_components
from nstr3d.geometry.mesh.topology import Edges, directed_edges


@dataclass(frozen=True)
class Loops:
    """Closed borders, in which no vertex occurs twice.

    Loop i passes through ``vertices[starts[i] : starts[i + 1]]``, in the direction of the edges of
    its faces, and belongs to component ``part[i]``. ``loose (k,)`` is the component of each border
    edge that is in no loop.
    """

    vertices: np.ndarray
    starts: np.ndarray
    part: np.ndarray
    loose: np.ndarray

    def __len__(self) -> int:
        return len(self.part)

    @property
    def sizes(self) -> np.ndarray:
        """The number of vertices of each loop ``(m,)``."""
        return np.diff(self.starts)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.vertices[self.starts[index] : self.starts[index + 1]]


def border_loops(faces: np.ndarray, edges: Edges, part: np.ndarray) -> Loops:
    """The borders of each component of a mesh; ``part (f,)`` is the component of each face.

    An edge belongs to the border of a component that has one face there, whatever other components
    have. Borders that meet in a vertex are taken apart into loops.
    """
    border = _border_edges(edges, part)
    start, end, _ = directed_edges(faces)
    owner = part[border // 3].astype(np.int64)
    count = int(faces.max()) + 1
    # A vertex where two components meet is a node of each.
    name, node = np.unique(
        np.concatenate([owner * count + start[border], owner * count + end[border]]),
        return_inverse=True,
    )
    tail, head = node[: len(border)], node[len(border) :]
    simple = (np.bincount(tail, minlength=len(name)) == 1) & (
        np.bincount(head, minlength=len(name)) == 1
    )
    label = label_components(len(name), tail, head)
    tangled = np.zeros(int(label.max(initial=0)) + 1, bool)
    tangled[label[~simple]] = True
    plain = ~tangled[label[tail]]
    chains = _plain_loops(tail[plain], head[plain], label)
    more, loose = _tangled_loops(tail[~plain], head[~plain])
    nodes = np.concatenate([chains[0], *more]).astype(np.int64)
    sizes = np.concatenate([chains[1], [len(loop) for loop in more]]).astype(np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    place = name[nodes]
    return Loops(
        place % count, starts, place[starts[:-1]] // count, owner[np.flatnonzero(~plain)[loose]]
    )


def _border_edges(edges: Edges, part: np.ndarray) -> np.ndarray:
    """The directed edges ``(n,)`` whose undirected edge has one face of their component."""
    if edges.branching == 0:
        return edges.alone
    group = np.concatenate([[0], np.cumsum(~edges.joined)])
    busy = (np.bincount(group) > 2)[group]
    rows, group = edges.order[busy], group[busy]
    _, which, number = np.unique(
        group * (int(part.max()) + 1) + part[rows // 3], return_inverse=True, return_counts=True
    )
    return np.sort(np.concatenate([edges.alone, rows[number[which] == 1]]))


def _plain_loops(
    tail: np.ndarray, head: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Loops of edges of which each node has one that comes and one that goes.

    Returns the nodes of all loops in order, and the size of each loop.
    """
    if len(tail) == 0:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    into = np.empty(len(label), np.int64)
    into[head] = np.arange(len(tail))
    _, first, loop = np.unique(label[tail], return_index=True, return_inverse=True)
    # Pointers back along a loop double their reach, until all point to the first edge.
    back, rank = into[tail], np.ones(len(tail), np.int64)
    back[first], rank[first] = first, 0
    for _ in range(int(np.bincount(loop).max()).bit_length()):
        rank += rank[back]
        back = back[back]
    return tail[np.lexsort((rank, loop))], np.bincount(loop)


def _tangled_loops(tail: np.ndarray, head: np.ndarray) -> tuple[list[list[int]], np.ndarray]:
    """Loops along edges of which nodes have several.

    A walk that comes back to one of its nodes closes a loop there. Returns the loops, and the edges
    at which a walk ended without closing one.
    """
    leaving: dict[int, list[int]] = {}
    for edge, node in enumerate(tail.tolist()):
        leaving.setdefault(node, []).append(edge)
    heads = head.tolist()
    loops: list[list[int]] = []
    loose: list[int] = []
    for begin in list(leaving):
        nodes, walked, place = [begin], [], {begin: 0}
        while nodes:
            if not leaving.get(nodes[-1]):
                del place[nodes.pop()]
                if walked:
                    loose.append(walked.pop())
                continue
            edge = leaving[nodes[-1]].pop()
            node = heads[edge]
            if node not in place:
                place[node] = len(nodes)
                nodes.append(node)
                walked.append(edge)
                continue
            loop = nodes[place[node] :]
            loops.append(loop)
            for each in loop[1:]:
                del place[each]
            del nodes[place[node] + 1 :], walked[place[node] :]
    return loops, np.array(loose, np.int64)
