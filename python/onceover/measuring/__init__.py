"""How fast a package is on this machine: each case in a process of its own, by the experiments of csrc/measuring."""
