"""``tetra tracingpolicy list``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.flags import output_flag
from cli.policies.flags import domain_flag
from cli.server_flags import server_options
from cli.terminal import Output, notice


def run(args: Args) -> int:
    """Print the policies."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls

    with Client(server_options(args)) as client:
        answer = PolicyCalls(client).statuses(args.domain)
    output = Output.stdout()
    if args.output == "json":
        from eventjson.encoder import JsonEncoder

        output.write(JsonEncoder().encode(answer) + "\n")
        return 0
    from cli.policies.table import policy_table, state_text

    output.write(policy_table(answer.policies))
    for policy in answer.policies:
        if policy.error:
            first, *more = policy.error.splitlines()
            rest = f" (and {len(more)} more lines)" if more else ""
            notice(f"policy {policy.name}: {state_text(policy.state)}: {first}{rest}")
    return 0


COMMAND = Command(
    "list",
    run,
    summary="list the policies of all nodes",
    text="""Print a table of the policies with state, memory, mode and counters, as Tetragon's own
client does. Memory and counters are sums over all nodes; a policy counts as enabled only if every
node that it selects has enabled it. Errors follow on stderr. tetra tracingpolicy status shows each
node.

examples:
  tetra tracingpolicy list
  tetra tp list -o json | jq '.policies[]? | select(.error) | .name'
""",
    params=[
        output_flag("text", "json"),
        domain_flag("only policies of this domain [default: all]"),
    ],
)
