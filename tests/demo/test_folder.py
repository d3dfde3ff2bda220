"""The demo's folder: made, replaced, never at the cost of other files."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.load import load_config
from proxy.demo.folder import MIN_DURATION_S, MIN_PAIRS, Folder
from proxy.errors import UnderstudyError

URLS = {f"digits-v{n}": f"http://127.0.0.1:{9000 + n}" for n in (1, 2, 3)}


def test_the_config_in_it_is_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read in the folder, as the proxy does; and it names the three servers."""
    folder = Folder(tmp_path / "demo")
    folder.write_config(URLS, (1, 10, 100))
    monkeypatch.chdir(folder.path)
    config = load_config(folder.config)
    assert config.state_dir == str(folder.state)
    assert [c.mirror_bp for c in config.routes[0].candidates] == [10_000, 5_000]
    ramp = config.routes[0].ramp
    assert ramp is not None
    assert [step.weight_bp for step in ramp.steps] == [100, 1_000, 10_000]
    assert {(step.min_pairs, step.min_duration_s) for step in ramp.steps} == {
        (MIN_PAIRS, MIN_DURATION_S)
    }
    assert str(config.backends["digits-v2"].endpoints[0]) == "http://127.0.0.1:9002"
    folder.close()


def test_an_earlier_demo_is_replaced(tmp_path: Path) -> None:
    """Its records would be mistaken for the new ones."""
    folder = Folder(tmp_path / "demo")
    (folder.state / "old").write_text("old")
    folder.close()
    Folder(tmp_path / "demo").close()
    assert not (folder.state / "old").exists()


def test_a_folder_of_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Nobody's `state` is deleted."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "precious").write_text("x")
    with pytest.raises(UnderstudyError, match="give another --dir"):
        Folder(tmp_path)
    assert (tmp_path / "state" / "precious").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    """A kept demo is not pulled away by the next one."""
    folder = Folder(tmp_path / "demo")
    with pytest.raises(UnderstudyError, match="another demo runs"):
        Folder(tmp_path / "demo")
    assert folder.state.is_dir()
    folder.close()


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    """With its name."""
    (tmp_path / "file").write_text("")
    with pytest.raises(UnderstudyError, match=r"cannot use .*file"):
        Folder(tmp_path / "file" / "demo")
