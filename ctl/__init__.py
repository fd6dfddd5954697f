"""reflexctl: the operator's command line. It talks to reflex-server over HTTP and to nothing else."""
