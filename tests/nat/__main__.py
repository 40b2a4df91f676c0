"""`python -m tests.nat`, see `--help`."""

import sys

from tests.nat.run import main

sys.exit(main(sys.argv[1:]))
