"""The command line: `longspan embed | search | info | verify`."""
