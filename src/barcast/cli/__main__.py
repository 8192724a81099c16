"""`python -m barcast.cli`."""

from barcast.cli import main

main()
