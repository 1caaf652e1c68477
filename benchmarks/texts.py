"""Real English texts that every machine with Python has: paragraphs of the standard library's documentation.

The choice is by hash within bands of length, so that a paragraph added or reworded in another Python version changes
only itself: about 85 % of the texts are the same on Python 3.10 and 3.13, and 92 % or more on neighbouring versions.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import warnings
from collections.abc import Iterator
from typing import Any

# Only modules that exist and can be imported without side effects on every supported version.
MODULES = """
abc argparse array ast asyncio base64 bisect bz2 calendar cmath cmd code codecs collections collections.abc colorsys
compileall concurrent.futures configparser contextlib contextvars copy csv ctypes datetime decimal difflib dis doctest
email email.message email.policy email.headerregistry enum fileinput fnmatch fractions ftplib functools gc getopt
getpass gettext glob graphlib gzip hashlib heapq hmac html html.parser http.client http.cookies http.server imaplib
importlib importlib.abc importlib.machinery importlib.resources importlib.util inspect io ipaddress itertools json
json.decoder json.encoder keyword linecache locale logging logging.config logging.handlers lzma mailbox math mimetypes
mmap modulefinder multiprocessing multiprocessing.managers multiprocessing.pool multiprocessing.shared_memory netrc
numbers operator optparse os pathlib pdb pickle pickletools pkgutil platform plistlib poplib posixpath pprint profile
pstats pyclbr queue quopri random re reprlib resource runpy sched secrets select selectors shelve shlex shutil signal
site smtplib socket socketserver sqlite3 ssl stat statistics string stringprep struct subprocess symtable sysconfig
tarfile tempfile textwrap threading time timeit token tokenize trace traceback tracemalloc types typing unittest
unittest.mock urllib.error urllib.parse urllib.request urllib.robotparser uuid venv warnings wave weakref webbrowser
wsgiref.handlers wsgiref.simple_server xml.dom.minidom xml.etree.ElementTree xml.sax.handler xmlrpc.client
xmlrpc.server zipapp zipfile zipimport zoneinfo builtins sys
""".split()  # noqa: SIM905

# (fewest words, one past the most words, how many texts): mean 58 WordPiece tokens, from 7 to about 256.
BANDS = ((4, 13, 200), (13, 25, 215), (25, 45, 230), (45, 80, 220), (80, 170, 135))
COUNT = sum(quota for _, _, quota in BANDS)

# What marks a paragraph as code, grammar or a table.
_NOT_PROSE = (">>>", "::=", "***", "====", "---", "|")


class TextsError(RuntimeError):
    """This Python lacks the documentation that the texts are taken from."""


def paragraphs(count: int = COUNT) -> list[str]:
    """`count` paragraphs of mixed length (at most `COUNT`), always the same on one Python version."""
    if not 0 < count <= COUNT:
        raise TextsError(f"between 1 and {COUNT} texts can be had, not {count}")
    pool = sorted({text for document in _documents() for text in _prose(document)}, key=_digest)
    chosen: list[str] = []
    for low, high, quota in BANDS:
        band = [text for text in pool if low <= len(text.split()) < high][:quota]
        if len(band) < quota:
            raise TextsError(
                "this Python carries too little documentation (run without -OO, and with the module pydoc_data.topics)"
            )
        chosen += band
    # Ordered by another hash: the first one favours short texts, whose band had more to choose from.
    return sorted(chosen, key=lambda text: _digest(text[::-1]))[:count]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def _documents() -> Iterator[str]:
    """Docstrings of the listed modules, and the language reference that `help()` shows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some names warn when they are looked at
        for name in MODULES:
            try:
                module = importlib.import_module(name)
            except ImportError:
                continue  # optional in some builds: bz2, lzma, sqlite3, ssl
            yield from _docstrings(module, set(), 0)
        try:
            topics = importlib.import_module("pydoc_data.topics").topics
        except ImportError as error:
            raise TextsError("this Python lacks pydoc_data.topics, where the longer texts come from") from error
    yield from topics.values()


def _docstrings(thing: Any, seen: set[int], depth: int) -> Iterator[str]:
    """The docstring of a module, class or function, then those of what it defines itself."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    text = getattr(thing, "__doc__", None)
    if isinstance(text, str):
        yield inspect.cleandoc(text)
    if not (inspect.ismodule(thing) or (inspect.isclass(thing) and depth < 3)):
        return
    for name in sorted(vars(thing)):
        member = vars(thing)[name]
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if not (callable(member) or isinstance(member, property)):
            continue
        if inspect.ismodule(thing) and getattr(member, "__module__", None) != thing.__name__:
            continue  # imported from elsewhere
        yield from _docstrings(member, seen, depth + 1)


def _prose(document: str) -> Iterator[str]:
    """Paragraphs that read as sentences, each on one line."""
    for paragraph in re.split(r"\n\s*\n", document):
        text = " ".join(paragraph.split())
        if not re.match(r"[A-Z\"'(`*]", text) or text[-1] not in ".:!?":
            continue
        if any(mark in text for mark in _NOT_PROSE):
            continue
        if sum(character.isalpha() or character == " " for character in text) > 0.85 * len(text):
            yield text
