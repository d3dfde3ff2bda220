"""The README, the changelog and the Dockerfile stay true: what they name exists in the product."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from prometheus_client.parser import text_string_to_metric_families

from proxy import __version__
from proxy.cli.app import COMMANDS, LazyCommands, app
from proxy.cli.init import init
from proxy.config.load import load_config
from proxy.config.schema import AdminFile, ConfigFile
from proxy.control.metrics import exposition
from proxy.control.openapi import OPERATIONS
from proxy.control.snapshot import Observer
from proxy.pairs.record import FIELDS, SIDES
from proxy.recorder.sink import SinkState
from proxy.state.control_page import for_config, open_page, update
from proxy.state.stats_page import Outcome
from proxy.telemetry import wall_ns

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LINE_COLUMNS = 110

#: What the README's configs take from the environment.
ENVIRONMENT = {
    "KAFKA_PASSWORD": "secret-of-a-test",
    "UNDERSTUDY_REDACT_KEY": "redaction-key-of-a-test",
    "UNDERSTUDY_TOKEN": "token-of-a-test",
}
#: Fragments of a config are completed by this.
BASE = """
backends: {a: {endpoints: ["http://127.0.0.1:9001"]}}
routes: [{name: all, primary: a}]
"""

_FENCE = re.compile(r"^```(\S*) ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
_SHELL_ENDS = {"|", "||", "&&", ";", "&", ">", "2>"}


def _blocks(language: str) -> list[str]:
    """Return the code blocks in `language` whose first line says nothing more."""
    return [text for word, rest, text in _FENCE.findall(README) if word == language and not rest]


def _prose() -> str:
    return _FENCE.sub("", README)


def _inline() -> list[str]:
    return re.findall(r"`([^`\n]+)`", _prose())


def _section(title: str) -> str:
    """Return the text below a heading, down to the next one of its level or above."""
    found = re.search(rf"^(#+) {re.escape(title)}\n", README, re.MULTILINE)
    assert found, title
    rest = README[found.end() :]
    after = re.search(rf"^#{{1,{len(found[1])}}} ", rest, re.MULTILINE)
    return rest[: after.start()] if after else rest


def _table(section: str) -> list[list[str]]:
    """Return the cells of the rows of the tables in a section, without their heads."""
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("|")
    ]
    return [row for index, row in enumerate(rows) if index and not row[0].startswith("---")]


def _commands() -> Iterator[list[str]]:
    """Yield the words of each `understudy …` in the shell blocks, as a shell splits them."""
    for block in _blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            starts = [n for n, word in enumerate(words) if word == "understudy"]
            for start in starts:
                before = words[:start]
                is_run = not before or "=" in before[-1] or before[-1] in _SHELL_ENDS
                if is_run:
                    yield [*takewhile(lambda word: word not in _SHELL_ENDS, words[start + 1 :])]


def _command(name: str) -> tuple[Any, Any]:
    """Return a command as typer runs it, and its parent's context."""
    group = typer.main.get_command(app)
    assert isinstance(group, LazyCommands)
    context = group.make_context("understudy", [name], resilient_parsing=True)
    return group.resolve_command(context, [name])[1], context


def _options(name: str) -> set[str]:
    """Return the options of a command, and of its subcommands."""
    command = _command(name)[0]
    each = [command, *getattr(command, "commands", {}).values()]
    return {option for one in each for parameter in one.params for option in parameter.opts}


@pytest.mark.parametrize("words", [*_commands()], ids=" ".join)
def test_every_command_in_a_shell_block_is_one_that_runs(words: list[str]) -> None:
    """Typer takes the name, the options, their values and the arguments; nothing is carried out."""
    command, parent = _command(words[0])
    context = command.make_context(words[0], words[1:], parent=parent)
    if hasattr(command, "commands"):
        context = command.commands[words[1]].make_context(words[1], words[2:], parent=context)
    assert context.params is not None


def test_shell_blocks_show_the_commands_of_a_first_day() -> None:
    """The parametrised test above has something to try."""
    assert {words[0] for words in _commands()} >= {"check", "serve", "status", "weight", "kill"}


def test_every_command_named_in_the_text_exists_with_its_options() -> None:
    """`understudy kill --route` in a sentence needs no reason, but a route option."""
    named = [text.split() for text in _inline() if text.startswith("understudy ")]
    for _, name, *rest in named:
        assert name in COMMANDS, name
        options = {word for word in rest if word.startswith("-")}
        assert options <= _options(name), (name, options)
    assert len(named) > 10


