/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Memory, CPU and waiting of all masters and workers in one read. */
#ifndef REFLEX_READINGS_H
#define REFLEX_READINGS_H

/* Threads of one process that are visited; of a process with more the sums are not known. */
#define MAX_THREADS 1024

struct task_reading *keep_task_reading __attribute__((unused));
enum reading_part keep_reading_part __attribute__((unused));

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

/* The iterator visits every thread of the host: the first two questions turn most of them away. Helpers and
 * candidates are not read: nothing is told of them. */
SEC("iter/task")
int read_tasks(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct task_reading row = {};
	struct tracked *known;
	unsigned long mm;

	if (!task || task->pid != task->tgid)
		return 0;
	known = tracked_process(task);
	if (!known || (known->role != ROLE_MASTER && known->role != ROLE_WORKER))
		return 0;
	row.start_ns = task->start_boottime;
	row.pid = task->tgid;
	mm = (unsigned long)BPF_CORE_READ(task, mm);
	if (mm) /* a process that ends has none */
		read_memory(mm, &row);
	read_leader(task, &row);
	if (row.threads <= 1)
		row.known |= READING_THREADS;
	else
		read_other_threads((unsigned long)BPF_CORE_READ(task, group_leader), &row);
	bpf_seq_write(ctx->meta->seq, &row, sizeof(row));
	return 0;
}

#endif
