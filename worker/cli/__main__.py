"""`python -m worker.cli` is `sliceway`."""

from worker.cli.main import main

main()
