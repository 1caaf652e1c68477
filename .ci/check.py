"""Says in one line what this machine lacks to build Longspan; run by the Makefile before anything is installed.

It must run on any Python 3.6 or newer, so it uses nothing newer.
"""

import os
import shutil
import sys
import sysconfig


def problem():
    """What is missing, or None."""
    version = ".".join(map(str, sys.version_info[:2]))
    if sys.version_info < (3, 10):  # noqa: UP036
        return (
            f"Python 3.10 or newer is needed, and {sys.executable} is {version}: make PYTHON=python3.12 names another"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError:
        return "this Python cannot make virtual environments: install its venv module (apt-get install python3-venv)"
    if not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")):
        return "this Python's C headers are missing: install them (apt-get install python3-dev)"
    compilers = [os.environ["CXX"].split()[0]] if os.environ.get("CXX", "").strip() else ["c++", "g++", "clang++"]
    if not any(shutil.which(compiler) for compiler in compilers):
        return f"no C++ compiler found ({', '.join(compilers)}): install one (apt-get install g++)"
    return None


if __name__ == "__main__":
    PROBLEM = problem()
    if PROBLEM:
        sys.exit("make: " + PROBLEM)
