"""``tetra tracingpolicy rollback``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.errors import RefusedError
from cli.flags import Flag
from cli.policies.flags import (
    comment_flag,
    name_argument,
    policy_flags,
    reference,
    rollout_flags,
)
from cli.server_flags import server_options
from cli.terminal import Output, notice, visible
from cli.values import INTEGER

_STEP = "failed to roll back tracing policy"


def run(args: Args) -> int:
    """Load an earlier revision again."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls, seconds
    from cli.policies.progress import Follower
    from cli.policies.results import require_done, summary
    from cli.policies.revisions import find_revision, history, state_word
    from tetra.v1.policies_pb2 import ROLLOUT_WHEREVER, RollbackPolicyRequest

    request = RollbackPolicyRequest(
        policy=reference(args, args.name),
        revision=args.revision or 0,
        timeout=seconds(args.node_timeout),
        comment=args.comment,
    )
    if args.wherever_it_loads:
        request.rollout = ROLLOUT_WHEREVER
    with Client(server_options(args)) as client:
        calls = PolicyCalls(client)
        try:
            with Follower(client.options, request.policy):
                change = calls.rollback(request)
            require_done(change, _STEP, "what was loaded before stays")
        except RefusedError as error:
            raise error.under(_STEP) from None
        now = find_revision(history(calls, request.policy, with_yaml=False), None)
    which = now.origin.from_revision or args.revision
    Output.stdout().write(
        f'tracing policy "{visible(args.name)}" rolled back to revision {which}\n'
    )
    notice(f"policy {args.name}: {summary(change)}; it is {state_word(now)}")
    return 0


COMMAND = Command(
    "rollback",
    run,
    summary="load an earlier revision of a policy again",
    text="""Load an earlier revision again, as a new revision with its document, state, mode and
nodes. A policy that was deleted is restored.

examples:
  tetra tracingpolicy rollback passwd-opened
  tetra tracingpolicy rollback passwd-opened --revision 3 --comment 'ticket 4711'
""",
    params=[
        name_argument(),
        Flag(
            "--revision",
            type=INTEGER,
            help="revision, from history [default: the one before the current]",
        ),
        *policy_flags(),
        comment_flag(),
        *rollout_flags(),
    ],
)
