/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Stands in for kernel_types.h, kernel_fixes.bpf.h and libbpf's headers where BCC compiles the programs: the types
 * come from the running kernel's own headers, and what CO-RE asks of BTF is known when the programs are compiled. */
#include <linux/version.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/binfmts.h>
#include <linux/cgroup.h>
#include <linux/cred.h>
#include <linux/dcache.h>
#include <linux/memcontrol.h>
#include <linux/mm_types.h>
#include <linux/oom.h>
#include <linux/skbuff.h>
#include <linux/tty.h>
#include <net/sock.h>
#include <net/af_unix.h>

#undef BIT /* the programs have one of their own, of 64 bits everywhere */

#define PAGE_BYTES 4096ULL

#define READ_1(from, a) ({ typeof((from)->a) value_; bpf_probe_read_kernel(&value_, sizeof(value_), &(from)->a); value_; })
#define READ_2(from, a, b) ({ typeof((from)->a) next_ = READ_1(from, a); READ_1(next_, b); })
#define READ_3(from, a, b, c) ({ typeof((from)->a) next__ = READ_1(from, a); READ_2(next__, b, c); })
#define READ_4(from, a, b, c, d) ({ typeof((from)->a) next___ = READ_1(from, a); READ_3(next___, b, c, d); })
#define READ_PICK(from, a, b, c, d, name, ...) name
#define BPF_CORE_READ(...) READ_PICK(__VA_ARGS__, READ_4, READ_3, READ_2, READ_1)(__VA_ARGS__)

#define bpf_core_enum_value_exists(type, value) 1
#define bpf_core_enum_value(type, value) (value)
#define bpf_core_field_offset(type, field) offsetof(type, field)

static __always_inline __u64 mm_counter_bytes(struct mm_struct *mm, int index)
{
	__s64 pages = 0;

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
	bpf_probe_read_kernel(&pages, sizeof(pages), &mm->rss_stat.count[index]);
#else
	bpf_probe_read_kernel(&pages, sizeof(pages), &mm->rss_stat[index].count);
#endif
	return pages > 0 ? pages * PAGE_BYTES : 0;
}

static __always_inline char short_name_begins_with(struct dentry *entry)
{
	char first = 0;

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 14, 0)
	bpf_probe_read_kernel(&first, sizeof(first), &entry->d_iname[0]);
#else
	bpf_probe_read_kernel(&first, sizeof(first), &entry->d_shortname.string[0]);
#endif
	return first;
}
