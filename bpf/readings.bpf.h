/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Memory, CPU and waiting of all masters and workers in one read. */
#ifndef REFLEX_READINGS_H
#define REFLEX_READINGS_H

/* Threads of one process that are visited; of a process with more the sums are not known. */
#define MAX_THREADS 1024

struct task_reading *keep_task_reading __attribute__((unused));
struct moved_task *keep_moved_task __attribute__((unused));
enum reading_part keep_reading_part __attribute__((unused));
enum reading_step keep_reading_step __attribute__((unused));

/* The two functions that loop are global, which the verifier checks once each and by themselves: inlined, each path
 * through the first would be followed through all of the second, and 6.1 gives up. Such a function takes an address as
 * a number, which is what a helper reads. */
__noinline int read_memory(unsigned long address, struct task_reading *row)
{
	__u64 bytes[NR_MM_COUNTERS] = {};

	if (!row)
		return 0;
	mm_counters_bytes((struct mm_struct *)address, bytes);
	row->anon_bytes = bytes[MM_ANONPAGES];
	row->file_bytes = bytes[MM_FILEPAGES];
	row->shmem_bytes = bytes[MM_SHMEMPAGES];
	row->swap_bytes = bytes[MM_SWAPENTS];
	row->known |= READING_MEMORY;
	return 0;
}

/* The first thread, and what the kernel keeps of threads that ended. */
static __always_inline void read_leader(struct task_struct *task, struct task_reading *row)
{
	struct signal_struct *process = task->signal;

	row->threads = process->nr_threads;
	row->cpu_ns = process->sum_sched_runtime + task->se.sum_exec_runtime;
	row->minor_faults = process->min_flt + task->min_flt;
	row->major_faults = process->maj_flt + task->maj_flt;
	row->voluntary_switches = process->nvcsw + task->nvcsw;
	row->involuntary_switches = process->nivcsw + task->nivcsw;
	row->run_delay_ns = run_delay_ns(task);
	if (has_run_delay(task))
		row->known |= READING_RUN_DELAY;
}

static __always_inline void add_thread(const struct task_struct *thread, struct task_reading *row)
{
	row->cpu_ns += BPF_CORE_READ(thread, se.sum_exec_runtime);
	row->minor_faults += BPF_CORE_READ(thread, min_flt);
	row->major_faults += BPF_CORE_READ(thread, maj_flt);
	row->voluntary_switches += BPF_CORE_READ(thread, nvcsw);
	row->involuntary_switches += BPF_CORE_READ(thread, nivcsw);
	row->run_delay_ns += run_delay_ns(thread);
}

/* Walks the list of threads as the kernel does under RCU, which the iterator holds. */
__noinline int read_other_threads(unsigned long leader, struct task_reading *row)
{
	const struct task_struct *task = (void *)leader, *thread;
	struct list_head *head, *node;

	if (!row)
		return 0;
	head = (void *)BPF_CORE_READ(task, signal) + bpf_core_field_offset(struct signal_struct, thread_head);
	node = BPF_CORE_READ(head, next);
	for (int i = 0; i < MAX_THREADS; i++) {
		if (node == head) {
			row->known |= READING_THREADS;
			return 0;
		}
		thread = (void *)node - bpf_core_field_offset(struct task_struct, thread_node);
		if (thread != task)
			add_thread(thread, row);
		node = BPF_CORE_READ(node, next);
	}
	return 0;
}

/* The process that the task stands for, if it is read. The iterators visit every thread of the host: the first two
 * questions turn most of them away. Helpers and candidates are not read: nothing is told of them. */
static __always_inline struct tracked *read_one(struct task_struct *task)
{
	struct tracked *known;

	if (task->pid != task->tgid)
		return NULL;
	known = tracked_process(task);
	return known && (known->role == ROLE_MASTER || known->role == ROLE_WORKER) ? known : NULL;
}

static __always_inline void read_process(struct task_struct *task, const struct tracked *known, struct task_reading *row)
{
	unsigned long mm = (unsigned long)BPF_CORE_READ(task, mm);

	row->start_ns = task->start_boottime;
	row->pid = task->tgid;
	row->accepts = known->accepts;
	if (mm) /* a process that ends has none */
		read_memory(mm, row);
	read_leader(task, row);
	if (row->threads <= 1)
		row->known |= READING_THREADS;
	else
		read_other_threads((unsigned long)BPF_CORE_READ(task, group_leader), row);
}

SEC("iter/task")
int read_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_reading row = {};
	struct tracked *known;

	if (!task)
		return 0;
	known = read_one(task);
	if (!known)
		return 0;
	read_process(task, known, &row);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

