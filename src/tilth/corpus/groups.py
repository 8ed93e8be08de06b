"""Content groups: documents that share much of their text are one group, which a split never divides.

Two documents with a band of their sketches in common are one group (see `sketch.py`). So a docstring and the nearly
same one of a subclass, or a page and its reprint, fall on one side.
"""

import hashlib
from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def join_documents(bands: Iterable[np.ndarray], count: int) -> np.ndarray:
    """The component of each document, as the index of the component's first document: int64 (documents,).

    bands: uint64 (documents,) each, looked at one after another, so that only one need be in memory. Components are
    those of "has a band in common".
    """
    labels = np.arange(count)
    for band in bands:
        order = np.argsort(band, kind="stable")
        same = np.flatnonzero(band[order[1:]] == band[order[:-1]])
        left, right = labels[order[same]], labels[order[same + 1]]
        joined = left != right
        if joined.any():
            edges = (np.ones(joined.sum(), bool), (left[joined], right[joined]))
            component = connected_components(coo_array(edges, shape=(count, count)), directed=False)[1]
            labels = component[labels]
    _, first, member = np.unique(labels, return_index=True, return_inverse=True)
    return first[member]


def name_groups(labels: np.ndarray, digests: np.ndarray) -> np.ndarray:
    """The name of each document's group: a hash of the smallest content digest in it, whatever the documents' order.

    labels: the component of each document. digests: uint8 (documents, 16). Returns uint64 (documents,).
    """
    halves = np.ascontiguousarray(digests).view(">u8").reshape(len(digests), 2)
    order = np.lexsort((halves[:, 1], halves[:, 0], labels))
    firsts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    hashed = (hashlib.blake2b(b"group" + digests[row].tobytes(), digest_size=8).digest() for row in order[firsts])
    names = np.frombuffer(b"".join(hashed), ">u8").astype(np.uint64)
    named = np.empty(len(labels), np.uint64)
    named[order] = np.repeat(names, np.diff(firsts, append=len(labels)))
    return named
