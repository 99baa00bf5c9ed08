"""`python -m zeroskip.cli` is `zeroskip`."""

from zeroskip.cli import main

main()
