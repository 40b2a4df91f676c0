"""`python -m peertunnel` is `pt`."""

from peertunnel.cli.main import main

if __name__ == "__main__":
    main()
