/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* The accept queues of watched listeners: how deep, how long connections wait in them, how many find them full. */
#ifndef REFLEX_QUEUES_H
#define REFLEX_QUEUES_H

#define TCP_LISTEN 10 /* unix stream listeners use the same number */
#define AF_UNIX 1
#define SECOND_NS 1000000000ULL
#define ONE_ENQUEUE_NS 100000000ULL
#define EAGAIN 11
#define MAX_ERRNO 4095

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct listener);
} listeners SEC(".maps");

/* Connections of watched listeners between enqueue and accept. One that is never accepted (its listener was closed)
 * stays until newer ones need its place. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct waiting_connection);
} waiting SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1024);
	__type(key, __u64);
	__type(value, struct unix_connect);
} connecting SEC(".maps");

/* `typed`: the verifier knows what the pointer is, so that plain loads do; elsewhere (kprobes, pointers out of maps)
 * a helper reads. It is a constant, and the compiler keeps one branch. */
static __always_inline __u64 inode_of(const struct sock *sk, int typed)
{
	return typed ? sk->sk_socket->file->f_inode->i_ino : BPF_CORE_READ(sk, sk_socket, file, f_inode, i_ino);
}

/* TCP counts waiting connections in sk_ack_backlog; unix sockets leave that at 0 and queue one buffer each. */
static __always_inline __u32 depth_of(const struct sock *sk, int typed)
{
	if (typed)
		return sk->__sk_common.skc_family == AF_UNIX ? sk->sk_receive_queue.qlen : sk->sk_ack_backlog;
	return BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX ? BPF_CORE_READ(sk, sk_receive_queue.qlen) :
								      BPF_CORE_READ(sk, sk_ack_backlog);
}

static __always_inline __u32 limit_of(const struct sock *sk, int typed)
{
	return typed ? sk->sk_max_ack_backlog : BPF_CORE_READ(sk, sk_max_ack_backlog);
}

/* What a socket that waits has in common with itself and not with the next one at its address: of TCP the peer, of
 * unix the address object that it shares with its listener. */
static __always_inline __u64 mark_of(const struct sock *sk)
{
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX)
		return (__u64)BPF_CORE_READ((const struct unix_sock *)sk, addr);
	return (__u64)BPF_CORE_READ(sk, __sk_common.skc_daddr) << 16 | BPF_CORE_READ(sk, __sk_common.skc_dport);
}

static __always_inline struct queue_second *second_at(struct listener *known, __u64 now_ns)
{
	__u64 second = now_ns / SECOND_NS;
	struct queue_second *slot = &known->seconds[second & 1];

	if (slot->second != second) {
		slot->second = second;
		slot->depth = 0;
		slot->longest_wait_ns = 0;
	}
	return slot;
}

static __always_inline void note_depth(struct listener *known, __u64 now_ns, __u32 depth, __u32 limit)
{
	struct queue_second *slot = second_at(known, now_ns);

	if (depth > slot->depth)
		slot->depth = depth;
	slot->limit = limit;
	known->depth = depth;
	known->limit = limit;
}

/* Right before `child` joins the queue of `sk`; its mark is that of `marked`. Two hooks can be on its way: what a hook
 * finds `noted` a moment ago it leaves alone. */
static __always_inline int on_enqueue(const struct sock *sk, const struct sock *child, const struct sock *marked,
				      int typed)
{
	__u64 inode = inode_of(sk, typed), key = (__u64)child, now_ns;
	struct listener *known = bpf_map_lookup_elem(&listeners, &inode);
	struct waiting_connection entry, *noted;

	if (!known)
		return 0;
	now_ns = bpf_ktime_get_boot_ns();
	entry.queued_ns = now_ns;
	entry.inode = inode;
	entry.listener = (__u64)sk;
	entry.mark = mark_of(marked);
	if (marked == child) {
		noted = bpf_map_lookup_elem(&waiting, &key);
		if (noted && noted->mark == entry.mark && noted->inode == inode &&
		    now_ns - noted->queued_ns < ONE_ENQUEUE_NS)
			return 0;
	}
	note_depth(known, now_ns, depth_of(sk, typed) + 1, limit_of(sk, typed));
	__sync_fetch_and_add(typed ? &known->arrivals_fentry : &known->arrivals_kprobe, 1);
	bpf_map_update_elem(&waiting, &key, &entry, BPF_ANY);
	return 0;
}

static __always_inline __u32 wait_bucket(__u64 waited_ns)
{
	__u64 rest_us = waited_ns / 1000;
	__u32 bucket = 0;

	for (int i = 1; i < WAIT_BUCKETS; i++) {
		if (!rest_us)
			break;
		rest_us >>= 1;
		bucket++;
	}
	return bucket & (WAIT_BUCKETS - 1);
}

