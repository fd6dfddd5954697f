/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the OOM killer knows when it decides: which limit was hit, and how badly the victim scored. It kills inside
 * oom_kill_process, so what is noted on entry is there when mark_victim fires, once for each process of a group. */
#ifndef REFLEX_OOM_CONTEXT_H
#define REFLEX_OOM_CONTEXT_H

/* Keyed by the allocating thread; an entry lives as long as its call of oom_kill_process. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct oom_context);
} oom_contexts SEC(".maps");

static __always_inline void note_oom_context(struct oom_control *control)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct oom_context context = {
		.group = (unsigned long)BPF_CORE_READ(control, memcg),
		.points = BPF_CORE_READ(control, chosen_points),
		.total_bytes = BPF_CORE_READ(control, totalpages) * PAGE_BYTES,
		.chosen_pid = BPF_CORE_READ(control, chosen, tgid),
		.constraint = 1 + (__u32)BPF_CORE_READ(control, constraint),
		.order = BPF_CORE_READ(control, order),
	};

	bpf_map_update_elem(&oom_contexts, &thread, &context, BPF_ANY);
}

static __always_inline void forget_oom_context(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	bpf_map_delete_elem(&oom_contexts, &thread);
}

static __always_inline struct oom_context *oom_context(void)
{
	__u64 thread = bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&oom_contexts, &thread);
}

SEC("fentry/oom_kill_process")
int BPF_PROG(on_oom_kill_enter, struct oom_control *control)
{
	note_oom_context(control);
	return 0;
}

SEC("fexit/oom_kill_process")
int on_oom_kill_leave(void *context)
{
	forget_oom_context();
	return 0;
}

SEC("kprobe/oom_kill_process")
int BPF_KPROBE(on_oom_kill_kprobe, struct oom_control *control)
{
	note_oom_context(control);
	return 0;
}

SEC("kretprobe/oom_kill_process")
int on_oom_kill_kretprobe(void *context)
{
	forget_oom_context();
	return 0;
}

#endif