def test_every_option_named_in_the_text_is_one_of_some_command() -> None:
    """Also those that are named without their command."""
    named = {text.split()[0] for text in _inline() if re.match(r"--?[a-z]", text)}
    known = set().union(*(_options(name) for name in COMMANDS))
    assert named <= known
    assert "--only" in named


def test_every_make_target_named_exists() -> None:
    """In blocks and in the text."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"^make ([a-z-]+)", "".join(_blocks("sh")), re.MULTILINE))
    named |= {text.split()[1] for text in _inline() if text.startswith("make ")}
    assert {"demo", "test"} <= named <= targets


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_every_config_loads(text: str, tmp_path: Path) -> None:
    """Fragments beside the smallest backends and routes."""
    given = yaml.safe_load(text)
    assert set(given) <= set(ConfigFile.model_fields)
    path = tmp_path / "understudy.yaml"
    path.write_text(text if "routes" in given else BASE + text)
    assert load_config(path, ENVIRONMENT).routes


def test_every_config_key_in_the_text_exists() -> None:
    """Such as limits.journal_disk: config/reference.yaml has every key."""
    reference = yaml.safe_load((ROOT / "config" / "reference.yaml").read_text())
    dotted = [text for text in _inline() if re.fullmatch(r"[a-z]+(\.[a-z_]+)+", text)]
    named = [text.split(".") for text in dotted if text.split(".")[0] in reference]
    for path in named:
        value = reference
        for key in path:
            assert key in value, path
            value = value[key]
    assert ["limits", "journal_disk"] in named


def test_every_environment_variable_is_read_somewhere() -> None:
    """By the code, a template, the tests' support or the image."""
    sources = [*(ROOT / "proxy").rglob("*.py"), *(ROOT / "proxy").rglob("*.yaml")]
    sources += [ROOT / "tests" / "conftest.py", ROOT / "Dockerfile"]
    read = set(re.findall(r"\w+", "".join(path.read_text() for path in sources)))
    for name in set(re.findall(r"`((?:UNDERSTUDY|KAFKA)_[A-Z_]+)`", README)):
        assert name in read, name


def test_every_link_leads_somewhere() -> None:
    """To a file of the repository or to a heading."""
    headings = re.findall(r"^#+ (.+)$", _prose(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9 -]", "", head.lower()).replace(" ", "-") for head in headings}
    for target in re.findall(r"\]\(([^)]+)\)", _prose()):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (ROOT / target).exists(), target


@pytest.fixture
def metrics(tmp_path: Path) -> dict[str, set[str]]:
    """The label names of every metric of an instance that has seen everything, by name."""
    environ = {"UNDERSTUDY_STATE_DIR": str(tmp_path)}
    config = load_config(ROOT / "config" / "gateway.yaml", environ)
    page = open_page(tmp_path, create=True)
    update(page, lambda before: for_config(config, before))
    page.close()
    process = {
        "name": "worker 0",
        "pid": os.getpid(),
        "started_ms": 1,
        "restarts": 0,
        "last_end": "",
    }
    (tmp_path / "runtime.json").write_text(json.dumps({"processes": [process]}))
    recorder = {
        "updated_ms": wall_ns() // 1_000_000,
        "state": "ok",
        "lag_s": 0.1,
        "dropped": {"too_large": 1},
    }
    (tmp_path / "recorder-0.json").write_text(json.dumps(recorder))
    observer = Observer(config)
    observer.refused["no_token"] = 1
    text = exposition(observer, "")[0].decode()
    observer.close()
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = [set(sample.labels) - {"le"} for sample in family.samples]
        found[name] = set().union(*labels)
    return found


def test_the_metrics_table_is_complete_and_true(metrics: dict[str, set[str]]) -> None:
    """Every metric, with its labels, and no other."""
    told: dict[str, set[str]] = {}
    for names, labels, *_ in _table(_section("Metrics")):
        for name in re.findall(r"`(\w+)`", names):
            told[name] = {label.strip() for label in labels.split(",") if label.strip()}
    assert told == metrics


def test_every_metric_in_the_text_exists(metrics: dict[str, set[str]]) -> None:
    """Where alerts and arithmetic name them."""
    assert set(re.findall(r"`(understudy_\w+)`", README)) <= set(metrics)


def test_the_words_for_outcomes_and_sink_states_are_the_products() -> None:
    """A pager's query must match."""
    rows = {row[0]: row[-1] for row in _table(_section("Metrics"))}
    outcomes = set(re.findall(r"`(\w+)`", rows["`understudy_served_total`"]))
    assert outcomes == {str(outcome) for outcome in Outcome} - {"not_sent"}
    states = set(re.findall(r"`(\w+)`", rows["`understudy_recorder_state`"]))
    assert states == {str(state) for state in SinkState}


def test_the_record_table_has_every_field_once() -> None:
    """A leg's fields without its name; the request's and a leg's content_type share a line."""
    rows = _table(_section("The record"))
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row[1])]
    names = {field.name for field in FIELDS}
    legs = {name.removeprefix("primary_") for name in names if name.startswith("primary_")}
    plain = {name for name in names if not name.startswith(tuple(f"{side}_" for side in SIDES))}
    assert len(named) == len(set(named))
    assert set(named) == legs | plain | {"replicate_equal"}


