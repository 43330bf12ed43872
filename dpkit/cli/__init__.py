"""The command line: parse, call one public function, show what it says.

Nothing is computed here that a library call could not do. Heavy modules (JAX,
dp-accounting, the data sets, the plots) are imported inside the commands that need
them, so that help and version come at once.
"""

__all__ = ["main"]


def main() -> None:
    """Run the command line on this process's arguments, and exit with its code.

    Codes, the same in every command: 0 done; 1 budget exceeded; 2 bad input; 3 a
    ledger's integrity is broken; 4 no certified answer; 5 incompatible relation, unit
    or data set. Besides: 70 a fault of dpkit itself, 130 interrupted,
    141 nobody reads the output any more.

    Raises:
      SystemExit: always, with the code.

    Example:
      >>> main()  # doctest: +SKIP
    """
    from dpkit.cli.app import app
    from dpkit.cli.interrupt import insist

    insist()
    app()
