"""The sub-commands of `syncl`, one per file: `add_parser(subparsers)` declares, `run(args)` does.

Heavy imports stay inside `run`, so that `syncl --help` answers at once.
"""
