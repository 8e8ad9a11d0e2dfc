"""`python -m medlocal` is the command `medlocal`."""

from medlocal.cli import main

main()
