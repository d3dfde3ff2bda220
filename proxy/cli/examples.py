"""What to type: for each command, lines that work as they are, and what each is for.

Imports nothing, because a kill waits for it.
"""

from __future__ import annotations

from typing import Final

#: By command and subcommand; the empty name is `understudy` itself. Each: what for, the line.
EXAMPLES: Final[dict[str, tuple[tuple[str, str], ...]]] = {
    "": (
        ("see all of it on this machine, in under a minute", "understudy demo"),
        (
            "a config to start from, then the proxy",
            "understudy init && understudy serve understudy.yaml",
        ),
        ("from another terminal in the same folder", "understudy status -w"),
        (
            "is the candidate as good as the primary?",
            "understudy verdict --from ./state --route score --candidate v2",
        ),
    ),
    "demo": (
        ("in under a minute, every answer checked", "understudy demo"),
        (
            "leave all of it running, with a little traffic and the dashboard",
            "understudy demo --fast --keep",
        ),
    ),
    "init": (
        ("beside one model server", "understudy init"),
        ("in front of many", "understudy init --template gateway gateway.yaml"),
    ),
    "check": (
        ("what the file does, or all that is wrong with it", "understudy check understudy.yaml"),
        (
            "and what would change if the running instance read it",
            "understudy check understudy.yaml --against-running",
        ),
    ),
    "explain": (
        (
            "who would serve ada's request, and who gets a copy",
            'understudy explain understudy.yaml --path /score --header "x-user-id: ada"',
        ),
        (
            "with the weights and kills of now",
            "understudy explain understudy.yaml --path /score --key ada --live",
        ),
    ),
    "doctor": (
        ("backends, Kafka, disk, clock, ports", "understudy doctor understudy.yaml"),
        (
            "and one request to primary and candidates, to compare their answers",
            "understudy doctor understudy.yaml --path /score --body @request.json",
        ),
    ),
    "topics create": (
        ("ask the broker, and create nothing", "understudy topics create --dry-run"),
        ("for three brokers", "understudy topics create understudy.yaml --replication-factor 3"),
    ),
    "schema": (
        ("for an editor that checks YAML", "understudy schema config > config.schema.json"),
        ("a table of pairs in ClickHouse", "understudy schema pair --dialect clickhouse"),
    ),
    "serve": (("until Ctrl-C or SIGTERM", "understudy serve understudy.yaml"),),
    "status": (
        ("each second, ramps with their evidence included", "understudy status -w"),
        ("for a program", "understudy status --json"),
        ("of another machine", "understudy status --admin http://10.0.0.7:9090"),
    ),
    "decisions": (
        ("who killed it, and why", "understudy decisions"),
        ("all that the log has, for a program", "understudy decisions --json --limit 1000"),
        ("of an instance that does not run", "understudy decisions --state-dir ./state"),
    ),
    "reload": (
        ("after an edit that should be live now", 'understudy reload --reason "two endpoints"'),
    ),
    "weight": (
        (
            "5% of the users get v2's answers from the next request on",
            'understudy weight score v2 5 --reason "first users"',
        ),
    ),
    "ramp": (
        ("by evidence from 0% to 100%, and back", 'understudy ramp start score --reason "May"'),
        ("where it is, and what it waits for", "understudy ramp status score"),
    ),
    "ramp start": (
        ("what would happen", "understudy ramp start score --dry-run"),
        (
            "where the route has several candidates",
            'understudy ramp start score --candidate v2 --reason "May"',
        ),
    ),
    "ramp pause": (
        ("the weight stays until resume", 'understudy ramp pause score --reason "sale"'),
    ),
    "ramp resume": (("after a pause or a kill", "understudy ramp resume score"),),
    "ramp promote": (
        ("a step with `approval: manual` waits for it", "understudy ramp promote score"),
    ),
    "ramp abort": (("back to 0%", 'understudy ramp abort score --reason "a better one comes"'),),
    "ramp status": (
        ("all ramps", "understudy ramp status"),
        ("for a program", "understudy ramp status score --json"),
    ),
    "kill": (
        ("everything back to the primary", 'understudy kill --reason "errors on v2"'),
        ("one candidate", 'understudy kill --route score --candidate v2 --reason "slow"'),
        ("no more copies, but users stay", 'understudy kill --only mirror --reason "load"'),
    ),
    "revive": (
        ("all of it", 'understudy revive --reason "fixed"'),
        ("one candidate", 'understudy revive --route score --candidate v2 --reason "fixed"'),
    ),
    "pairs": (("what comes now, and differs", "understudy pairs tail --follow --different"),),
    "pairs tail": (
        ("the last 20", "understudy pairs tail -n 20"),
        ("what comes now, and differs", "understudy pairs tail --follow --different"),
    ),
    "pairs show": (
        ("by the x-request-id that the user got", "understudy pairs show 7f3a0c"),
        ("all of every value", "understudy pairs show 7f3a0c --all"),
    ),
    "pairs export": (
        ("for pandas, DuckDB, Polars", "understudy pairs export --to parquet --out pairs.parquet"),
        (
            "some columns of the failed ones, to a pipe",
            "understudy pairs export --failed --columns ts,route,candidate_error --to csv --out -",
        ),
    ),
    "compare": (
        ("of the instance in this folder", "understudy compare --from ./state"),
        ("as a page with plots", "understudy compare --from ./state --html report.html"),
        (
            "the last hour, from Kafka",
            "understudy compare --from kafka://127.0.0.1:9092/shadow.pairs.v1 --since 1h",
        ),
    ),
    "verdict": (
        ("by the gates of its ramp", "understudy verdict --from ./state --route score"),
        (
            "by gates of your own",
            "understudy verdict --from ./state --metric agreement --margin 2% --budget 50ms",
        ),
    ),
    "plan": (
        (
            "how long at 50 requests a second, if 4% of the answers differ",
            "understudy plan --margin 0.01 --disagreement 4% --rate 50",
        ),
        ("as recorded so far", "understudy plan --from ./state --route score --candidate v2"),
    ),
    "replay": (
        (
            "yesterday's requests to a model that is not in the config yet",
            "understudy replay --from ./state --to http://127.0.0.1:9003 --as v3 --since 1d",
        ),
        ("then", "understudy compare --from replay.ndjson.zst"),
    ),
    "labels": (("by x-request-id", "understudy labels import truth.csv"),),
    "labels import": (
        ("a CSV with request_id and label", "understudy labels import truth.csv"),
        (
            "straight to Kafka",
            "understudy labels import truth.ndjson --to kafka://127.0.0.1:9092/shadow.labels.v1",
        ),
    ),
    "topics": (("what is missing", "understudy topics create --dry-run"),),
}


def plain(name: str) -> str:
    """Return the examples of a command as lines of text."""
    return "\n".join(["examples:", *(f"  # {what}\n  {line}" for what, line in EXAMPLES[name])])


def as_markup(name: str) -> str:
    """Return the examples of a command in rich's markup."""
    lines = (f"[dim]# {what}[/dim]\n{line}" for what, line in EXAMPLES[name])
    return "\n".join(("[bold]Examples[/bold]", *lines))