/* The process that accepts is the current one. */
static __always_inline void count_accept(void)
{
	struct tracked *process = tracked_pid(bpf_get_current_pid_tgid() >> 32);

	if (process)
		__sync_fetch_and_add(&process->accepts, 1);
}

/* An accepted socket gets its file. */
static __always_inline int on_accept(const struct sock *child)
{
	__u64 key = (__u64)child, now_ns, waited_ns;
	struct waiting_connection *found = bpf_map_lookup_elem(&waiting, &key), entry;
	struct queue_second *slot;
	struct listener *known;
	const struct sock *sk;

	if (!found)
		return 0;
	entry = *found;
	bpf_map_delete_elem(&waiting, &key);
	known = bpf_map_lookup_elem(&listeners, &entry.inode);
	if (!known || entry.mark != mark_of(child))
		return 0;
	now_ns = bpf_ktime_get_boot_ns();
	waited_ns = now_ns - entry.queued_ns;
	sk = (const struct sock *)entry.listener;
	note_depth(known, now_ns, depth_of(sk, 0), limit_of(sk, 0));
	slot = second_at(known, now_ns);
	if (waited_ns > slot->longest_wait_ns)
		slot->longest_wait_ns = waited_ns;
	__sync_fetch_and_add(&known->accepts, 1);
	__sync_fetch_and_add(&known->waited_ns, waited_ns);
	__sync_fetch_and_add(&known->waits[wait_bucket(waited_ns)], 1);
	count_accept();
	return 0;
}

/* A handshake that ends well. It is queued by inet_csk_reqsk_queue_add, which compilers inline here: hooks on that
 * function alone see the other ways into the queue, of SYN cookies and TCP Fast Open. */
SEC("fentry/inet_csk_complete_hashdance")
int BPF_PROG(on_tcp_handshake_fentry, struct sock *sk, struct sock *child, void *request, unsigned char owned)
{
	return owned ? on_enqueue(sk, child, child, 1) : 0;
}

SEC("kprobe/inet_csk_complete_hashdance")
int BPF_KPROBE(on_tcp_handshake_kprobe, struct sock *sk, struct sock *child, void *request, unsigned char owned)
{
	return owned ? on_enqueue(sk, child, child, 0) : 0;
}

SEC("fentry/inet_csk_reqsk_queue_add")
int BPF_PROG(on_tcp_enqueue_fentry, struct sock *sk, void *request, struct sock *child)
{
	return on_enqueue(sk, child, child, 1);
}

SEC("kprobe/inet_csk_reqsk_queue_add")
int BPF_KPROBE(on_tcp_enqueue_kprobe, struct sock *sk, void *request, struct sock *child)
{
	return on_enqueue(sk, child, child, 0);
}

/* The security hook of a unix connect is called right before the connection is queued, after the check for room and
 * under the listener's lock. */
SEC("fentry/security_unix_stream_connect")
int BPF_PROG(on_unix_enqueue_fentry, struct sock *client, struct sock *sk, struct sock *child)
{
	return on_enqueue(sk, child, sk, 1);
}

SEC("kprobe/security_unix_stream_connect")
int BPF_KPROBE(on_unix_enqueue_kprobe, struct sock *client, struct sock *sk, struct sock *child)
{
	return on_enqueue(sk, child, sk, 0);
}

/* The security hook of accept(2), TCP and unix alike: the same on all kernels, while the signatures of inet_csk_accept
 * and unix_accept changed in 6.10. Being entered only when there is a connection, it needs no return probe, of which
 * the kernel has few and every process that sleeps in accept(2) would hold one. */
SEC("fentry/security_sock_graft")
int BPF_PROG(on_accept_fentry, struct sock *child)
{
	return on_accept(child);
}

SEC("kprobe/security_sock_graft")
int BPF_KPROBE(on_accept_kprobe, struct sock *child)
{
	return on_accept(child);
}

/* Fires for every socket that gets data, so the first test decides what it costs; a listener fires right after a
 * connection was queued. */
SEC("tp_btf/sk_data_ready")
int BPF_PROG(on_data_ready, const struct sock *sk)
{
	struct listener *known;
	__u64 inode;
	__u32 depth;

	if (sk->__sk_common.skc_state != TCP_LISTEN)
		return 0;
	inode = inode_of(sk, 1);
	known = bpf_map_lookup_elem(&listeners, &inode);
	if (!known)
		return 0;
	depth = depth_of(sk, 1);
	note_depth(known, bpf_ktime_get_boot_ns(), depth, limit_of(sk, 1));
	known->family = sk->__sk_common.skc_family;
	known->drops = sk->sk_drops.counter;
	if (!__sync_fetch_and_add(&known->arrivals_data_ready, 1))
		known->drops_before = known->drops;
	if (depth)
		__sync_fetch_and_add(&known->found_waiting, depth - 1);
	return 0;
}

#endif
