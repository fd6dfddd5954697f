/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the programs keep of each watched listener's accept queue. Like events.h, this is the only declaration: the
 * agent reads the layout from the object's own BTF. */
#ifndef REFLEX_QUEUE_TYPES_H
#define REFLEX_QUEUE_TYPES_H

#define WAIT_BUCKETS 32 /* a power of two: a mask keeps the index within the array */

/* The extremes of one second. There are two slots, by the parity of the second, so that the agent reads the second
 * that is over while the running one is written. Two CPUs at once can lose the smaller of two new extremes. */
struct queue_second {
	__u64 second;
	__u64 longest_wait_ns;
	__u32 depth;
	__u32 limit;
};

/* Value of the map `listeners`, keyed by the socket's inode, which is unique over all network namespaces.
 * Counters only rise, so that a late reader loses nothing: the agent takes differences. */
struct listener {
	struct queue_second seconds[2];
	__u64 arrivals_fentry;     /* each hook counts what it sees: more than one can be attached */
	__u64 arrivals_kprobe;
	__u64 arrivals_data_ready;
	__u64 found_waiting;       /* sum, over arrivals that data_ready saw, of the connections that were there before */
	__u64 accepts;
	__u64 waited_ns;           /* sum over all accepts */
	__u64 turned_away;         /* full queue: TCP handshake packets dropped, unix connects refused */
	__u64 blocked;             /* full queue: unix connects that had to wait for room */
	__u64 waits[WAIT_BUCKETS]; /* accepts by their wait: bucket 0 under 1 us, bucket i under 2^i us, the last open */
	__u32 depth;               /* after the latest arrival or accept that was seen */
	__u32 limit;
	__u32 drops;               /* the socket's own counter at the latest arrival that data_ready saw */
	__u32 drops_before;        /* the same at the first one */
	__u32 family;              /* AF_UNIX, AF_INET or AF_INET6 at an arrival that data_ready saw, else 0 */
	__u32 padding;
};

/* Value of the map `waiting`, keyed by the address of the socket that waits to be accepted. */
struct waiting_connection {
	__u64 queued_ns;
	__u64 inode;    /* the listener's */
	__u64 listener; /* address of the listening socket; valid while it accepts */
	__u64 mark;     /* tells the socket from a later one at the same address */
};

/* Value of the map `connecting`, keyed by thread: the full or not yet full unix listener it connects to. */
struct unix_connect {
	__u64 inode;
	__u32 blocked;
	__u32 padding;
};

#endif
