"""`retinue init`: a project folder that runs as it is, copied from `ingress/templates`. Knows no runtime."""

from __future__ import annotations

import os
from pathlib import Path

import click

from retinue.ingress.exits import Exit
from retinue.ingress.terminal import Terminal
from retinue.ingress.verb import verb
from retinue.runs.errors import InvalidInput

TEMPLATES = Path(__file__).resolve().parent.parent / "templates"

NEXT = """\
{folder} is ready. Next:
  cd {folder}
  retinue run librarian "How long may power tools be kept?" --local
  retinue batch librarian --input questions.jsonl --output answers.jsonl
  retinue run keep_note "Who may use the table saw?"      # asks you before it writes
  retinue sql "select * from runs"
  retinue doctor"""


@verb("init")
@click.argument("folder", type=click.Path(path_type=Path))
async def init_command(terminal: Terminal, folder: Path) -> Exit:
    """Make the project FOLDER: retinue.yaml, an agent with a prompt, a read tool over documents/, a write tool
    behind an approval, its policy, and questions to ask. Refuses a folder that holds anything."""
    written = make_project(folder)
    terminal.give({"folder": str(folder), "files": written}, NEXT.format(folder=folder))
    return Exit.done


def make_project(folder: Path) -> list[str]:
    """Copy the templates; returns the files written, sorted. InvalidInput when the folder cannot be used."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InvalidInput(f"{folder} exists and is not an empty folder: name a new one")
        written = []
        for source, name in sorted(template_files().items()):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
            written.append(name)
        return sorted(written)
    except OSError as error:
        place = error.filename or folder
        raise InvalidInput(f"{place} cannot be written: {error.strerror}; name another folder") from None


def template_files() -> dict[Path, str]:
    """Template to the name it gets: without the ending that keeps tools from taking it for code."""
    found = {}
    for parent, _, files in os.walk(TEMPLATES):
        for name in files:
            relative = (Path(parent) / name).relative_to(TEMPLATES).as_posix()
            target = ".gitignore" if relative == "gitignore.txt" else relative.removesuffix(".txt")
            found[Path(parent) / name] = target
    return found
