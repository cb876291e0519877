"""``tetra tracingpolicy history``."""

from __future__ import annotations

from cli.command import Args, Command
from cli.flags import output_flag
from cli.policies.flags import name_argument, policy_flags, reference
from cli.server_flags import server_options
from cli.terminal import Fit, Output, terminal_width


def run(args: Args) -> int:
    """Print the revisions, newest first."""
    from cli.client import Client
    from cli.policies.calls import PolicyCalls
    from cli.policies.revisions import history, history_table

    with Client(server_options(args)) as client:
        calls, policy = PolicyCalls(client), reference(args, args.name)
        revisions = history(calls, policy, with_yaml=args.output == "json")
    output = Output.stdout()
    if args.output == "json":
        from eventjson.encoder import JsonEncoder

        encode = JsonEncoder(extensions=True).encode
        output.write("".join(encode(spec) + "\n" for spec in revisions))
        return 0
    width, fit = terminal_width(), Fit(unicode=output.unicode)
    lines = history_table(revisions)
    output.write("".join((fit(line, width) if width else line) + "\n" for line in lines))
    return 0


COMMAND = Command(
    "history",
    run,
    summary="list the revisions of a policy: who changed what, when, from where",
    text="""List the revisions of a policy, newest first. The first is current. A deleted policy
keeps its history. WHO is the name that the client reports and, in parentheses, the token that it
presented. show prints the document of a revision, diff compares it with a file, rollback loads it
again.

examples:
  tetra tracingpolicy history passwd-opened
  tetra tracingpolicy history passwd-opened -o json | jq -r .origin.comment
""",
    params=[
        name_argument(),
        *policy_flags(),
        output_flag("text", "json", more="; json: with documents"),
    ],
)
