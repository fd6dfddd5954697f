/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The maps that all programs share, and how a record is reserved and counted. */
#ifndef REFLEX_MAPS_H
#define REFLEX_MAPS_H

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} records SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 32768);
	__type(key, __u32);
	__type(value, struct tracked);
} tracked SEC(".maps");

/* A look at a pid that is not in `tracked` touches a cold bucket of a large table: some 400 ns. This small table is
 * asked first: the slot of a pid holds the epoch in which a tracked pid last fell into it. The agent begins a new
 * epoch now and then and renews the slots of all tracked pids, so that those of the dead fall behind and count as
 * empty. Element 0 is the epoch itself. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 + TRACKED_SLOTS);
	__type(key, __u32);
	__type(value, __u32);
} tracked_slots SEC(".maps");

/* One slot more than there are record kinds: processes that did not fit into `tracked`. */
#define NS_PER_TICK 10000000ULL /* of /proc: 1/100 s on every architecture */

#define COUNTER_TRACKED_FULL RECORD_KINDS

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, RECORD_KINDS + 1);
	__type(key, __u32);
	__type(value, struct counter);
} counters SEC(".maps");

/* clang drops the types of records that are only reached through ring buffer pointers; these keep them. */
struct fork_record *keep_fork_record __attribute__((unused));
struct exec_record *keep_exec_record __attribute__((unused));
struct exit_record *keep_exit_record __attribute__((unused));
struct oom_record *keep_oom_record __attribute__((unused));
struct signal_record *keep_signal_record __attribute__((unused));
enum record_kind keep_record_kind __attribute__((unused));
enum oom_reason keep_oom_reason __attribute__((unused));
enum role keep_role __attribute__((unused));
enum table_size keep_table_size __attribute__((unused));

static __always_inline void count(__u32 index, int lost)
{
	struct counter *counter = bpf_map_lookup_elem(&counters, &index);

	if (!counter)
		return;
	if (lost)
		counter->lost++;
	else
		counter->sent++;
}

/* Tasks that a tracepoint hands over are read by plain dereference, which the verifier knows to be safe and which
 * costs a few ns; BPF_CORE_READ is for everything else. */

/* A zeroed record of `bytes` with its header filled in for `task`, or NULL when the buffer is full. */
static __always_inline void *reserve(__u32 kind, __u64 bytes, struct task_struct *task)
{
	struct record_header *header = bpf_ringbuf_reserve(&records, bytes, 0);

	if (!header) {
		count(kind, 1);
		return NULL;
	}
	__builtin_memset(header, 0, bytes);
	header->at_ns = bpf_ktime_get_boot_ns();
	header->start_ns = task->group_leader->start_boottime;
	header->kind = kind;
	header->pid = task->tgid;
	count(kind, 0);
	return header;
}

static __always_inline __u32 *slot_of(__u32 pid)
{
	__u32 index = 1 + pid % TRACKED_SLOTS;

	return bpf_map_lookup_elem(&tracked_slots, &index);
}

static __always_inline __u32 current_epoch(void)
{
	__u32 index = 0, *epoch = bpf_map_lookup_elem(&tracked_slots, &index);

	return epoch ? *epoch : 0;
}

/* The slots written in this epoch and in the one before it count: a renewal may be under way. */
static __always_inline struct tracked *tracked_pid(__u32 pid)
{
	__u32 *slot = slot_of(pid);

	if (!slot || *slot + 1 < current_epoch())
		return NULL;
	return bpf_map_lookup_elem(&tracked, &pid);
}

/* An entry that outlived its process, because its end was lost, says nothing of the next one with that pid. The
 * agent knows starts in ticks, as /proc shows them. */
static __always_inline struct tracked *tracked_process(struct task_struct *task)
{
	struct tracked *known = tracked_pid(task->tgid);

	if (known && known->start_ns / NS_PER_TICK != task->group_leader->start_boottime / NS_PER_TICK)
		return NULL;
	return known;
}

static __always_inline void track(struct task_struct *task, __u32 role)
{
	__u32 pid = task->tgid, *slot = slot_of(pid);
	struct tracked value = {
		.start_ns = task->group_leader->start_boottime,
		.role = role,
	};

	if (bpf_map_update_elem(&tracked, &pid, &value, BPF_ANY))
		count(COUNTER_TRACKED_FULL, 1);
	else if (slot)
		*slot = current_epoch();
}

#endif
