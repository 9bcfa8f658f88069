/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the TCP instruments put into their ring, `events`. Host byte order but for addresses.
 */
#ifndef NETCTL_ABI_TRACE_TCP_H
#define NETCTL_ABI_TRACE_TCP_H

#include "trace.h"

/* Of nc_tcp_event.kind, and as bits 1 << kind of the constant `wanted`. */
enum nc_tcp_kind {
	NC_TCP_CONNECT = 1, /* an attempt to connect came to its end */
	NC_TCP_STATE,	    /* the state changed */
	NC_TCP_CLOSE,	    /* a connection is over */
	NC_TCP_RETRANSMIT,  /* a segment is sent again */
	NC_TCP_RESET,	    /* a reset was sent, or came in and counts */
	NC_TCP_DROP,	    /* the kernel dropped a segment */
	NC_TCP_LISTENER,    /* nc_tcp_listener: what waits at a listening socket */
};

/* Of nc_tcp_event.why, RETRANSMIT. */
enum nc_tcp_why {
	NC_TCP_WHY_SYN = 1, /* no answer to a SYN */
	NC_TCP_WHY_SYNACK,  /* no answer to a SYN and ACK; the socket is the listener */
	NC_TCP_WHY_TIMEOUT, /* nothing was acknowledged in time */
	NC_TCP_WHY_FAST,    /* later segments were acknowledged */
	NC_TCP_WHY_PROBE,   /* of the last segment, to see whether it was lost */
};

enum nc_tcp_role { NC_TCP_UNKNOWN = 0, NC_TCP_CLIENT = 1, NC_TCP_SERVER = 2 };

/* Bits of nc_tcp_event.flags: what happened to the connection so far. */
#define NC_TCP_FIN_SENT (1u << 0)     /* this side was the first to close */
#define NC_TCP_FIN_RECEIVED (1u << 1) /* the other side was */
#define NC_TCP_RST_SENT (1u << 2)
#define NC_TCP_RST_RECEIVED (1u << 3)
#define NC_TCP_ESTABLISHED (1u << 4) /* seen, or older than the tracer */
#define NC_TCP_REASON (1u << 5)	     /* `reason` counts */

struct nc_tcp_event {
	__u8 kind;
	__u8 why;
	__u8 role;
	__u8 flags;
	__u8 before; /* states as in enum of the kernel, TCP_ESTABLISHED is 1; 0: no socket */
	__u8 after;
	__u16 error;   /* of the socket, as errno; 0: none */
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;
	/* When that began whose end is told, in the same clock: CONNECT: when it was asked for; STATE: when the state
	 * `before` was entered; CLOSE: when it was established. 0: before the tracer was there. */
	__u64 since_ns;
	__u64 cgroup_id; /* the socket's; 0: no socket */
	struct nc_trace_ends ends;
	__u32 netns;
	struct nc_trace_owner owner;
	/* RESET, CLOSE: enum sk_rst_reason of the running kernel, of the RST that was sent; DROP: enum skb_drop_reason. */
	__u32 reason;
	__u32 sequence; /* RETRANSMIT, DROP: of the segment */
	__u32 length;	/* RETRANSMIT, DROP: its payload */
	__u32 reserved;
	__u64 place;	      /* DROP: address of the code that dropped it */
	__u64 sent_bytes;     /* without what was sent again */
	__u64 received_bytes; /* in order */
	__u64 retransmitted_bytes;
	__u32 sent_segments;
	__u32 received_segments;
	__u32 retransmitted_segments; /* SYNs, too */
	__u32 rtt_us;		      /* smoothed; 0: never measured */
	__u32 rtt_deviation_us;
	__u32 min_rtt_us; /* 0: never measured */
};
NC_STATIC_ASSERT(sizeof(struct nc_tcp_event) == 176, "nc_tcp_event is ABI");

/* Once for each file that is open of it; of one cookie, the first counts. */
struct nc_tcp_listener {
	__u8 kind;
	__u8 reserved[3];
	__u32 netns;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;
	__u64 cgroup_id;
	struct nc_trace_ends ends;
	struct nc_trace_owner owner;
	__u32 ready;	 /* connections that wait for accept() */
	__u32 half_open; /* connections whose last ACK is awaited */
	__u32 limit;	 /* what listen() was told, or net.core.somaxconn if that is less */
	__u64 drops;	 /* connections that were refused or forgotten since it listens */
};
NC_STATIC_ASSERT(sizeof(struct nc_tcp_listener) == 112, "nc_tcp_listener is ABI");

#endif
