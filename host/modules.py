"""A project's modules: imported from its own folder, and what they raise told in terms of the user's code.

Knows neither agents nor settings. The user's code runs here: whatever it raises is a ConfigError.
"""

from __future__ import annotations

import sys
import traceback
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType

from retinue.runs.errors import ConfigError, InvalidInput

_WHOLE = "RETINUE_DEBUG=1 shows the whole trace"
_brought: dict[str, set[str]] = {}
"""What this process has imported of the folder that it put in front of `sys.path`, and of no other."""


def load_module(folder: Path, name: str) -> ModuleType:
    """The module `name`, of the folder before all other places. Folders of earlier projects are no places any more.

    Raises ConfigError with the module, the exception, the file and line of the user's code, and the remedy.
    """
    place = str(folder)
    _leave_others(place)
    if place in sys.path:
        sys.path.remove(place)
    else:
        _brought[place] = set()
    sys.path.insert(0, place)
    _forget_namesake(name.partition(".")[0], place)
    known = set(sys.modules)
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(
                f"retinue.yaml: modules: there is no module {name!r} in {folder} or installed: correct the name"
            ) from None
        raise _refused(folder, name, error, "install it or correct the import") from error
    except (Exception, SystemExit) as error:
        raise _refused(folder, name, error, "mend it or take the module out of `modules:`") from error
    finally:
        if place in _brought:
            _brought[place] |= {each for each in set(sys.modules) - known if _is_of(sys.modules[each], folder)}


def _leave_others(place: str) -> None:
    """What another project of this process has imported is not there for this one: it may lack a module of that name,
    and has to be told so. Functions that the other one holds go on."""
    for other in [each for each in _brought if each != place]:
        if other in sys.path:
            sys.path.remove(other)
        for name in _brought.pop(other):
            sys.modules.pop(name, None)


def _is_of(module: ModuleType, folder: Path) -> bool:
    origin = getattr(module, "__file__", None)
    return isinstance(origin, str) and _is_own(Path(origin), folder)


def _forget_namesake(name: str, folder: str) -> None:
    """Another project of this process may have a module of the same name: this project gets its own."""
    loaded = sys.modules.get(name)
    found = PathFinder.find_spec(name, [folder])
    if loaded is None or found is None or getattr(loaded, "__file__", None) == found.origin:
        return
    for known in [known for known in sys.modules if known == name or known.startswith(f"{name}.")]:
        del sys.modules[known]


def _refused(folder: Path, name: str, error: BaseException, remedy: str) -> ConfigError:
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    if not isinstance(error, InvalidInput):  # which says itself what is wrong and what to do
        said = f"{type(error).__name__}: {said}" if said else type(error).__name__
    where = _place(folder, name, error)
    return ConfigError(f"retinue.yaml: modules: {name!r} cannot be imported: {where}: {said}; {remedy}; {_WHOLE}")


def _place(folder: Path, name: str, error: BaseException) -> str:
    """The innermost line of the project's code, or of the module's where it is installed elsewhere."""
    found = PathFinder.find_spec(name.partition(".")[0])
    origin = Path(found.origin) if found is not None and found.origin is not None else folder / name
    home = origin.parent if origin.name == "__init__.py" else origin
    steps = [(Path(frame.f_code.co_filename), line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename is not None:
        steps.append((Path(error.filename), error.lineno or 0))
    own = [step for step in steps if _is_own(step[0], folder) or step[0].is_relative_to(home)]
    path, line = own[-1] if own else (origin, 0)
    shown = path.relative_to(folder) if path.is_relative_to(folder) else path
    return f"{shown} line {line}" if line else str(shown)


def _is_own(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and "site-packages" not in path.parts
