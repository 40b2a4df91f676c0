"""`python -m tests.bench`, see `--help`."""

import sys

from tests.bench.run import main

sys.exit(main(sys.argv[1:]))