/* What the agent knows of a process. Sizes and threads are told one by one, as the agent tells them on. */
struct told {
	struct task_reading before;
	__u64 seen_ns;
	__u64 renewal_ns;
	__u64 anon_bytes;
	__u64 file_bytes;
	__u64 shmem_bytes;
	__u64 swap_bytes;
	__u32 threads;
	__u32 is_quiet;
};

/* It goes with the task. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct told);
} told_tasks SEC(".maps");

/* Whether a size has left what was told of it, which then is the new size. */
static __always_inline int moves(__u64 *told, __u64 bytes)
{
	__u64 step = *told / STEP_PARTS, by = bytes > *told ? bytes - *told : *told - bytes;

	if (by <= STEP_BYTES || by <= step)
		return 0;
	*told = bytes;
	return 1;
}

static __always_inline int sizes_move(struct told *told, const struct task_reading *now)
{
	int moved = moves(&told->anon_bytes, now->anon_bytes);

	moved |= moves(&told->file_bytes, now->file_bytes);
	moved |= moves(&told->shmem_bytes, now->shmem_bytes);
	moved |= moves(&told->swap_bytes, now->swap_bytes);
	moved |= told->threads != now->threads;
	told->threads = now->threads;
	return moved;
}

static __always_inline int at_most(__u64 before, __u64 now, __u64 each_second, __u64 passed_ns)
{
	return now >= before && (now - before) * 1000000000 <= each_second * passed_ns;
}

static __always_inline int is_quiet(const struct task_reading *before, const struct task_reading *now, __u64 passed_ns)
{
	return before->known == now->known && at_most(before->cpu_ns, now->cpu_ns, QUIET_CPU_NS, passed_ns) &&
	       at_most(before->run_delay_ns, now->run_delay_ns, QUIET_RUN_DELAY_NS, passed_ns) &&
	       at_most(before->minor_faults, now->minor_faults, QUIET_MINOR_FAULTS, passed_ns) &&
	       at_most(before->major_faults, now->major_faults, QUIET_MAJOR_FAULTS, passed_ns) &&
	       at_most(before->voluntary_switches, now->voluntary_switches, QUIET_SWITCHES, passed_ns) &&
	       at_most(before->involuntary_switches, now->involuntary_switches, QUIET_SWITCHES, passed_ns) &&
	       at_most(before->accepts, now->accepts, QUIET_ACCEPTS, passed_ns);
}

static __always_inline void renew(struct told *told, const struct task_reading *now, __u64 after_ns)
{
	told->renewal_ns = after_ns;
	told->anon_bytes = now->anon_bytes;
	told->file_bytes = now->file_bytes;
	told->shmem_bytes = now->shmem_bytes;
	told->swap_bytes = now->swap_bytes;
	told->threads = now->threads;
}

/* Reads as read_tasks does, and writes only those of which there is something to tell: a process that has nothing to
 * do costs the agent nothing. Of a new one all is told at once, and again within RENEWAL_S: not of all in the same
 * second. */
SEC("iter/task")
int read_moved(struct bpf_iter__task *ctx)
{
	struct moved_task row = {};
	__u64 now_ns = bpf_ktime_get_ns();
	struct task_struct *task = ctx->task;
	struct tracked *known;
	struct told *told;
	int moved, was_quiet;

	if (!task)
		return 0;
	known = read_one(task);
	if (!known)
		return 0;
	told = bpf_task_storage_get(&told_tasks, task, NULL, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!told)
		return 0;
	read_process(task, known, &row.now);
	row.before = told->before;
	row.passed_ns = told->seen_ns ? now_ns - told->seen_ns : 0;
	if (!told->seen_ns) {
		row.renews = 1;
		renew(told, &row.now, now_ns + row.now.pid % RENEWAL_S * 1000000000ULL);
	} else if (now_ns + row.passed_ns * 3 / 2 > told->renewal_ns) {
		/* the next look could be too late */
		row.renews = 1;
		renew(told, &row.now, now_ns + RENEWAL_S * 1000000000ULL);
	}
	was_quiet = told->is_quiet;
	told->is_quiet = told->seen_ns && is_quiet(&row.before, &row.now, row.passed_ns);
	row.settles = told->is_quiet && !was_quiet;
	moved = sizes_move(told, &row.now);
	told->before = row.now;
	told->seen_ns = now_ns;
	if (moved || row.renews || row.settles || !told->is_quiet)
		bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

#endif
