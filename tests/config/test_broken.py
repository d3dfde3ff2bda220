"""Broken configs: each gets its own clear message, with file, line and key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, strategies as st

from proxy.config.load import load_config
from proxy.config.resolved import dumps, loads
from proxy.config.yaml_tree import parse
from proxy.errors import ConfigError

GOOD = """\
listen: 127.0.0.1:8080
workers: 2
admin: {listen: 127.0.0.1:9090}
backends:
  v1: {endpoints: [http://127.0.0.1:9001]}
  v2:
    endpoints: [http://127.0.0.1:9002]
    timeout: 5s
routes:
  - name: iris
    match: {path_prefix: /iris, methods: [POST]}
    protocol: json
    primary: v1
    split_by: header:x-user
    candidates:
      - {name: new, backend: v2, mirror: 50%, weight: 1%}
    compare: {prediction: a.b, comparator: numeric, rel_tol: 1e-3}
    ramp:
      steps:
        - {weight: 5%}
        - {weight: 10%}
      gates:
        - {metric: agreement}
        - {metric: latency, budget: 50ms}
record:
  kafka:
    bootstrap_servers: ["127.0.0.1:9092"]
limits: {memory: 64MiB}
"""


class Case(NamedTuple):
    """One edit of the good config, and the fault it must give."""

    name: str
    old: str
    new: str
    line: int
    key: str
    telling: str


CASES = [
    Case("unknown_top_key", "workers:", "wrokers:", 2, "wrokers", "did you mean 'workers'?"),
    Case("unknown_backend_key", "    timeout:", "    time_out:", 8, "backends.v2.time_out",
         "unknown key 'time_out' in backends.v2; did you mean 'timeout'?"),
    Case("camel_case_key", "path_prefix", "pathPrefix", 11, "routes[0].match.pathPrefix",
         "did you mean 'path_prefix'?"),
    Case("nothing_near", "limits: {memory", "limits: {zebra", 28, "limits.zebra", "known keys: request_head"),
    Case("misspelt_required_key", "    primary:", "    primry:", 13, "routes[0].primry", "did you mean 'primary'?"),
    Case("missing_primary", "    primary: v1\n", "", 10, "routes[0].primary", "is required"),
    Case("empty_primary", "primary: v1", "primary:", 13, "routes[0].primary", "is required"),
    Case("unknown_primary", "primary: v1", "primary: v11", 13, "routes[0].primary",
         "no backend called 'v11'; did you mean 'v1'?"),
    Case("unknown_candidate_backend", "backend: v2", "backend: zzz", 16,
         "routes[0].candidates[0].backend", "there are: v1, v2"),
    Case("candidate_is_primary", "backend: v2", "backend: v1", 16,
         "routes[0].candidates[0].backend", "is the primary of this route"),
    Case("upgrade_to_http_again", "    primary: v1\n", "    primary: v1\n    upgrades: [H2C]\n", 14,
         "routes[0].upgrades[0]", "'H2C' would carry requests that nobody here has checked"),
    Case("upgrade_to_http_version", "    primary: v1\n", "    primary: v1\n    upgrades: [HTTP/2.0]\n", 14,
         "routes[0].upgrades[0]", "would carry requests"),
    Case("upgrade_is_no_name", "    primary: v1\n", "    primary: v1\n    upgrades: [web socket]\n", 14,
         "routes[0].upgrades[0]", "'web socket' is not the name of a protocol"),
    Case("tunnel_idle_too_short", "memory: 64MiB", "tunnel_idle: 0s", 28, "limits.tunnel_idle", "at least 1s"),
    Case("name_with_dot", "name: iris", "name: iris.v2", 10, "routes[0].name", "'iris.v2' is no name"),
    Case("name_with_slash", "name: new", "name: a/b", 16, "routes[0].candidates[0].name", "is no name"),
    Case("name_too_long", "name: new", f"name: {'n' * 64}", 16, "routes[0].candidates[0].name", "longer than 63"),
    Case("backend_name", "  v2:\n", "  V2:\n", 6, "backends.V2", "'V2' is no name"),
    Case("reserved_name", "name: new", "name: primary", 16, "routes[0].candidates[0].name", "meaning of its own"),
    Case("duplicate_candidate", "weight: 1%}", "weight: 1%}\n      - {name: new, backend: v2}", 17,
         "routes[0].candidates[1].name", "already a candidate called 'new'"),
    Case("duplicate_route", "record:", "  - {name: iris, match: {path: /x}, primary: v1}\nrecord:", 25,
         "routes[1].name", "already a route called 'iris'"),
    Case("unreachable_route", "record:",
         "  - {name: b, match: {path: /iris/x, methods: [POST]}, primary: v1}\nrecord:", 25,
         "routes[1].match", "the route 'iris' above takes all of them"),
    Case("weights_over_100", "weight: 1%}", "weight: 60%}\n      - {name: b, backend: v2, weight: 40.01%}", 17,
         "routes[0].candidates[1].weight", "add up to 100.01%, more than 100%"),
    Case("percent_without_sign", "mirror: 50%", "mirror: 50", 16, "routes[0].candidates[0].mirror", "write 50%"),
    Case("percent_decimals", "mirror: 50%", "mirror: 0.125%", 16, "routes[0].candidates[0].mirror",
         "more than 2 decimals"),
    Case("percent_range", "mirror: 50%", "mirror: 150%", 16, "routes[0].candidates[0].mirror", "outside 0% to 100%"),
    Case("duration_without_unit", "timeout: 5s", "timeout: 5", 8, "backends.v2.timeout", "write 5ms, 5s or 5m"),
    Case("duration_range", "timeout: 5s", "timeout: 0s", 8, "backends.v2.timeout", "must be more than 0s"),
    Case("connect_timeout_too_long", "timeout: 5s", "timeout: 500ms", 6, "backends.v2.connect_timeout",
         "1s is longer than the whole call may take (`timeout: 500ms`)"),
    Case("connect_timeout_over_first_byte", "timeout: 5s", "first_byte_timeout: 500ms", 6,
         "backends.v2.connect_timeout",
         "1s is longer than the head of the answer may take (`first_byte_timeout: 500ms`)"),
    Case("first_byte_timeout_too_long", "timeout: 5s", "timeout: 5s\n    first_byte_timeout: 6s", 9,
         "backends.v2.first_byte_timeout", "6s is longer than the whole call may take (`timeout: 5s`)"),
    Case("first_byte_timeout_range", "timeout: 5s", "first_byte_timeout: 0s", 8,
         "backends.v2.first_byte_timeout", "must be more than 0s"),
    Case("idle_timeout_range", "timeout: 5s", "idle_timeout: 0s", 8, "backends.v2.idle_timeout",
         "must be more than 0s"),
    Case("stream_timeout_range", "timeout: 5s", "stream_timeout: 8d", 8, "backends.v2.stream_timeout",
         "must be at most 7d"),
    Case("size", "memory: 64MiB", "memory: 64M", 28, "limits.memory", "write 64MiB (powers of 1,024) or 64MB"),
    Case("size_range", "memory: 64MiB", "memory: 1KiB", 28, "limits.memory", "must be at least 1MiB"),
    Case("memory_below_body", "memory: 64MiB", "memory: 4MiB", 28, "limits.mirror_body",
         "8MiB is more than `memory: 4MiB`"),
    Case("mirror_response_range", "memory: 64MiB", "mirror_response: 1KiB", 28, "limits.mirror_response",
         "must be at least 64KiB"),
    Case("record_over_mirror_response", "memory: 64MiB", "mirror_response: 128KiB", 28, "limits.record_body",
         "256KiB is more than `mirror_response: 128KiB`"),
    Case("mirror_lag_range", "memory: 64MiB", "mirror_lag: 11s", 28, "limits.mirror_lag", "must be at most 10s"),
    Case("mirror_lag_unit", "memory: 64MiB", "mirror_lag: 5", 28, "limits.mirror_lag", "write 5ms, 5s or 5m"),
    Case("head_timeout", "memory: 64MiB", "head_timeout: 0s", 28, "limits.head_timeout", "must be at least 100ms"),
    Case("body_timeout", "memory: 64MiB", "body_timeout: 30", 28, "limits.body_timeout", "write 30ms, 30s or 30m"),
    Case("keep_alive", "memory: 64MiB", "keep_alive: 2d", 28, "limits.keep_alive", "must be at most 1d"),
    Case("connections", "memory: 64MiB", "connections: 0", 28, "limits.connections", "must be at least 1"),
    Case("trusted_name", "workers: 2", "trusted_proxies: [lb.example]\nworkers: 2", 2, "trusted_proxies[0]",
         "is not a network; write one such as 10.0.0.0/8"),
    Case("trusted_bits", "workers: 2", "trusted_proxies: [10.0.0.1/8]\nworkers: 2", 2, "trusted_proxies[0]",
         "write 10.0.0.0/8 for all of the network"),
    Case("trusted_not_a_list", "workers: 2", "trusted_proxies: 10.0.0.0/8\nworkers: 2", 2, "trusted_proxies",
         "must be a list"),
    Case("trusted_number", "workers: 2", "trusted_proxies: [10]\nworkers: 2", 2, "trusted_proxies[0]",
         "is not a network"),
    Case("admin_without_token", "{listen: 127.0.0.1:9090}", "{listen: 0.0.0.0:9090}", 3, "admin.token",
         "needs a token"),
    Case("short_token", "127.0.0.1:9090}", "127.0.0.1:9090, token: secret}", 3, "admin.token", "at least 8"),
    Case("listen_is_admin", "127.0.0.1:9090}", "127.0.0.1:8080}", 3, "admin.listen", "is taken by `listen"),
    Case("listen_without_host", "listen: 127.0.0.1:8080", "listen: :8080", 1, "listen", "127.0.0.1:8080 for this"),
    Case("listen_without_port", "listen: 127.0.0.1:8080", "listen: localhost", 1, "listen", "is not host:port"),
    Case("listen_port_range", "listen: 127.0.0.1:8080", "listen: 127.0.0.1:80800", 1, "listen", "outside 0 to 65535"),
    Case("listen_bare_ipv6", "listen: 127.0.0.1:8080", "listen: ::1:8080", 1, "listen", "in brackets"),
    Case("listen_wrong_ip", "listen: 127.0.0.1:8080", "listen: 127.0.0.257:80", 1, "listen", "not a host name"),
    Case("grpc", "http://127.0.0.1:9002", "grpc://127.0.0.1:9002", 7, "backends.v2.endpoints[0]",
         "grpc is not supported"),
    Case("unix_socket_relative", "http://127.0.0.1:9002", "unix:run/x.sock", 7, "backends.v2.endpoints[0]",
         "is not a socket; write unix:/path/to/socket"),
    Case("unix_socket_too_long", "http://127.0.0.1:9002", f"unix:/{'r' * 120}", 7, "backends.v2.endpoints[0]",
         "103 bytes at most"),
    Case("tls_without_https", "    timeout: 5s", "    tls: {server_name: model}", 8, "backends.v2.tls",
         "no endpoint of this backend speaks TLS"),
    Case("tls_key_alone", "[http://127.0.0.1:9002]\n", "[https://127.0.0.1:9002]\n    tls: {key: a.pem}\n", 8,
         "backends.v2.tls.key", "without the `certificate`"),
    Case("tls_unverified_ca", "[http://127.0.0.1:9002]\n",
         "[https://127.0.0.1:9002]\n    tls: {server_name: model, verify: false}\n", 8,
         "backends.v2.tls.server_name", "has no effect with `verify: false`"),
    Case("health_without_path", "    timeout: 5s", "    health: {interval: 5s}", 8, "backends.v2.health.path",
         "is required"),
    Case("health_timeout", "    timeout: 5s", "    health: {path: /ready, interval: 1s, timeout: 2s}", 8,
         "backends.v2.health.timeout", "longer than the time between two checks"),
    Case("ejection_longest", "    timeout: 5s", "    ejection: {first: 10s, longest: 5s}", 8,
         "backends.v2.ejection.longest", "5s is shorter than `first: 10s`"),
    Case("dns_refresh", "    timeout: 5s", "    dns_refresh: 100ms", 8, "backends.v2.dns_refresh",
         "must be at least 1s"),
    Case("endpoint_without_scheme", "http://127.0.0.1:9002", "127.0.0.1:9002", 7, "backends.v2.endpoints[0]",
         "write http://host:port"),
    Case("endpoint_without_port", "http://127.0.0.1:9002", "http://model", 7, "backends.v2.endpoints[0]",
         "has no port; write http://model:80"),
    Case("endpoint_with_path", "http://127.0.0.1:9002", "http://m:1/v1", 7, "backends.v2.endpoints[0]",
         "must end after the port"),
    Case("endpoint_port_range", "http://127.0.0.1:9002", "http://m:99999", 7, "backends.v2.endpoints[0]",
         "wrong host or port"),
    Case("endpoint_not_a_list", "[http://127.0.0.1:9002]", "http://127.0.0.1:9002", 7,
         "backends.v2.endpoints", "must be a list, such as [first, second]"),
    Case("no_endpoints", "[http://127.0.0.1:9002]", "[]", 7, "backends.v2.endpoints", "must not be empty"),
    Case("endpoint_twice", "[http://127.0.0.1:9002]", "[http://a:1, http://a:1]", 7,
         "backends.v2.endpoints[1]", "listed twice"),
    Case("endpoint_is_ourselves", "http://127.0.0.1:9002", "http://localhost:8080", 7,
         "backends.v2.endpoints[0]", "is Understudy itself (`listen`)"),
    Case("protocol", "protocol: json", "protocol: open_inference", 12, "routes[0].protocol",
         "did you mean 'open-inference'?"),
    Case("comparator", "comparator: numeric", "comparator: numerical", 17, "routes[0].compare.comparator",
         "is not one of exact, json, numeric, label, top_k, ranking, vector, text; did you mean 'numeric'?"),
    Case("comparator_of_yours", "comparator: numeric", "comparator: my.module", 17, "routes[0].compare.comparator",
         "no function, written module:function"),
    Case("tolerance_for_exact", "comparator: numeric", "comparator: exact", 17, "routes[0].compare.rel_tol",
         "rel_tol is for `comparator: numeric`"),
    Case("ulp", "rel_tol: 1e-3", "ulp: -1", 17, "routes[0].compare.ulp", "must be at least 0"),
    Case("k", "comparator: numeric, rel_tol: 1e-3", "comparator: top_k, k: 0", 17, "routes[0].compare.k",
         "must be at least 1"),
    Case("k_of_numeric", "rel_tol: 1e-3", "k: 3", 17, "routes[0].compare.k",
         "k is for `comparator: top_k` or `comparator: ranking`; numeric has no use for it"),
    Case("measure", "comparator: numeric, rel_tol: 1e-3", "comparator: ranking, measure: kendal", 17,
         "routes[0].compare.measure", "did you mean 'kendall'?"),
    Case("ignored_place", "comparator: numeric, rel_tol: 1e-3", 'comparator: json, ignore: ["a b"]', 17,
         "routes[0].compare.ignore[0]", "is not a path"),
    Case("unordered_place", "comparator: numeric, rel_tol: 1e-3", 'comparator: json, unordered: ["$.a"]', 17,
         "routes[0].compare.unordered[0]", "is not a path"),
    Case("inside_text", "comparator: numeric, rel_tol: 1e-3", "comparator: json, inside_text: 3", 17,
         "routes[0].compare.inside_text", "true or false"),
    Case("ignore_case", "rel_tol: 1e-3", "ignore_case: true", 17, "routes[0].compare.ignore_case",
         "ignore_case is for `comparator: text`"),
    Case("min_similarity", "comparator: numeric, rel_tol: 1e-3", "comparator: text, min_similarity: 90", 17,
         "routes[0].compare.min_similarity", "must be at most 1"),
    Case("vector_without_similarity", "comparator: numeric, rel_tol: 1e-3", "comparator: vector", 17,
         "routes[0].compare.comparator", "min_similarity: 0.99"),
    Case("jsonpath", "prediction: a.b", 'prediction: "$.a[0.b"', 17, "routes[0].compare.prediction",
         "is not a JSONPath expression"),
    Case("jmespath", "prediction: a.b", 'prediction: "a[0.b"', 17, "routes[0].compare.prediction",
         "is not a JMESPath expression"),
    Case("prediction_of_raw", "protocol: json", "protocol: raw", 17, "routes[0].compare.prediction",
         "compares whole bodies"),
    Case("split_kind", "header:x-user", "headr:x-user", 14, "routes[0].split_by", "is no split key"),
    Case("split_without_name", "header:x-user", "'header:'", 14, "routes[0].split_by", "write which one"),
    Case("split_with_name", "header:x-user", "client_ip:x", 14, "routes[0].split_by", "takes no name"),
    Case("segment_kind", "header:x-user", "header:x-user\n    segments: {tier: cookie:x}", 15,
         "routes[0].segments.tier", "is no segment"),
    Case("segment_of_secret_header", "header:x-user", "header:x-user\n    segments: {who: header:Authorization}", 15,
         "routes[0].segments.who", "is redacted (record.redact.headers)"),
    Case("segment_of_unseen_header", "header:x-user", "header:x-user\n    segments: {who: header:x-real-ip}", 15,
         "routes[0].segments.who", "is never looked at"),
    Case("segment_of_redacted_json", "header:x-user",
         "header:x-user\n    record: {redact: {json: [user.email]}}\n    segments: {who: json:user}", 16,
         "routes[0].segments.who", "is redacted (user.email)"),
    Case("split_header_name", "header:x-user", "header:x user", 14, "routes[0].split_by", "not a valid header name"),
    Case("split_forwarded", "header:x-user", "header:X-Forwarded-For", 14, "routes[0].split_by",
         "X-Forwarded-For is never looked at"),
    Case("match_forwarded", "{path_prefix", "{headers: {x-real-ip: 10.0.0.1}, path_prefix", 11,
         "routes[0].match.headers.x-real-ip", "use `split_by: client_ip` and `trusted_proxies`"),
    Case("split_json", "header:x-user", "'json:a[0.b'", 14, "routes[0].split_by", "is not a JMESPath expression"),
    Case("method_case", "[POST]", "[post]", 11, "routes[0].match.methods[0]", "write POST"),
    Case("path_without_slash", "path_prefix: /iris", "path_prefix: iris", 11, "routes[0].match.path_prefix",
         "must start with '/'"),
    Case("path_with_query", "path_prefix: /iris", "path_prefix: '/iris?x'", 11, "routes[0].match.path_prefix",
         "must not have a query"),
    Case("path_and_prefix", "{path_prefix: /iris", "{path: /a, path_prefix: /iris", 11,
         "routes[0].match.path_prefix", "not both"),
    Case("host_with_port", "{path_prefix", "{host: 'a:80', path_prefix", 11, "routes[0].match.host",
         "is not a host name"),
    Case("steps_falling", "{weight: 10%}", "{weight: 5%}", 21, "routes[0].ramp.steps[1].weight",
         "5% does not rise above the step before (5%)"),
    Case("step_zero", "{weight: 5%}", "{weight: 0%}", 20, "routes[0].ramp.steps[0].weight", "must be more than 0%"),
    Case("step_durations", "{weight: 5%}", "{weight: 5%, max_duration: 1s}", 20,
         "routes[0].ramp.steps[0].max_duration", "1s is shorter than `min_duration: 1m`"),
    Case("gate_metric", "metric: agreement", "metric: speed", 23, "routes[0].ramp.gates[0].metric",
         "is not one of agreement, availability, latency, correctness"),
    Case("gate_twice", "metric: agreement", "metric: latency, budget: 1s", 24,
         "routes[0].ramp.gates[1].metric", "already a gate on latency"),
    Case("latency_without_budget", ", budget: 50ms", "", 24, "routes[0].ramp.gates[1].metric", "needs a budget"),
    Case("budget_of_agreement", "agreement}", "agreement, budget: 1s}", 23, "routes[0].ramp.gates[0].budget",
         "only a latency gate has a budget"),
    Case("webhook_without_scheme", "budget: 50ms}", "budget: 50ms}\n      confirm: {url: c/hook}", 25,
         "routes[0].ramp.confirm.url", "must be an address such as https://host/path"),
    Case("webhook_without_url", "budget: 50ms}", "budget: 50ms}\n      notify: {timeout: 1s}", 25,
         "routes[0].ramp.notify.url", "is required"),
    Case("webhook_patience", "budget: 50ms}", "budget: 50ms}\n      notify: {url: http://c, timeout: 2m}", 25,
         "routes[0].ramp.notify.timeout", "1m"),
    Case("ramp_without_pairs", "mirror: 50%", "mirror: 0%", 16, "routes[0].candidates[0].mirror",
         "a ramp judges pairs"),
    Case("guard_method", "    primary: v1", "    primary: v1\n    mirror_only: {methods: [get]}", 14,
         "routes[0].mirror_only.methods[0]", "write GET"),
    Case("guard_path", "    primary: v1", "    primary: v1\n    mirror_only: {path_prefixes: [infer]}", 14,
         "routes[0].mirror_only.path_prefixes[0]", "must start with '/'"),
    Case("guard_key", "    primary: v1", "    primary: v1\n    mirror_only: {path_prefix: [/a]}", 14,
         "routes[0].mirror_only.path_prefix", "did you mean 'path_prefixes'?"),
    Case("breaker_negative", "weight: 1%}", "weight: 1%, breaker: {failures: -1}}", 16,
         "routes[0].candidates[0].breaker.failures", "must be at least 0"),
    Case("breaker_no_probe", "weight: 1%}", "weight: 1%, breaker: {probes: 0}}", 16,
         "routes[0].candidates[0].breaker.probes", "must be at least 1"),
    Case("breaker_times", "weight: 1%}", "weight: 1%, breaker: {open_for: 2m}}", 16,
         "routes[0].candidates[0].breaker.max_open_for", "1m is shorter than `open_for: 2m`"),
    Case("canary_guard_key", "weight: 1%}", "weight: 1%, guard: {errors: 3}}", 16,
         "routes[0].candidates[0].guard.errors", "known keys: failures, within, share, latency"),
    Case("canary_guard_share", "weight: 1%}", "weight: 1%, guard: {share: 0%}}", 16,
         "routes[0].candidates[0].guard.share", "must be more than 0"),
    Case("canary_guard_within", "weight: 1%}", "weight: 1%, guard: {within: 0s}}", 16,
         "routes[0].candidates[0].guard.within", "must be more than 0"),
    Case("canary_guard_latency", "weight: 1%}", "weight: 1%, guard: {latency: 5s}}", 16,
         "routes[0].candidates[0].guard.latency", "5s is not below what v2 is allowed (`timeout: 5s`)"),
    Case("mirror_rate", "weight: 1%}", "weight: 1%, mirror_rate: -1}", 16,
         "routes[0].candidates[0].mirror_rate", "must be at least 0"),
    Case("copy_timeout", "weight: 1%}", "weight: 1%, timeout: 0s}", 16,
         "routes[0].candidates[0].timeout", "must be more than 0s"),
    Case("set_framing", "weight: 1%}", "weight: 1%, set_headers: {Content_Length: '1'}}", 16,
         "routes[0].candidates[0].set_headers.Content_Length", "written by Understudy itself"),
    Case("set_private", "weight: 1%}", "weight: 1%, set_headers: {x-understudy-mirror: '0'}}", 16,
         "routes[0].candidates[0].set_headers.x-understudy-mirror", "written by Understudy itself"),
    Case("set_line_break", "weight: 1%}", 'weight: 1%, set_headers: {a: "x\\r\\ny: z"}}', 16,
         "routes[0].candidates[0].set_headers.a", "no line breaks"),
    Case("set_host", "weight: 1%}", "weight: 1%, set_headers: {host: 'http://x'}}", 16,
         "routes[0].candidates[0].set_headers.host", "no host name with an optional port"),
    Case("set_twice", "weight: 1%}", "weight: 1%, set_headers: {X-A: a, x-a: b}}", 16,
         "routes[0].candidates[0].set_headers", "x-a is set twice"),
    Case("remove_host", "weight: 1%}", "weight: 1%, remove_headers: [Host]}", 16,
         "routes[0].candidates[0].remove_headers[0]", "a request needs its host"),
    Case("model_of_raw", "record:", "  - {name: b, protocol: raw, match: {path: /x}, primary: v1, "
         "candidates: [{name: n, backend: v2, model: m}]}\nrecord:", 25,
         "routes[1].candidates[0].model", "does not know where a request names its model"),
    Case("model_spaces", "weight: 1%}", "weight: 1%, model: ' x'}", 16,
         "routes[0].candidates[0].model", "no model's name"),
    Case("margin", "agreement}", "agreement, margin: 1}", 23, "routes[0].ramp.gates[0].margin",
         "must be less than 1"),
    Case("margin_nan", "agreement}", "agreement, margin: .nan}", 23, "routes[0].ramp.gates[0].margin",
         "must be a finite number"),
    Case("kafka_bootstrap", '"127.0.0.1:9092"', "broker", 27, "record.kafka.bootstrap_servers[0]",
         "write host:port"),
    Case("kafka_bootstrap_url", '"127.0.0.1:9092"', '"kafka://b:9092"', 27,
         "record.kafka.bootstrap_servers[0]", "write host:port"),
    Case("kafka_option", "limits:", "    options: {sasl_mechanism: PLAIN}\nlimits:", 28,
         "record.kafka.options.sasl_mechanism", "did you mean 'sasl.mechanism'?"),
    Case("replicas_alone", """record:
  kafka:
    bootstrap_servers: ["127.0.0.1:9092"]
""", "replicas: {group: shop}\n", 25, "replicas", "set `record.kafka`"),
    Case("replicas_group", "limits:", "replicas: {group: a/b}\nlimits:", 28, "replicas.group", "a/b"),
    Case("replicas_takeover", "limits:", "replicas: {takeover: 0s}\nlimits:", 28,
         "replicas.takeover", "500ms"),
    Case("kafka_option_value", "limits:", "    options: {security.protocol: TLS}\nlimits:", 28,
         "record.kafka.options.security.protocol", "is not one of PLAINTEXT, SSL"),
    Case("redact_path", "limits:", "  redact: {json: ['$.a..b']}\nlimits:", 28, "record.redact.json[0]",
         "is not a path; write keys as a.b"),
    Case("redact_rule_path", "limits:", "  redact: {json: [{path: 'a..b', action: mask}]}\nlimits:", 28,
         "record.redact.json[0].path", "is not a path; write keys as a.b"),
    Case("redact_rule_action", "limits:", "  redact: {json: [{path: a, action: hide}]}\nlimits:", 28,
         "record.redact.json[0].action", "'hide' is not one of drop, mask, hash"),
    Case("redact_rule_without_path", "limits:", "  redact: {json: [{action: mask}]}\nlimits:", 28,
         "record.redact.json[0].path", "is required"),
    Case("redact_rule_unknown_key", "limits:", "  redact: {json: [{pat: a}]}\nlimits:", 28,
         "record.redact.json[0].pat", "did you mean 'path'?"),
    Case("redact_hash_without_key", "limits:", "  redact: {json: [{path: a, action: hash}]}\nlimits:", 28,
         "record.redact.json[0].action", "hash needs `record.redact.key`"),
    Case("redact_key_too_short", "limits:", "  redact: {key: hunter2}\nlimits:", 28, "record.redact.key",
         "at least 16 bytes"),
    Case("redact_key_number", "limits:", "  redact: {key: 1234567}\nlimits:", 28, "record.redact.key",
         "must be text; put it in quotes"),
    Case("redact_recorded_header", "limits:", "  redact: {headers: [X-Request-Id]}\nlimits:", 28,
         "record.redact.headers[0]", "is a field of every record (request_id)"),
    Case("hash_key_too_short", "limits:", "  hash_key: hunter2\nlimits:", 28, "record.hash_key",
         "at least 16 bytes"),
    Case("route_bodies", "    protocol: json", "    protocol: json\n    record: {bodies: some}", 13,
         "routes[0].record.bodies", "is not one of responses"),
    Case("route_hash_without_key", "    protocol: json",
         "    protocol: json\n    record: {redact: {json: [{path: a, action: hash}]}}", 13,
         "routes[0].record.redact.json[0].action", "hash needs `record.redact.key`"),
    Case("bodies", "limits:", "  bodies: all\nlimits:", 28, "record.bodies", "is not one of responses"),
    Case("workers_text", "workers: 2", "workers: many", 2, "workers", "must be a whole number, not 'many'"),
    Case("workers_bool", "workers: 2", "workers: true", 2, "workers", "must be a number, not true"),
    Case("workers_zero", "workers: 2", "workers: 0", 2, "workers", "must be at least 1"),
    Case("recorders", "workers: 2", "recorders: 3\nworkers: 2", 1 + 1, "recorders", "at most one per worker"),
    Case("routes_mapping", "  - name: iris\n", "    name: iris\n", 9, "routes", "must be a list"),
    Case("backends_empty", "limits:", "routes: []\nlimits:", 28, "routes", "twice, first in line 9"),
    Case("number_as_name", "name: iris", "name: 7", 10, "routes[0].name", "must be text; put it in quotes, not 7"),
    Case("missing_variable", "127.0.0.1:9090}", "127.0.0.1:9090, token: '${NO_SUCH}'}", 3, "admin.token",
         "environment variable NO_SUCH is not set"),
    Case("duplicate_key", "workers: 2", "workers: 2\nlisten: 127.0.0.1:1", 3, "listen", "twice, first in line 1"),
    Case("tab", "  v1: {", "\tv1: {", 5, "", "here is a tab"),
    Case("yaml_syntax", "[POST]}", "[POST}", 11, "", "not valid YAML"),
    Case("journal_drop", "limits:", "journal: {drop: all}\nlimits:", 28, "journal.drop",
         "is not one of oldest, newest"),
    Case("journal_fsync", "limits:", "journal: {fsync: always}\nlimits:", 28, "journal.fsync",
         "is not one of none, interval, flush"),
    Case("journal_segment", "limits:", "journal: {segment: 1KiB}\nlimits:", 28, "journal.segment", "at least 64KiB"),
    Case("journal_segment_age", "limits:", "journal: {segment_age: 10}\nlimits:", 28, "journal.segment_age", "write 10ms, 10s or 10m"),
    Case("journal_interval", "limits:", "journal: {fsync: interval, fsync_interval: 0s}\nlimits:", 28,
         "journal.fsync_interval", "at least 50ms"),
    Case("access_without_unit", "limits:", "log: {access: 5}\nlimits:", 28, "log.access", "write 5%"),
    Case("slow_is_zero", "limits:", "log: {slow: 0s}\nlimits:", 28, "log.slow", "must be more than 0s"),
    Case("unknown_log_key", "limits:", "log: {acces: 5%}\nlimits:", 28, "log.acces", "did you mean 'access'?"),
    Case("otlp_without_scheme", "limits:", "telemetry: {otlp: {endpoint: c:4318}}\nlimits:", 28,
         "telemetry.otlp.endpoint", "must be the address of a collector"),
    Case("otlp_without_endpoint", "limits:", "telemetry: {otlp: {sample: 1%}}\nlimits:", 28,
         "telemetry.otlp.endpoint", "is required"),
    Case("otlp_sample_over_all", "limits:", "telemetry: {otlp: {endpoint: http://c, sample: 101%}}\nlimits:", 28,
         "telemetry.otlp.sample", "outside 0% to 100%"),
    Case("otlp_header_name", "limits:", "telemetry: {otlp: {endpoint: http://c, headers: {a b: c}}}\nlimits:", 28,
         "telemetry.otlp.headers.a b", "not a valid header name"),
    Case("yaml_indent", "    protocol", "   protocol", 12, "", "check that this line is indented"),
]  # fmt: skip


def _faults(path: Path) -> list[tuple[str, int, str, str]]:
    with pytest.raises(ConfigError) as caught:
        load_config(path, {})
    return [(fault.file, fault.line, fault.key, fault.message) for fault in caught.value.faults]


def test_the_unbroken_config_is_good(tmp_path: Path) -> None:
    """Otherwise the cases below would prove nothing."""
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert load_config(path, {}).routes[0].name == "iris"


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_each_broken_config_gets_its_own_clear_message(case: Case, tmp_path: Path) -> None:
    """One mistake, one fault: with the file, the line, the dotted key and what to do."""
    assert case.old in GOOD
    path = tmp_path / "broken.yaml"
    path.write_text(GOOD.replace(case.old, case.new, 1))
    faults = _faults(path)
    assert [fault[:3] for fault in faults] == [(str(path), case.line, case.key)], faults
    assert case.telling in faults[0][3]


def test_no_two_broken_configs_get_the_same_message(tmp_path: Path) -> None:
    """A message that fits two mistakes is not clear."""
    path = tmp_path / "broken.yaml"
    messages = set()
    for case in CASES:
        path.write_text(GOOD.replace(case.old, case.new, 1))
        messages.add(tuple(_faults(path)))
    assert len(messages) == len(CASES)


@pytest.mark.parametrize(
    ("data", "line", "telling"),
    [
        (b"", 0, "the file is empty"),
        (b"# only a comment\n", 0, "the file is empty"),
        (b"a: 1\nname: caf\xe9\n", 2, "the byte 0xe9 is not UTF-8"),
        (b"- a\n- b\n", 1, "must be a mapping"),
        (b"just text", 1, "must be a mapping"),
        (b"# " + b"x" * 2**20, 0, "is larger than 1,024 KiB"),
    ],
    ids=["empty", "comment", "latin-1", "list", "text", "huge"],
)
def test_files_that_are_no_config(tmp_path: Path, data: bytes, line: int, telling: str) -> None:
    """Whatever was saved, there is one sentence about the file as a whole."""
    path = tmp_path / "broken.yaml"
    path.write_bytes(data)
    ((file, found, key, message),) = _faults(path)
    assert (file, found, key) == (str(path), line, "")
    assert telling in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a folder are told apart."""
    assert "there is no such file" in _faults(tmp_path / "none.yaml")[0][3]
    assert "cannot be read: Is a directory" in _faults(tmp_path)[0][3]


def test_all_faults_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    """Wrong values do not hide what does not fit together elsewhere."""
    path = tmp_path / "broken.yaml"
    text = GOOD.replace("timeout: 5s", "timeout: 5").replace("primary: v1", "primary: v9")
    path.write_text(text.replace("{weight: 10%}", "{weight: 1%}").replace("workers", "wrokers"))
    assert [(line, key) for _, line, key, _ in _faults(path)] == [
        (2, "wrokers"),
        (8, "backends.v2.timeout"),
        (13, "routes[0].primary"),
        (21, "routes[0].ramp.steps[1].weight"),
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("127.0.0.1:9090}", "127.0.0.1:9090, token: 'hunter2 hunter2'}"),
        ("127.0.0.1:9090}", "127.0.0.1:9090, token: [hunter2]}"),
        ("http://127.0.0.1:9002", "http://me:hunter2@127.0.0.1:9002"),
        ("limits:", "    options: {sasl.password: {hunter2: 1}}\nlimits:"),
        ("limits:", "    options: [hunter2]\nlimits:"),
        ("limits:", "telemetry: {otlp: {endpoint: http://me:hunter2@c}}\nlimits:"),
        ("budget: 50ms}", "budget: 50ms}\n      confirm: {url: http://me:hunter2@c}"),
        ("limits:", "telemetry: {otlp: {endpoint: http://c, headers: {a: [hunter2]}}}\nlimits:"),
        ("limits:", 'telemetry: {otlp: {endpoint: http://c, headers: {a: " hunter2"}}}\nlimits:'),
        ("weight: 1%}", 'weight: 1%, set_headers: {authorization: "hunter2\\n"}}'),
        ("weight: 1%}", "weight: 1%, set_headers: {authorization: [hunter2]}}"),
        ("weight: 1%}", "weight: 1%, set_headers: {host: 'hunter2!'}}"),
        ("weight: 1%}", "weight: 1%, set_headers: hunter2}"),
        ("limits:", "  redact: {key: hunter2}\nlimits:"),
        ("limits:", "  redact: {key: [hunter2]}\nlimits:"),
        ("limits:", "  hash_key: hunter2\nlimits:"),
        ("limits:", "  hash_key: {hunter2: 1}\nlimits:"),
    ],
)
def test_secrets_are_never_repeated(tmp_path: Path, old: str, new: str) -> None:
    """Faults end up in terminals, logs and CI."""
    path = tmp_path / "broken.yaml"
    path.write_text(GOOD.replace(old, new, 1))
    assert "hunter2" not in str(_faults(path))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, each in inner:
        yield from _places(each, (*path, key))


@given(data=st.data())
def test_any_value_in_any_place_gives_a_config_or_faults(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Never a traceback, whatever stands where."""
    tree = parse(GOOD, {}).value
    *parents, last = data.draw(st.sampled_from([path for path in _places(tree) if path]))
    place = tree
    for key in parents:
        place = place[key]
    place[last] = data.draw(_VALUES)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), "utf-8")
    with contextlib.suppress(ConfigError):
        config = load_config(path, {})
        assert loads(dumps(config)) == config
