"""Secrets by reference: `${NAME}` for a variable of the host's environment, and what looks like a secret itself.

Pure. Owns the form of a reference and the guess; who resolves one, and when, is for those who use it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
"""A name of an environment variable."""

KNOWN = re.compile(r"\b(sk-|pk-|gh[opsu]_|github_pat_|xox[abpr]-|AKIA|glpat-|eyJ[A-Za-z0-9_-]{8,}\.)\w")
"""How secrets of well-known services begin."""

_WORD = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|AUTHORIZATION|COOKIE)S?$")


def names_in(texts: Iterable[str]) -> list[str]:
    """The variables that texts refer to, sorted."""
    return sorted({name for text in texts for name in REFERENCE.findall(text)})


def missing_in(texts: Iterable[str], environ: Mapping[str, str]) -> list[str]:
    """Those that the environment does not have, or has empty."""
    return [name for name in names_in(texts) if not environ.get(name)]


def resolved(text: str, environ: Mapping[str, str]) -> str:
    """The text with the values. KeyError for a variable that is not there: ask `missing_in` before."""
    return REFERENCE.sub(lambda found: environ[found[1]], text)


def secret_name(name: str) -> bool:
    """Whether a variable, header or option of this name holds a secret, as far as names tell."""
    return any(_WORD.search(word.upper()) for word in re.split(r"[-_.]", name))


def refuse_secret(where: str, name: str, value: str) -> None:
    """ValueError for a value that looks like a secret where a reference to one belongs."""
    counts = name.upper().endswith("TOKENS") and value.isdigit()
    by_name = secret_name(name) and value and not counts and not REFERENCE.search(value)
    if by_name or KNOWN.search(REFERENCE.sub("", value)):
        raise ValueError(f"{where} looks like a secret: name a variable of the environment instead, such as ${{NAME}}")
