/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What one look at a tracked process tells. Like events.h, this is the only declaration: the agent reads the layout
 * from the object's own BTF. */
#ifndef REFLEX_READING_TYPES_H
#define REFLEX_READING_TYPES_H

/* Bits of `known`: a field whose bit is missing means nothing. */
enum reading_part {
	READING_MEMORY = 1,    /* the four sizes */
	READING_THREADS = 2,   /* all that is summed over threads: every one of them was visited */
	READING_RUN_DELAY = 4, /* of the threads that live; needs READING_THREADS, too */
};

/* A row of what the iterator writes. Sums are over all threads and since the process began; those that ended are
 * included in all but `run_delay_ns`, for the kernel forgets how long they waited. */
struct task_reading {
	__u64 start_ns;
	__u64 cpu_ns; /* user and system */
	__u64 run_delay_ns; /* waiting for a CPU while ready to run */
	__u64 anon_bytes;
	__u64 file_bytes;
	__u64 shmem_bytes;
	__u64 swap_bytes;
	__u64 minor_faults;
	__u64 major_faults;
	__u64 voluntary_switches;
	__u64 involuntary_switches;
	__u32 pid;
	__u32 threads;
	__u32 accepts; /* connections, since the process is followed */
	__u32 known;
};

/* How far a value may move from what was told of it before it is told again: by so many bytes, or by one part of so
 * many where that is more; and what a process that has nothing to do may use in a second. */
enum reading_step {
	STEP_BYTES = 256 * 1024,
	STEP_PARTS = 100,
	QUIET_CPU_NS = 5 * 1000 * 1000,
	QUIET_RUN_DELAY_NS = 5 * 1000 * 1000,
	QUIET_MINOR_FAULTS = 10,
	QUIET_MAJOR_FAULTS = 0,
	QUIET_SWITCHES = 5,
	QUIET_ACCEPTS = 0,
	RENEWAL_S = 60,
};

/* A process of which there is something to tell. */
struct moved_task {
	struct task_reading before; /* at the look before; all 0 when this is the first */
	struct task_reading now;
	__u64 passed_ns; /* between the two */
	__u32 renews; /* its values were told RENEWAL_S ago, or never */
	__u32 settles; /* its rates are those of a quiet process again; until they are not, no more is told of them */
};

#endif
