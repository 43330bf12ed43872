"""`python -m dpkit` is the command line."""

from dpkit.cli import main

if __name__ == "__main__":
    main()
