"""The command line: `longspan embed | search | info | verify | plan`."""
