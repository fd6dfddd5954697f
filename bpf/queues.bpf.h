/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How deep the accept queue of a known listener gets. */
#ifndef REFLEX_QUEUES_H
#define REFLEX_QUEUES_H

#define TCP_LISTEN 10 /* unix stream listeners use the same number */
#define AF_UNIX 1
#define SECOND_NS 1000000000ULL

/* TCP counts waiting connections in sk_ack_backlog; unix sockets leave that at 0 and queue one buffer each. */
static __always_inline __u32 queue_depth(const struct sock *sk)
{
	return sk->__sk_common.skc_family == AF_UNIX ? sk->sk_receive_queue.qlen : sk->sk_ack_backlog;
}

/* Fires for every socket that gets data; a listener fires right after a connection was queued. */
SEC("tp_btf/sk_data_ready")
int BPF_PROG(on_data_ready, const struct sock *sk)
{
	struct listener *known;
	struct queue_peak *peak;
	__u64 inode, second;
	__u32 depth;

	if (sk->__sk_common.skc_state != TCP_LISTEN || !sk->sk_socket)
		return 0;
	inode = sk->sk_socket->file->f_inode->i_ino;
	known = bpf_map_lookup_elem(&listeners, &inode);
	if (!known)
		return 0;
	second = bpf_ktime_get_boot_ns() / SECOND_NS;
	peak = &known->peak[second & 1];
	if (peak->second != second) {
		peak->second = second;
		peak->depth = 0;
	}
	depth = queue_depth(sk);
	if (depth > peak->depth)
		peak->depth = depth;
	peak->limit = sk->sk_max_ack_backlog;
	__sync_fetch_and_add(&peak->wakeups, 1);
	return 0;
}

#endif
