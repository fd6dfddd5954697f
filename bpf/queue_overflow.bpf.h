/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Who finds the accept queue of a watched listener full. */
#ifndef REFLEX_QUEUE_OVERFLOW_H
#define REFLEX_QUEUE_OVERFLOW_H

#define ETH_P_IP_BIG_ENDIAN 0x0008 /* htons(ETH_P_IP) on the little-endian machines that the agent runs on */

/* TCP drops a SYN, or the ACK that ends a handshake, where these functions begin with a full queue: once for each
 * packet, retries included, as ListenOverflows of /proc/net/netstat counts them for a whole network namespace. */
static __always_inline int on_tcp_packet(const struct sock *sk, int typed)
{
	struct listener *known;
	__u64 inode;

	if (depth_of(sk, typed) <= limit_of(sk, typed))
		return 0;
	inode = inode_of(sk, typed);
	known = bpf_map_lookup_elem(&listeners, &inode);
	if (known)
		__sync_fetch_and_add(&known->turned_away, 1);
	return 0;
}

/* A v6 listener hands packets of v4 on to the v4 function, which counts them. */
static __always_inline int is_v4(const struct sk_buff *packet)
{
	return BPF_CORE_READ(packet, protocol) == ETH_P_IP_BIG_ENDIAN;
}

SEC("fentry/tcp_conn_request")
int BPF_PROG(on_tcp_syn_fentry, void *request_ops, void *family_ops, struct sock *sk)
{
	return on_tcp_packet(sk, 1);
}

SEC("fentry/tcp_v4_syn_recv_sock")
int BPF_PROG(on_tcp4_ack_fentry, struct sock *sk)
{
	return on_tcp_packet(sk, 1);
}

SEC("fentry/tcp_v6_syn_recv_sock")
int BPF_PROG(on_tcp6_ack_fentry, struct sock *sk, struct sk_buff *packet)
{
	return is_v4(packet) ? 0 : on_tcp_packet(sk, 1);
}

SEC("kprobe/tcp_conn_request")
int BPF_KPROBE(on_tcp_syn_kprobe, void *request_ops, void *family_ops, struct sock *sk)
{
	return on_tcp_packet(sk, 0);
}

SEC("kprobe/tcp_v4_syn_recv_sock")
int BPF_KPROBE(on_tcp4_ack_kprobe, struct sock *sk)
{
	return on_tcp_packet(sk, 0);
}

SEC("kprobe/tcp_v6_syn_recv_sock")
int BPF_KPROBE(on_tcp6_ack_kprobe, struct sock *sk, struct sk_buff *packet)
{
	return is_v4(packet) ? 0 : on_tcp_packet(sk, 0);
}

/* A unix connect has three places to look at: the listener it finds, the wait for room (of a client that blocks),
 * and what it returns. All three are of one thread. */
static __always_inline int on_unix_found(const struct sock *sk)
{
	__u64 thread, inode;
	struct unix_connect fresh = {}, *known;

	if (!sk || (unsigned long)sk >= (unsigned long)-MAX_ERRNO)
		return 0;
	if (BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_LISTEN)
		return 0;
	inode = inode_of(sk, 0);
	if (!bpf_map_lookup_elem(&listeners, &inode))
		return 0;
	thread = bpf_get_current_pid_tgid();
	known = bpf_map_lookup_elem(&connecting, &thread);
	if (known && known->inode == inode)
		return 0; /* it waited and looks again */
	fresh.inode = inode;
	bpf_map_update_elem(&connecting, &thread, &fresh, BPF_ANY);
	return 0;
}

static __always_inline int on_unix_wait(void)
{
	__u64 thread = bpf_get_current_pid_tgid();
	struct unix_connect *connect = bpf_map_lookup_elem(&connecting, &thread);
	struct listener *known;

	if (!connect || connect->blocked)
		return 0;
	connect->blocked = 1;
	known = bpf_map_lookup_elem(&listeners, &connect->inode);
	if (known)
		__sync_fetch_and_add(&known->blocked, 1);
	return 0;
}

static __always_inline int on_unix_connected(int result)
{
	__u64 thread = bpf_get_current_pid_tgid(), inode;
	struct unix_connect *connect = bpf_map_lookup_elem(&connecting, &thread);
	struct listener *known;

	if (!connect)
		return 0;
	inode = connect->inode;
	bpf_map_delete_elem(&connecting, &thread);
	known = result == -EAGAIN ? bpf_map_lookup_elem(&listeners, &inode) : NULL;
	if (known)
		__sync_fetch_and_add(&known->turned_away, 1);
	return 0;
}

/* The number of arguments of these functions differs between kernels; a helper finds what they return. */
SEC("fexit/unix_find_other")
int BPF_PROG(on_unix_found_fexit)
{
	__u64 found = 0;

	bpf_get_func_ret(ctx, &found);
	return on_unix_found((const struct sock *)found);
}

SEC("fentry/unix_wait_for_peer")
int BPF_PROG(on_unix_wait_fentry)
{
	return on_unix_wait();
}

SEC("fexit/unix_stream_connect")
int BPF_PROG(on_unix_connected_fexit)
{
	__u64 result = 0;

	bpf_get_func_ret(ctx, &result);
	return on_unix_connected(result);
}

SEC("kretprobe/unix_find_other")
int BPF_KRETPROBE(on_unix_found_kretprobe, const struct sock *found)
{
	return on_unix_found(found);
}

SEC("kprobe/unix_wait_for_peer")
int BPF_KPROBE(on_unix_wait_kprobe)
{
	return on_unix_wait();
}

SEC("kretprobe/unix_stream_connect")
int BPF_KRETPROBE(on_unix_connected_kretprobe, int result)
{
	return on_unix_connected(result);
}

#endif
