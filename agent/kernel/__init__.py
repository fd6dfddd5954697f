"""Everything that touches the kernel's tracing side: BPF programs, their records, and how each signal is heard."""
