"""YAML as plain values with the line of each, and `${VAR}` expanded. No idea what they mean.

Scalars follow the core schema of YAML 1.2, as editors do, not PyYAML's 1.1: `no`, `1:30` and
`2024-01-01` are text, `1e-3` is a number. Duplicate keys are refused, because the parser would keep
the last one without a word.

`${VAR}` and `${VAR:-default}` are expanded in scalar values after parsing, so nothing in the
environment can change the structure of the file; the result is always text, which numeric settings
parse. `$${` writes a literal `${`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

#: Where a value is: keys and indices from the root.
Path = tuple[str | int, ...]

#: Files beyond it are no config of ours; bounds memory and time.
MAX_BYTES = 1024 * 1024
#: Values, counted after aliases are followed, so that a few nested aliases cannot make millions.
MAX_VALUES = 50_000

_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}|\$\{")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_CORE = "tag:yaml.org,2002:"
_MERGE = f"{_CORE}merge"
_BLOCKS = ("|", ">")


@dataclass(frozen=True, slots=True)
class Mark:
    """A fault of the file itself: its line (0 for the whole file), where in the tree, and why."""

    line: int
    path: Path
    message: str


@dataclass(slots=True)
class Tree:
    """A parsed file.

    Attributes:
        value: the root as plain Python, None for an empty file.
        lines: 1-based line of each value by its path; of a mapping's entry, the line of its key.
        faults: what was wrong; `value` leaves the faulty entries out.
    """

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Mark] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """Return the line of the value at `path`, or of the nearest one around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 0)


def parse(text: str, environ: Mapping[str, str]) -> Tree:
    """Return `text` as values with their lines; faults are collected, never raised."""
    tree = Tree()
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        tree.faults.append(Mark(mark.line + 1 if mark else 0, (), _explain(exc)))
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        tree.faults.append(Mark(line, (), f"the character U+{ord_of(exc):04X} is not allowed here"))
    except RecursionError:
        tree.faults.append(Mark(0, (), "it is nested too deeply to be a configuration"))
    else:
        if root is not None:
            _build(root, environ, tree)
    return tree


def ord_of(exc: yaml.reader.ReaderError) -> int:
    """Return the code point that the reader refused (older PyYAML keeps it as a character)."""
    return exc.character if isinstance(exc.character, int) else ord(exc.character)


def _build(root: yaml.Node, environ: Mapping[str, str], tree: Tree) -> None:
    builder = _Builder(environ, tree)
    try:
        tree.value = builder.value(root, ())
    except _TooMuchError:
        tree.faults.append(Mark(0, (), f"it has more than {MAX_VALUES:,} values"))
    except RecursionError:
        tree.faults.append(
            Mark(0, (), "an alias (*name) contains itself, or it is nested too deeply")
        )


def _explain(exc: yaml.MarkedYAMLError) -> str:
    """Return what is wrong with the syntax in an operator's words."""
    problem = exc.problem or "unreadable"
    if "'\\t'" in problem:
        return "YAML is indented with spaces; here is a tab"
    if "single document" in str(exc.context or ""):
        return "the file holds a second document after `---`; keep one"
    if "undefined alias" in problem:
        return f"{problem}; define it above with &name"
    context = f" {exc.context}," if exc.context else ""
    hint = ""
    if "mapping values are not allowed" in problem:
        hint = "; check the indentation, and quote text that holds ': '"
    elif "expected <block end>" in problem:
        hint = "; check that this line is indented like those it belongs to"
    elif "cannot start any token" in problem:
        hint = "; quote text that starts with a special character"
    return f"not valid YAML:{context} {problem}{hint}"


