/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Every record that leaves the kernel. Layouts reach the agent through the object's own BTF, so this is
 * their only declaration. Widest members first, no holes, units in the names; times are CLOCK_BOOTTIME. */
#ifndef REFLEX_EVENTS_H
#define REFLEX_EVENTS_H

#define COMM_BYTES 16
#define NAME_BYTES 64

enum record_kind {
	RECORD_FORK = 0,
	RECORD_EXEC = 1,
	RECORD_EXIT = 2,
	RECORD_OOM = 3,
	RECORD_SIGNAL = 4,
	RECORD_KINDS = 5,
};

/* What a tracked process is to the agent; a fork decides the child's role from its parent's. */
enum role {
	ROLE_CANDIDATE = 0, /* runs an interpreter that may become a service; its children are candidates too */
	ROLE_MASTER = 1,    /* master of a service; its children are workers */
	ROLE_WORKER = 2,    /* worker of a service; its children are helpers */
	ROLE_HELPER = 3,    /* anything below a worker: followed for attribution, reported only by the OOM killer */
	ROLE_NONE = 4,      /* not tracked */
};

/* `pid` is a thread group id in the initial pid namespace; with `start_ns` it names one process for good. */
struct record_header {
	__u64 at_ns;
	__u64 start_ns;
	__u32 kind;
	__u32 pid;
};

struct fork_record {
	struct record_header header; /* the child */
	__u32 parent_pid;
	__u32 role;
};

struct exec_record {
	struct record_header header;
	__u32 parent_pid;
	__u32 uid;
	__u32 role_before;
	__u32 role;
	char comm[COMM_BYTES];
	char exe[NAME_BYTES]; /* file name of the binary that runs, of the interpreter for a script */
};

struct exit_record {
	struct record_header header;
	__u64 cpu_ns;        /* all threads, user and system */
	__u64 peak_rss_bytes;
	__u64 accepts;       /* connections of watched listeners, where the hook on accept is attached */
	__u32 parent_pid;
	__u32 wait_status;   /* as wait(2) gives it: signal in the low 7 bits, else exit code << 8 */
	__u32 role;
	__u32 uid;
	char comm[COMM_BYTES];
};

/* Which limit was hit, as the OOM killer says it: the kernel's enum oom_constraint plus one. */
enum oom_reason {
	OOM_UNTOLD = 0, /* without the context: the victim's cgroups have to be asked */
	OOM_HOST = 1,
	OOM_CPUSET = 2,
	OOM_MEMORY_POLICY = 3,
	OOM_CGROUP = 4,
};

/* Value of the map `oom_contexts`. */
struct oom_context {
	__u64 group; /* address of the memory cgroup whose limit was hit, 0 for the host */
	__s64 points;
	__u64 total_bytes;
	__u32 chosen_pid;
	__u32 constraint;
	__u32 order;
	__u32 padding;
};

struct oom_record {
	struct record_header header; /* the victim */
	__u64 anon_bytes;
	__u64 file_bytes;
	__u64 shmem_bytes;
	__u64 swap_bytes;
	__u64 total_vm_bytes;
	__u64 limit_bytes;   /* of the memory cgroup that is full; 0 when none is, that is: the host is short */
	__u64 usage_bytes;   /* of that cgroup */
	__u64 cgroup_id;     /* inode of that cgroup's directory */
	__u64 allocator_start_ns;
	__u64 total_bytes;   /* memory and swap that the limit allows; 0 without the OOM killer's context */
	__s64 points;        /* the chosen process's score, in pages; with the context only */
	__u32 constraint;    /* enum oom_reason */
	__u32 order;         /* the allocation that failed wanted 2^order pages; with the context only */
	__u32 chosen_pid;    /* the process that the score chose; a group kill takes others with it */
	__u32 group;         /* 1 when memory.oom.group of a cgroup around the victim makes its processes die together */
	__u32 allocator_pid;
	__u32 victim_uid;
	__s32 oom_score_adj;
	__u32 role;
	char victim_comm[COMM_BYTES];
	char allocator_comm[COMM_BYTES];
	char cgroup_name[NAME_BYTES];
};

struct signal_record {
	struct record_header header; /* the target */
	__u64 sender_start_ns;
	__u32 sender_pid;            /* meaningful when code is not SI_KERNEL */
	__u32 sender_uid;
	__u32 sender_parent_pid;
	__u32 signal;
	__s32 code;                  /* si_code: 128 the kernel, 0 kill(2), -1 sigqueue, -6 tgkill */
	__u32 result;                /* 0 delivered, 1 ignored, 2 already pending, see include/trace/events/signal.h */
	__u32 role;
	__u32 padding;
	char sender_comm[COMM_BYTES];
	char sender_parent_comm[COMM_BYTES];
	char sender_tty[COMM_BYTES]; /* empty without a controlling terminal */
};

/* Slots of the small table that says whether it is worth to look a pid up: a power of two. */
enum table_size {
	TRACKED_SLOTS = 4096,
};

/* Value of the map `tracked`, keyed by pid. */
struct tracked {
	__u64 start_ns;
	__u32 role;
	__u32 accepts; /* connections of watched listeners since it is followed */
};

/* Value of the per-CPU map `counters`, indexed by record kind. */
struct counter {
	__u64 sent;
	__u64 lost;
};

#endif
