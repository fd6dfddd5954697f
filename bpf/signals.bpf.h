/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Who sent which signal to a master or a worker. The tracepoint runs in the sender. */
#ifndef REFLEX_SIGNALS_H
#define REFLEX_SIGNALS_H

#define BIT(number) (1ULL << (number))

/* Signals that end, reload or scale a service: HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR2 SEGV TERM TTIN
 * TTOU XCPU SYS. Left out are those of everyday work, such as CHLD, ALRM, PIPE and USR1 (reopen the logs). */
#define TELLING_SIGNALS \
	(BIT(1) | BIT(2) | BIT(3) | BIT(4) | BIT(5) | BIT(6) | BIT(7) | BIT(8) | BIT(9) | BIT(11) | BIT(12) | BIT(15) | \
	 BIT(21) | BIT(22) | BIT(24) | BIT(31))

#define SI_KERNEL 128
#define SEND_SIG_PRIV 1 /* a siginfo pointer of 0 or 1 is no pointer: "no information" and "from the kernel" */

static __always_inline int code_of(const struct kernel_siginfo *info)
{
	if ((unsigned long)info == SEND_SIG_PRIV)
		return SI_KERNEL;
	if ((unsigned long)info == 0)
		return 0;
	return BPF_CORE_READ(info, si_code);
}

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int signal, struct kernel_siginfo *info, struct task_struct *target, int group, int result)
{
	struct task_struct *sender;
	struct tty_struct *terminal;
	struct tracked *known;
	struct signal_record *record;

	if (signal < 1 || signal > 31 || !(TELLING_SIGNALS & BIT(signal)))
		return 0;
	known = tracked_process(target);
	if (!known || known->role == ROLE_HELPER)
		return 0;
	record = reserve(RECORD_SIGNAL, sizeof(*record), target);
	if (!record)
		return 0;
	sender = (void *)bpf_get_current_task();
	record->sender_pid = BPF_CORE_READ(sender, tgid);
	record->sender_start_ns = BPF_CORE_READ(sender, group_leader, start_boottime);
	record->sender_uid = BPF_CORE_READ(sender, cred, uid.val);
	record->sender_parent_pid = BPF_CORE_READ(sender, real_parent, tgid);
	record->signal = signal;
	record->code = code_of(info);
	record->result = result;
	record->role = known->role;
	BPF_CORE_READ_STR_INTO(&record->sender_comm, sender, comm);
	BPF_CORE_READ_STR_INTO(&record->sender_parent_comm, sender, real_parent, comm);
	terminal = BPF_CORE_READ(sender, signal, tty);
	if (terminal)
		bpf_probe_read_kernel_str(record->sender_tty, sizeof(record->sender_tty), &terminal->name);
	bpf_ringbuf_submit(record, 0);
	return 0;
}

#endif
