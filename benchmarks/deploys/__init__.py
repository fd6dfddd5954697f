"""The parts of `bench deploy`: the ground that all ways of deploying stand on, the ways, their clients, and what is counted."""