class _Loader(yaml.SafeLoader):
    """The composer of PyYAML with the scalars of YAML 1.2's core schema (section 10.3.2)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it


for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        (
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
            r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
        ),
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(f"{_CORE}{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


class _TooMuchError(Exception):
    """The file has more values than a config can need."""


class _Builder:
    """Turns nodes into values, noting lines and faults in the tree."""

    def __init__(self, environ: Mapping[str, str], tree: Tree) -> None:
        self._environ = environ
        self._tree = tree
        self._values = 0

    def value(self, node: yaml.Node, path: Path) -> Any:
        """Return the value of `node`, which stands at `path`."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise _TooMuchError
        self._tree.lines.setdefault(path, _line(node))
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value_node in self._entries(node, path):
            at = (*path, key.value)
            # A block below a key starts on the next line, or further; people look for the key.
            is_inline = isinstance(value_node, yaml.ScalarNode) and value_node.style not in _BLOCKS
            self._tree.lines[at] = _line(value_node if is_inline else key)
            result[key.value] = self.value(value_node, at)
        return result

    def _entries(
        self, node: yaml.MappingNode, path: Path
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        """Yield the entries of a mapping; its own keys win over those it merges with `<<`."""
        own: dict[str, int] = {}
        merges: list[tuple[yaml.Node, yaml.Node]] = []
        for key, value in node.value:
            if key.tag == _MERGE:
                merges.append((key, value))
            elif not isinstance(key, yaml.ScalarNode):
                self._fault(key, path, "a key must be a word, not a list or mapping")
            elif key.value in own:
                self._fault(
                    key,
                    (*path, key.value),
                    f"the key is here twice, first in line {own[key.value]}",
                )
            else:
                own[key.value] = _line(key)
                yield key, value
        for key, value in merges:
            yield from self._merged(key, value, path, own)

    def _merged(
        self, key: yaml.Node, value: yaml.Node, path: Path, own: dict[str, int]
    ) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        sources = value.value if isinstance(value, yaml.SequenceNode) else [value]
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                self._fault(key, path, "`<<` merges a mapping, such as `<<: *defaults`")
                continue
            for inner_key, inner_value in self._entries(source, path):
                if inner_key.value not in own:
                    own[inner_key.value] = _line(inner_key)
                    yield inner_key, inner_value

    def _scalar(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        if "${" in text:
            return self._expanded(node, path)
        kind = node.tag.removeprefix(_CORE)
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            return self._int(node, path)
        if kind == "float":
            return self._float(node, path)
        if kind not in ("str", "merge"):
            self._fault(node, path, f"the tag {node.tag!r} is not supported; write plain values")
        return text

    def _int(self, node: yaml.Node, path: Path) -> Any:
        text: str = node.value
        if len(text) > 30:
            self._fault(node, path, "the number is too long")
            return 0
        if text.startswith(("0o", "0x")):
            return int(text, 0)
        return int(text) if re.fullmatch(r"[-+]?[0-9]+", text) else text

    def _float(self, node: yaml.Node, path: Path) -> Any:
        try:
            return float(re.sub(r"\.(inf|nan)", r"\1", node.value.lower()))
        except ValueError:  # only with an explicit !!float before something else
            self._fault(node, path, f"{node.value[:30]!r} is not a number")
            return 0.0

    def _expanded(self, node: yaml.Node, path: Path) -> str:
        """Return the scalar with its references to the environment replaced; always text."""

        def replace(match: re.Match[str]) -> str:
            if match[0] == "$${":
                return "${"
            variable = None if match[1] is None else _VARIABLE.fullmatch(match[1])
            if variable is None:
                self._fault(
                    node, path,
                    f"{text[match.start() : match.start() + 20]!r} is not a reference to the "
                    "environment; write ${NAME} or ${NAME:-default}, and $${ for a literal ${",
                )  # fmt: skip
                return ""
            name, default = variable.groups()
            if default is not None:
                return self._environ.get(name) or default
            if name not in self._environ:
                self._fault(
                    node, path,
                    f"the environment variable {name} is not set; set it, or give a default with "
                    f"${{{name}:-value}}",
                )  # fmt: skip
                return ""
            return self._environ[name]

        text: str = node.value
        return _REFERENCE.sub(replace, text)

    def _fault(self, node: yaml.Node, path: Path, message: str) -> None:
        self._tree.faults.append(Mark(_line(node), path, message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1
