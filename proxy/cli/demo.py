"""`understudy demo`: the whole product in under a minute, on real models, on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import webbrowser
from contextlib import closing, suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from proxy.analysis.reports.build import page_of
from proxy.analysis.reports.terminal import render
from proxy.analysis.summary import as_dict
from proxy.cli import options
from proxy.errors import UnderstudyError
from proxy.telemetry import monotonic_s

try:
    from proxy.demo.checks import checks
    from proxy.demo.ending import as_json as demo_json, next_commands, play_commands
    from proxy.demo.folder import Folder
    from proxy.demo.phases import Plan
    from proxy.demo.stage import Stage
    from proxy.demo.story import Story
except ModuleNotFoundError as exc:
    if (exc.name or "").partition(".")[0] not in ("joblib", "sklearn", "threadpoolctl"):
        raise
    raise UnderstudyError(
        "the demo needs scikit-learn: pip install '.[demo]' in a clone of Understudy"
    ) from exc

FULL = Plan(rate=250.0, seconds=(1.5, 2.0, 1.0), weights=(1, 10, 50, 100))
FAST = Plan(rate=250.0, seconds=(1.0, 1.5, 1.0), weights=(10, 100))
_INTERRUPTED = 130


def demo(
    *,
    fast: Annotated[
        bool, typer.Option("--fast", help="A ramp of two steps instead of four, and less traffic.")
    ] = False,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Do not open the dashboard.")
    ] = False,
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave all running until Ctrl-C, to play with.")
    ] = False,
    directory: Annotated[
        Path, typer.Option("--dir", help="Where records and logs go.", metavar="FOLDER")
    ] = Path("understudy-demo"),
    as_json: options.AsJson = False,
) -> None:
    """Show the whole product on this machine, in under a minute, with real models and traffic.

    Two candidates ask for users: one is halted by evidence, the other goes to 100%, is killed,
    revived, and rolled back by itself when its server dies. Every answer is checked.
    Exit code 1 when anything went wrong.
    """
    plan = FAST if fast else FULL
    # One way out for all of them, so that nothing is left running; a shell's `&` ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
    console = Console(stderr=as_json)
    try:
        with closing(Folder(directory)) as folder, Story(folder, Stage(console)) as story:
            is_right = _tell(story, console, plan, is_kept=keep, as_json=as_json)
            if keep:
                is_right &= _keep(story, console, opens_browser=not no_browser)
    except KeyboardInterrupt:
        console.print("[yellow]interrupted[/yellow]; everything is stopped")
        raise typer.Exit(_INTERRUPTED) from None
    raise typer.Exit(not is_right)


def _tell(story: Story, console: Console, plan: Plan, *, is_kept: bool, as_json: bool) -> bool:
    """Run the demo and print what it found; return whether all was right."""
    started_s = monotonic_s()
    stage = Stage(console)
    story.train()
    asyncio.run(_run(story, plan))
    if not is_kept:
        story.stop()
    summary = story.compare()
    found = checks(story.measured)
    stage.title("The comparison, from the records until the crash")
    render(page_of(as_dict(summary)), console, sections=1)
    stage.title("The labels, which the proxy never saw")
    for sentence in story.who_is_right():
        stage.say(sentence)
    stage.title("What must hold")
    stage.checks(found)
    is_right = all(check.is_passed for check in found)
    seconds = monotonic_s() - started_s
    word = "[green]all is right[/green]" if is_right else "[bold red]something is wrong[/bold red]"
    stage.title(f"{word}, {seconds:.0f} s. Records: {story.folder.state / 'pairs'}")
    _list(console, next_commands(story.folder.path, story.measured.crashed_ms))
    if as_json:
        sys.stdout.buffer.write(demo_json(story, found, summary, seconds))
        sys.stdout.buffer.flush()
    return is_right


async def _run(story: Story, plan: Plan) -> None:
    await story.start(plan)
    await story.perform(plan)


def _keep(story: Story, console: Console, *, opens_browser: bool) -> bool:
    """Wait for Ctrl-C, with a little traffic and all servers; return whether the stop was clean."""
    story.repair()
    admin_url = story.running.admin_url
    stage = Stage(console)
    stage.title("Still running")
    stage.say(f"proxy      {story.running.url}")
    stage.say(f"dashboard  {admin_url}")
    _list(console, play_commands(story))
    console.print("\nCtrl-C ends it.")
    if opens_browser and console.is_terminal and _has_display():
        webbrowser.open(admin_url)
    with suppress(KeyboardInterrupt):
        asyncio.run(story.play())
    story.stop()
    return story.measured.exit_code == 0


def _has_display() -> bool:
    is_drawn = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform == "darwin" or bool(is_drawn)


def _list(console: Console, commands: list[tuple[str, str]]) -> None:
    for command, meaning in commands:
        console.print(f"  [dim]# {meaning}[/dim]", highlight=False)
        console.print(f"  {command}", highlight=False, soft_wrap=True, markup=False)
