"""One module a subcommand of `fla`: `HELP`, `EXAMPLE`, `add_arguments(parser)` and `run(args)`, light to import."""
