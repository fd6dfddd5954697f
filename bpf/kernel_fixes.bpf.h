/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Differences between kernels: one small function for each, under the change that made it necessary. */
#ifndef REFLEX_KERNEL_FIXES_H
#define REFLEX_KERNEL_FIXES_H

#define PAGE_BYTES 4096ULL
#define MAX_CPUS 1024

/* Before 6.2 mm_struct.rss_stat was a struct with an array of plain counters. */
struct mm_rss_stat___before_6_2 {
	long count[NR_MM_COUNTERS];
} __attribute__((preserve_access_index));

struct mm_struct___before_6_2 {
	struct mm_rss_stat___before_6_2 rss_stat;
} __attribute__((preserve_access_index));

/* Since 6.2 each counter is a percpu_counter: a central count plus what every CPU has not yet folded in.
 * The sum over CPUs is exact; the central count alone is off by up to a batch a CPU. */
extern const unsigned long __per_cpu_offset[] __ksym __weak;
extern const unsigned int nr_cpu_ids __ksym __weak;

static __always_inline __s64 percpu_sum(const struct percpu_counter *counter)
{
	__s64 sum = BPF_CORE_READ(counter, count);
	__s32 *parts = BPF_CORE_READ(counter, counters);

	unsigned int cpus = 0;

	if (!__per_cpu_offset || !&nr_cpu_ids || bpf_probe_read_kernel(&cpus, sizeof(cpus), &nr_cpu_ids))
		return sum;
	for (unsigned int cpu = 0; cpu < MAX_CPUS; cpu++) {
		unsigned long offset = 0;
		__s32 part = 0;

		if (cpu >= cpus)
			break;
		if (bpf_probe_read_kernel(&offset, sizeof(offset), &__per_cpu_offset[cpu]))
			break;
		if (bpf_probe_read_kernel(&part, sizeof(part), (void *)parts + offset))
			break;
		sum += part;
	}
	return sum;
}

/* Since 6.14 the short name inside a dentry is a member of a union, before it was an array of its own. A name of
 * more than 30 bytes stands elsewhere, and what is found here then means nothing. */
struct dentry___before_6_14 {
	unsigned char d_iname[32];
} __attribute__((preserve_access_index));

static __always_inline char short_name_begins_with(struct dentry *entry)
{
	if (bpf_core_field_exists(entry->d_shortname))
		return entry->d_shortname.string[0];
	return ((struct dentry___before_6_14 *)entry)->d_iname[0];
}

static __always_inline __s64 mm_counter_pages(struct mm_struct *mm, int index)
{
	struct mm_struct___before_6_2 *old = (void *)mm;
	__s64 pages = 0;

	if (bpf_core_type_exists(struct mm_rss_stat___before_6_2)) {
		void *counters = (void *)old + bpf_core_field_offset(struct mm_struct___before_6_2, rss_stat);

		bpf_probe_read_kernel(&pages, sizeof(pages), counters + index * sizeof(pages));
		return pages;
	}
	return percpu_sum((void *)mm + bpf_core_field_offset(struct mm_struct, rss_stat) +
			  index * bpf_core_type_size(struct percpu_counter));
}

static __always_inline __u64 mm_counter_bytes(struct mm_struct *mm, int index)
{
	__s64 pages = mm_counter_pages(mm, index);

	return pages > 0 ? pages * PAGE_BYTES : 0;
}

static __always_inline const struct percpu_counter *mm_counter_at(const struct mm_struct *mm, int index)
{
	return (const void *)mm + bpf_core_field_offset(struct mm_struct, rss_stat) +
	       index * bpf_core_type_size(struct percpu_counter);
}

/* Since 6.6 the per-CPU parts of the four counters lie side by side: one read for each CPU takes them all. */
static __always_inline __s32 *parts_side_by_side(const struct mm_struct *mm)
{
	__s32 *parts = BPF_CORE_READ(mm_counter_at(mm, 0), counters);

	for (int i = 1; i < NR_MM_COUNTERS; i++)
		if (BPF_CORE_READ(mm_counter_at(mm, i), counters) != parts + i)
			return NULL;
	return parts;
}

static __always_inline void add_percpu_parts(const __s32 *parts, __s64 pages[NR_MM_COUNTERS])
{
	unsigned int cpus = 0;

	if (!__per_cpu_offset || !&nr_cpu_ids || bpf_probe_read_kernel(&cpus, sizeof(cpus), &nr_cpu_ids))
		return;
	for (unsigned int cpu = 0; cpu < MAX_CPUS; cpu++) {
		__s32 part[NR_MM_COUNTERS] = {};
		unsigned long offset = 0;

		if (cpu >= cpus)
			break;
		if (bpf_probe_read_kernel(&offset, sizeof(offset), &__per_cpu_offset[cpu]))
			break;
		if (bpf_probe_read_kernel(part, sizeof(part), (void *)parts + offset))
			break;
		for (int i = 0; i < NR_MM_COUNTERS; i++)
			pages[i] += part[i];
	}
}

/* All counters of a process at once, indexed by enum mm_counter. The branches share nothing, so that the compiler moves
 * no look at a structure out of the one for the kernels that have it. */
static __always_inline void mm_counters_bytes(struct mm_struct *mm, __u64 bytes[NR_MM_COUNTERS])
{
	__s64 pages[NR_MM_COUNTERS] = {};

	if (bpf_core_type_exists(struct mm_rss_stat___before_6_2)) {
		bpf_probe_read_kernel(pages, sizeof(pages), &((struct mm_struct___before_6_2 *)mm)->rss_stat);
	} else {
		const __s32 *parts = parts_side_by_side(mm);

		for (int i = 0; i < NR_MM_COUNTERS; i++)
			pages[i] = parts ? BPF_CORE_READ(mm_counter_at(mm, i), count) : percpu_sum(mm_counter_at(mm, i));
		if (parts)
			add_percpu_parts(parts, pages);
	}
	for (int i = 0; i < NR_MM_COUNTERS; i++)
		bytes[i] = pages[i] > 0 ? pages[i] * PAGE_BYTES : 0;
}

/* How long a thread has waited for a CPU; kernels without CONFIG_SCHED_INFO do not count it, and some that could do
 * not when told so at boot: then no thread has ever been counted as run. */
static __always_inline int has_run_delay(const struct task_struct *task)
{
	return bpf_core_field_exists(task->sched_info.pcount) && BPF_CORE_READ(task, sched_info.pcount);
}

static __always_inline __u64 run_delay_ns(const struct task_struct *task)
{
	return bpf_core_field_exists(task->sched_info.run_delay) ? BPF_CORE_READ(task, sched_info.run_delay) : 0;
}

#endif
