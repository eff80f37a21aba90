"""One file a subcommand of `fla`: arguments in, one call, printing out. Imports every other room."""
