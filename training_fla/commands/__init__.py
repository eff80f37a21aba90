"""One file for each subcommand of `fla`: it reads arguments, calls and prints; it may import all but cli."""