def test_the_packages_are_those_there_are() -> None:
    """One line each."""
    named = re.findall(r"`proxy/(\w+)`", _section("Development"))
    there = [path.parent.name for path in (ROOT / "proxy").glob("*/__init__.py")]
    assert sorted(named) == sorted(there)


def test_the_api_paths_in_the_text_exist() -> None:
    """Written as `GET /metrics`."""
    known = {f"{method.upper()} {path}" for method, path, *_ in OPERATIONS} | {"GET /"}
    named = {text for text in _inline() if re.match(r"(GET|POST|PUT|DELETE) /", text)}
    named -= {"POST /score"}  # the model's
    assert named <= known
    assert "GET /readyz" in named


def test_the_text_is_plain_and_narrow() -> None:
    """Rows of tables cannot be broken; nothing is left to be filled in."""
    wide = [line for line in README.splitlines() if len(line) > LINE_COLUMNS and line[0] != "|"]
    assert wide == []
    assert not re.search(r"TODO|TBD|FIXME|\bXXX", README)
    assert not re.search("[\U0001f000-\U0001faff]", README)


def test_benchmarks_have_their_place() -> None:
    """Between the markers, once, with the command that makes them."""
    parts = re.split(r"<!-- bench:(start|end) -->", _section("Benchmarks"))
    assert [parts[1], parts[3]] == ["start", "end"]
    assert "make bench" in parts[2]


def test_the_changelog_speaks_of_this_version_and_every_command() -> None:
    """Newest first."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    newest = re.search(r"^## \[(.+?)\] - (unreleased|\d{4}-\d\d-\d\d)$", changelog, re.MULTILINE)
    assert newest
    assert newest[1] == __version__
    for name in COMMANDS:
        assert f"`{name}`" in changelog or f"`understudy {name}`" in changelog, name


def test_the_image_is_built_from_files_that_are_there_and_not_ignored() -> None:
    """.dockerignore lists what is let through."""
    let_through = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    sources = [source for copy in copies for source in copy.split()]
    assert sorted(sources) == sorted(let_through)
    for source in sources:
        assert (ROOT / source).exists(), source


def test_the_image_runs_the_product_as_nobody_special() -> None:
    """The command exists, the ports are the defaults, the probe is an open path, the user no root."""
    entry, arguments = (
        json.loads(re.findall(rf"^{word} (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])
        for word in ("ENTRYPOINT", "CMD")
    )
    assert entry == ["understudy"]
    command, parent = _command(arguments[0])
    assert command.make_context(arguments[0], arguments[1:], parent=parent).params["config"]
    ports = re.findall(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)[0].split()
    listeners = ConfigFile.model_fields["listen"].default, AdminFile.model_fields["listen"].default
    assert ports == [str(listener.port) for listener in listeners]
    assert f"127.0.0.1:{ports[1]}/readyz" in DOCKERFILE
    assert re.search(r"^USER [1-9]\d*:", DOCKERFILE, re.MULTILINE)


def test_the_image_listens_where_the_template_looks(tmp_path: Path) -> None:
    """With the image's environment, the sidecar template takes traffic from outside."""
    environ = dict(re.findall(r"(UNDERSTUDY_\w+)=(\S+)", DOCKERFILE))
    path = tmp_path / "understudy.yaml"
    init(path)
    assert str(load_config(path, environ).listen) == "0.0.0.0:8080"
