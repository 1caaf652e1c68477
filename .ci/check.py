"""Says in one line what this machine lacks to build Longspan; run by the Makefile before anything is installed.

It must run on any Python 3, so it uses nothing new.
"""

import os
import shutil
import sys
import sysconfig


def problem():
    """What is missing, or None."""
    version = "%d.%d" % sys.version_info[:2]
    if sys.version_info < (3, 10):
        return "Python 3.10 or newer is needed, and %s is %s: name another with make PYTHON=python3.12" % (
            sys.executable,
            version,
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
        return "no C++ compiler found (%s): install one (apt-get install g++)" % ", ".join(compilers)
    return None


if __name__ == "__main__":
    PROBLEM = problem()
    if PROBLEM:
        sys.exit("make: " + PROBLEM)
