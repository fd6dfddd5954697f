/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The OOM killer's choice. The tracepoint runs in the task that allocated; the victim is its argument. */
#ifndef REFLEX_OOM_H
#define REFLEX_OOM_H

#define CGROUP_LEVELS 16
#define UNLIMITED_PAGES (1ULL << 50)
#define SLACK_PAGES 512 /* a charge batch and a huge page: a full cgroup can stand this far below its limit */

static __always_inline struct cgroup_subsys_state *memory_css(struct task_struct *task)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	__u64 index = bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id);
	struct cgroup_subsys_state *css = NULL;
	void *subsystems = (void *)set + bpf_core_field_offset(struct css_set, subsys);

	bpf_probe_read_kernel(&css, sizeof(css), subsystems + index * sizeof(css));
	return css;
}

static __always_inline struct mem_cgroup *group_of(struct cgroup_subsys_state *css)
{
	return (void *)css - bpf_core_field_offset(struct mem_cgroup, css);
}

static __always_inline int has_no_room(struct mem_cgroup *group)
{
	__u64 limit = BPF_CORE_READ(group, memory.max);
	__u64 usage = BPF_CORE_READ(group, memory.usage.counter);

	return limit < UNLIMITED_PAGES && usage + SLACK_PAGES >= limit;
}

static __always_inline void describe_cgroup(struct oom_record *record, struct cgroup_subsys_state *css)
{
	struct mem_cgroup *group = group_of(css);

	record->limit_bytes = BPF_CORE_READ(group, memory.max) * PAGE_BYTES;
	record->usage_bytes = BPF_CORE_READ(group, memory.usage.counter) * PAGE_BYTES;
	record->cgroup_id = BPF_CORE_READ(css, cgroup, kn, id);
	bpf_probe_read_kernel_str(record->cgroup_name, sizeof(record->cgroup_name),
				  BPF_CORE_READ(css, cgroup, kn, name));
}

/* Walks up from the victim's own cgroup to the one whose limit was hit: the one that the OOM killer names, else the
 * nearest that has no room left. A memory.oom.group on the way makes all below it die together. */
static __always_inline void describe_full_cgroup(struct oom_record *record, struct task_struct *victim,
						 struct oom_context *context)
{
	struct cgroup_subsys_state *css;
	struct mem_cgroup *group;
	__u32 dies_together = 0;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return; /* a kernel without the memory controller */
	css = memory_css(victim);
	for (int level = 0; level < CGROUP_LEVELS && css; level++) {
		group = group_of(css);
		dies_together |= BPF_CORE_READ(group, oom_group);
		if (context ? context->group == (unsigned long)group : has_no_room(group)) {
			record->group = dies_together;
			describe_cgroup(record, css);
			return;
		}
		css = BPF_CORE_READ(css, parent);
	}
	record->group = dies_together; /* the host is short */
}

static __always_inline void describe_decision(struct oom_record *record, struct oom_context *context)
{
	if (!context)
		return;
	record->constraint = context->constraint;
	record->points = context->points;
	record->total_bytes = context->total_bytes;
	record->order = context->order;
	record->chosen_pid = context->chosen_pid;
}

static __always_inline void describe_memory(struct oom_record *record, struct task_struct *victim)
{
	struct mm_struct *mm = BPF_CORE_READ(victim, mm);

	if (!mm)
		return;
	record->anon_bytes = mm_counter_bytes(mm, MM_ANONPAGES);
	record->file_bytes = mm_counter_bytes(mm, MM_FILEPAGES);
	record->shmem_bytes = mm_counter_bytes(mm, MM_SHMEMPAGES);
	record->swap_bytes = mm_counter_bytes(mm, MM_SWAPENTS);
	record->total_vm_bytes = BPF_CORE_READ(mm, total_vm) * PAGE_BYTES;
}

static __always_inline void describe_allocator(struct oom_record *record)
{
	struct task_struct *allocator = (void *)bpf_get_current_task();

	record->allocator_pid = BPF_CORE_READ(allocator, tgid);
	record->allocator_start_ns = BPF_CORE_READ(allocator, group_leader, start_boottime);
	BPF_CORE_READ_STR_INTO(&record->allocator_comm, allocator, comm);
}

/* Since 6.10 the tracepoint hands over the victim's task. */
SEC("tp_btf/mark_victim")
int BPF_PROG(on_oom_task, struct task_struct *victim)
{
	struct tracked *known = tracked_process(victim);
	struct oom_context *context = oom_context();
	struct oom_record *record = reserve(RECORD_OOM, sizeof(*record), victim);

	if (!record)
		return 0;
	record->role = known ? known->role : ROLE_NONE;
	record->victim_uid = BPF_CORE_READ(victim, cred, uid.val);
	record->oom_score_adj = BPF_CORE_READ(victim, signal, oom_score_adj);
	BPF_CORE_READ_STR_INTO(&record->victim_comm, victim, group_leader, comm);
	describe_memory(record, victim);
	describe_decision(record, context);
	describe_full_cgroup(record, victim, context);
	describe_allocator(record);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

/* Before that it hands over a bare thread id: who was killed and who allocated is known, the memory is not. */
SEC("tp_btf/mark_victim")
int BPF_PROG(on_oom_pid, int victim_pid)
{
	struct oom_record *record = bpf_ringbuf_reserve(&records, sizeof(*record), 0);
	__u32 pid = victim_pid;
	struct tracked *known;

	if (!record) {
		count(RECORD_OOM, 1);
		return 0;
	}
	known = tracked_pid(pid);
	count(RECORD_OOM, 0);
	__builtin_memset(record, 0, sizeof(*record));
	record->header.at_ns = bpf_ktime_get_boot_ns();
	record->header.kind = RECORD_OOM;
	record->header.pid = pid;
	record->header.start_ns = known ? known->start_ns : 0;
	record->role = known ? known->role : ROLE_NONE;
	describe_decision(record, oom_context());
	describe_allocator(record);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

#endif
