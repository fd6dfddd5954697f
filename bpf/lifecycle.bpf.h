/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Birth, change and death of tracked processes. */
#ifndef REFLEX_LIFECYCLE_H
#define REFLEX_LIFECYCLE_H

#define SIGNAL_GROUP_EXIT 0x4 /* include/linux/sched/signal.h */

static __always_inline __u32 role_of_child(__u32 parent_role)
{
	switch (parent_role) {
	case ROLE_CANDIDATE:
		return ROLE_CANDIDATE;
	case ROLE_MASTER:
		return ROLE_WORKER;
	default:
		return ROLE_HELPER;
	}
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	struct tracked *known;
	struct fork_record *record;
	__u32 role;

	if (parent->tgid == child->tgid)
		return 0; /* a thread */
	known = tracked_process(parent);
	if (!known)
		return 0;
	role = role_of_child(known->role);
	track(child, role);
	if (role == ROLE_HELPER)
		return 0;
	record = reserve(RECORD_FORK, sizeof(*record), child);
	if (!record)
		return 0;
	record->parent_pid = parent->tgid;
	record->role = role;
	bpf_ringbuf_submit(record, 0);
	return 0;
}

#define INTERPRETER_BYTES 6

/* Whether a binary of this name can be a service: python3.11, pypy3, uwsgi, uwsgi-core. The first letter alone
 * turns most programs away. */
static __always_inline int is_interpreter(struct dentry *entry)
{
	char start[INTERPRETER_BYTES] = {}, first = short_name_begins_with(entry);

	if (first != 'p' && first != 'u')
		return 0;
	bpf_probe_read_kernel(start, sizeof(start), entry->d_name.name);
	if (start[0] == 'p' && start[1] == 'y')
		return (start[2] == 't' && start[3] == 'h' && start[4] == 'o' && start[5] == 'n') ||
		       (start[2] == 'p' && start[3] == 'y');
	return start[0] == 'u' && start[1] == 'w' && start[2] == 's' && start[3] == 'g' && start[4] == 'i';
}

/* What an exec makes of a process: an interpreter may become a service, whatever it was before. */
static __always_inline __u32 role_after_exec(__u32 before, int interpreter)
{
	if (interpreter)
		return before == ROLE_MASTER ? ROLE_MASTER : ROLE_CANDIDATE;
	if (before == ROLE_WORKER || before == ROLE_HELPER)
		return ROLE_HELPER;
	return before == ROLE_MASTER ? ROLE_MASTER : ROLE_NONE;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *program)
{
	struct tracked *known = tracked_process(task);
	__u32 before = known ? known->role : ROLE_NONE;
	struct dentry *exe = program->file->f_path.dentry;
	__u32 after = role_after_exec(before, is_interpreter(exe));
	struct exec_record *record;
	__u32 pid;

	if (after == ROLE_NONE) {
		if (known) {
			pid = task->tgid;
			bpf_map_delete_elem(&tracked, &pid);
		}
		return 0;
	}
	if (after != before)
		track(task, after);
	if (before == ROLE_HELPER && after == ROLE_HELPER)
		return 0;
	record = reserve(RECORD_EXEC, sizeof(*record), task);
	if (!record)
		return 0;
	record->parent_pid = task->real_parent->tgid;
	record->uid = task->cred->uid.val;
	record->role_before = before;
	record->role = after;
	BPF_CORE_READ_STR_INTO(&record->comm, task, comm);
	bpf_probe_read_kernel_str(record->exe, sizeof(record->exe), exe->d_name.name);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/* What wait(2) tells the parent. A group exit decides for all threads; else the leader's own code counts. */
static __always_inline __u32 wait_status(struct task_struct *task)
{
	if (task->signal->flags & SIGNAL_GROUP_EXIT)
		return task->signal->group_exit_code;
	return task->group_leader->exit_code;
}

/* The tracepoint fires for every thread. The process is over when no thread is live; two threads that end
 * together can both see that, so the one that takes the map's entry away reports. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	struct tracked *known = tracked_process(task);
	struct exit_record *record;
	__u32 pid, role, accepts;

	if (!known || task->signal->live.counter > 0)
		return 0;
	role = known->role;
	accepts = known->accepts;
	pid = task->tgid;
	if (bpf_map_delete_elem(&tracked, &pid) || role == ROLE_HELPER)
		return 0;
	record = reserve(RECORD_EXIT, sizeof(*record), task);
	if (!record)
		return 0;
	record->cpu_ns = task->se.sum_exec_runtime + task->signal->sum_sched_runtime;
	record->peak_rss_bytes = task->signal->maxrss * PAGE_BYTES;
	record->accepts = accepts;
	record->parent_pid = task->real_parent->tgid;
	record->wait_status = wait_status(task);
	record->role = role;
	record->uid = task->cred->uid.val;
	BPF_CORE_READ_STR_INTO(&record->comm, task, group_leader, comm);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

#endif
