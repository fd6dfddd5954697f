/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The members of kernel structures that the programs read, and no more. CO-RE finds each by name in the
 * running kernel's BTF, so order, size and everything left out do not matter. */
#ifndef REFLEX_KERNEL_TYPES_H
#define REFLEX_KERNEL_TYPES_H

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct task_struct;

struct kernfs_node {
	const char *name;
	__u64 id;
};

struct cgroup {
	struct kernfs_node *kn;
};

struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};

struct css_set {
	struct cgroup_subsys_state *subsys[1];
};

enum cgroup_subsys_id {
	memory_cgrp_id = 1, /* its real number comes from the running kernel */
};

struct page_counter {
	struct {
		long counter;
	} usage;
	unsigned long max;
};

struct mem_cgroup {
	struct cgroup_subsys_state css;
	struct page_counter memory;
	_Bool oom_group;
};

enum oom_constraint {
	CONSTRAINT_NONE = 0,
};

struct oom_control {
	struct mem_cgroup *memcg;
	int order;
	unsigned long totalpages;
	struct task_struct *chosen;
	long chosen_points;
	enum oom_constraint constraint;
};

struct qstr {
	const unsigned char *name;
};

struct dentry {
	struct qstr d_name;
	union {
		unsigned char string[32];
	} d_shortname; /* holds names that are short enough, and they all begin here; see kernel_fixes.bpf.h */
};

struct path {
	struct dentry *dentry;
};

struct inode {
	unsigned long i_ino;
};

struct file {
	struct path f_path;
	struct inode *f_inode;
};

struct linux_binprm {
	struct file *file;
};

enum mm_counter {
	MM_FILEPAGES = 0,
	MM_ANONPAGES = 1,
	MM_SWAPENTS = 2,
	MM_SHMEMPAGES = 3,
	NR_MM_COUNTERS = 4,
};

struct percpu_counter {
	__s64 count;
	__s32 *counters;
};

struct mm_struct {
	unsigned long total_vm;
	struct percpu_counter rss_stat[NR_MM_COUNTERS];
};

struct list_head {
	struct list_head *next;
};

struct tty_struct {
	char name[64];
};

struct signal_struct {
	struct {
		int counter;
	} live;
	int nr_threads;
	struct list_head thread_head;
	int group_exit_code;
	unsigned int flags;
	short oom_score_adj;
	unsigned long nvcsw;
	unsigned long nivcsw;
	unsigned long min_flt;
	unsigned long maj_flt;
	unsigned long maxrss;
	unsigned long long sum_sched_runtime;
	struct tty_struct *tty;
};

typedef struct {
	__u32 val;
} kuid_t;

struct cred {
	kuid_t uid;
};

struct sched_entity {
	__u64 sum_exec_runtime;
};

struct sched_info { /* empty without CONFIG_SCHED_INFO */
	unsigned long pcount;
	unsigned long long run_delay;
};

struct task_struct {
	int pid;
	int tgid;
	int exit_code;
	struct list_head thread_node;
	unsigned long nvcsw;
	unsigned long nivcsw;
	unsigned long min_flt;
	unsigned long maj_flt;
	__u64 start_boottime;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	struct mm_struct *mm;
	struct css_set *cgroups;
	const struct cred *cred;
	struct sched_entity se;
	struct sched_info sched_info;
	char comm[16];
};

struct seq_file;

struct bpf_iter_meta {
	struct seq_file *seq;
};

struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

struct kernel_siginfo {
	int si_signo;
	int si_errno;
	int si_code;
};

struct socket {
	struct file *file;
};

struct sock_common {
	__u32 skc_daddr;
	__u16 skc_dport;
	unsigned short skc_family;
	volatile unsigned char skc_state;
};

struct sk_buff_head {
	__u32 qlen;
};

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	__u32 sk_ack_backlog;
	__u32 sk_max_ack_backlog;
	struct socket *sk_socket;
	struct {
		int counter;
	} sk_drops;
};

struct unix_address;

struct unix_sock {
	struct unix_address *addr;
};

struct sk_buff {
	__u16 protocol;
};

#pragma clang attribute pop

#endif
