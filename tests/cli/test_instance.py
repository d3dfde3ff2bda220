"""How commands find the running instance, and what they say when it is not one."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from proxy.cli.admin_api import UnreachableError, call
from proxy.cli.instance import Instance, find_instance, with_token
from proxy.cli.state_dirs import is_running
from proxy.errors import AdminError
from proxy.state.instance_config import config_of
from tests.support.counting_backend import counting_backend
from tests.support.resolved_config import small_config, write_config

CONFIG = """
admin: {{listen: "127.0.0.1:9191"}}
state_dir: {state_dir}
backends: {{a: {{endpoints: ["http://127.0.0.1:9"]}}}}
routes: [{{name: iris, primary: a}}]
"""


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder and environment."""
    monkeypatch.chdir(tmp_path)
    for name in ("UNDERSTUDY_ADMIN", "UNDERSTUDY_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def _leave_runtime(state_dir: Path, pid: int) -> None:
    state_dir.mkdir(exist_ok=True)
    runtime = {"pid": pid, "admin": "127.0.0.1:4711", "config_version": "none"}
    (state_dir / "runtime.json").write_text(json.dumps(runtime))


def test_an_option_beats_the_environment_which_beats_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest word counts."""
    _leave_runtime(tmp_path / "state", os.getpid())
    assert find_instance("", None).admin_url == "http://127.0.0.1:4711"
    monkeypatch.setenv("UNDERSTUDY_ADMIN", "http://env:1")
    assert find_instance("", None).admin_url == "http://env:1"
    assert find_instance("option:2", None).admin_url == "http://option:2"
    assert find_instance("", tmp_path / "state").admin_url == "http://127.0.0.1:4711"


def test_the_config_here_says_where_the_instance_is(tmp_path: Path) -> None:
    """With its state_dir; the ports from its runtime.json, else from the config."""
    (tmp_path / "understudy.yaml").write_text(CONFIG.format(state_dir=tmp_path / "elsewhere"))
    found = find_instance("", None)
    assert found.admin_url == "http://127.0.0.1:9191"
    assert found.state_dir == tmp_path / "elsewhere"
    _leave_runtime(tmp_path / "elsewhere", os.getpid())
    assert find_instance("", None).admin_url == "http://127.0.0.1:4711"


def test_a_running_instance_near_by_is_found_without_the_config(tmp_path: Path) -> None:
    """A config that is broken while it is edited must not stand in the way of a kill."""
    (tmp_path / "understudy.yaml").write_text("routes: [")
    with pytest.raises(AdminError, match="broken"):
        find_instance("", None)
    _leave_runtime(tmp_path / "state", os.getpid())
    assert find_instance("", None).state_dir == Path("state")


def test_the_folder_of_a_dead_instance_is_not_taken_for_a_running_one(tmp_path: Path) -> None:
    """Its launcher was killed and left its runtime.json."""
    _leave_runtime(tmp_path / "state", 2**22 + 1)  # above any process id
    with pytest.raises(AdminError, match="no running instance found"):
        find_instance("", None)


def test_the_token_comes_from_the_environment_or_the_config_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No file of the state directory holds it; another instance's config does not count."""
    state_dir = tmp_path / "state"
    config = small_config(state_dir)
    write_config(config)
    text = (
        "admin: {token: from-config}\nbackends: {a: {endpoints: ['http://127.0.0.1:1']}}\n"
        "routes: [{name: all, primary: a}]\n"
    )
    for path, expected in (("elsewhere", ""), ("state", "from-config")):
        Path("understudy.yaml").write_text(f"state_dir: {path}\n{text}")
        assert with_token(find_instance("", state_dir)).token == expected
    assert config_of(state_dir) == config
    monkeypatch.setenv("UNDERSTUDY_TOKEN", "from-env")
    assert with_token(find_instance("", state_dir)).token == "from-env"
    Path("understudy.yaml").write_text("admin: [")
    monkeypatch.delenv("UNDERSTUDY_TOKEN")
    assert with_token(find_instance("", state_dir)).token == ""
    assert config_of(tmp_path) is None


@pytest.mark.parametrize("url", ["http://", "ftp://host:1", "http://host:99999"])
def test_an_admin_url_must_be_one(url: str) -> None:
    """With an example."""
    with pytest.raises(AdminError, match="is no admin URL"):
        find_instance(url, None)


def test_something_else_on_the_admin_port_is_recognised() -> None:
    """It answers, but is no Understudy; nobody there is *unreachable*."""
    with counting_backend("other") as other:
        found = find_instance(other.url, None)
        with pytest.raises(AdminError, match="is no Understudy admin API"):
            call(found, "DELETE", "/api/v1/status")
    with pytest.raises(UnreachableError, match="cannot reach"):
        call(found, "GET", "/api/v1/status")
    with pytest.raises(UnreachableError, match="no instance runs here"):
        call(Instance("", "", Path.cwd()), "GET", "/api/v1/status")


def test_a_folder_is_a_state_directory_only_if_it_looks_like_one(tmp_path: Path) -> None:
    """An order for any other one would reach nobody, and must not look like a success."""
    (tmp_path / "logs").mkdir()
    with pytest.raises(AdminError, match="is no state directory, so nothing was done"):
        find_instance("", tmp_path)
    _leave_runtime(tmp_path / "state", os.getpid())
    with pytest.raises(AdminError, match=f"did you mean {tmp_path / 'state'}"):
        find_instance("", tmp_path)
    for mark in ("control.page", "config"):
        folder = tmp_path / f"with-{mark}"
        (folder / mark).mkdir(parents=True)
        assert find_instance("", folder).is_named
        assert not is_running(folder)
