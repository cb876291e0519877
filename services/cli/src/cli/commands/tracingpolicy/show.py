"""``tetra tracingpolicy show``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.errors import TetraError
from cli.flags import Flag
from cli.policies.flags import name_argument, policy_flags, reference
from cli.server_flags import server_options
from cli.terminal import Output
from cli.values import INTEGER


def run(args: Args) -> int:
    """Print the document."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.revisions import find_revision, history

    with Client(server_options(args)) as client:
        revisions = history(PolicyCalls(client), reference(args, args.name), with_yaml=True)
    spec = find_revision(revisions, args.revision)
    if spec.deleted:
        last = next((one.revision for one in revisions if not one.deleted), 0)
        raise TetraError(
            f"show: policy {args.name}: it was deleted by revision {spec.revision}; for example: "
            f"tetra tracingpolicy show {args.name} --revision {last}"
        )
    text = spec.yaml
    Output.stdout(exact=True).write(text if text.endswith("\n") else text + "\n")
    return 0


COMMAND = Command(
    "show",
    run,
    summary="print the document of a policy",
    text="""Print the document of a policy as it was submitted: the current or another revision.

examples:
  tetra tracingpolicy show passwd-opened > policy.yaml
  tetra tracingpolicy show passwd-opened --revision 3
""",
    params=[
        name_argument(),
        *policy_flags(),
        Flag("--revision", type=INTEGER, help="revision, from history [default: the current]"),
    ],
)
