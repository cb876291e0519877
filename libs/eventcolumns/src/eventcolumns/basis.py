"""The basis of an answer: the range of the blocks, and what is missing in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from eventcolumns.schema import Block, Footer
from tetra.v1.stream_pb2 import GapNotice, LossNotice


class Missing(NamedTuple):
    """What is missing."""

    losses: list[LossNotice]
    gaps: list[GapNotice]


def missing_in(
    footers: Iterable[tuple[Block, Footer]], since_ns: int, until_ns: int, nodes: Sequence[str]
) -> Missing:
    """Return what is missing in blocks, of these nodes (empty: all) in this time (0: no limit)."""
    losses: list[LossNotice] = []
    gaps: list[GapNotice] = []
    before: Block | None = None
    for block, footer in footers:
        if before is not None and (hole := _hole(before, block)) is not None:
            gaps.append(hole)
        losses += footer.losses
        gaps += footer.gaps
        before = block
    return chosen(losses, gaps, since_ns, until_ns, nodes)


def chosen(
    losses: Iterable[LossNotice],
    gaps: Iterable[GapNotice],
    since_ns: int,
    until_ns: int,
    nodes: Sequence[str],
) -> Missing:
    """Return the notices that concern these nodes (empty: all) and this time (0: no limit)."""
    names = {*nodes, ""} if nodes else None
    return Missing(
        [
            loss
            for loss in losses
            if (names is None or loss.node_name in names)
            and _touches(loss.time.ToNanoseconds(), loss.time.ToNanoseconds(), since_ns, until_ns)
        ],
        [
            gap
            for gap in gaps
            if (names is None or gap.node_name in names)
            and _touches(
                getattr(gap, "from").ToNanoseconds(), gap.to.ToNanoseconds(), since_ns, until_ns
            )
        ],
    )


def _touches(from_ns: int, to_ns: int, since_ns: int, until_ns: int) -> bool:
    return not (until_ns and from_ns > until_ns) and not 0 < to_ns < since_ns


# A file between the two was removed.
def _hole(before: Block, block: Block) -> GapNotice | None:
    if before.generation != block.generation or block.first == before.last + 1:
        return None
    gap = GapNotice(
        cause=GapNotice.CAUSE_STREAM_DAMAGED,
        count=block.first - before.last - 1,
        first=before.last + 1,
        last=block.first - 1,
    )
    getattr(gap, "from").FromSeconds(before.to_s)
    gap.to.FromSeconds(block.from_s)
    return gap
