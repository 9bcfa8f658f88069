/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the instruments of `netctl trace` share beside the HTTP tracers, which have their own (http.h): what is
 * selected, and what their programs count. Host byte order but for addresses.
 */
#ifndef NETCTL_ABI_TRACE_H
#define NETCTL_ABI_TRACE_H

#include "types.h"

/* Bits of nc_trace_selection.select: which selectors count. What is told must pass all of them. */
#define NC_TRACE_SELECT_PORT (1u << 0)	 /* local or remote port is in the map `ports` */
#define NC_TRACE_SELECT_PID (1u << 1)	 /* the owner's thread group is `pid` */
#define NC_TRACE_SELECT_COMM (1u << 2)	 /* the owner's name is `comm` */
#define NC_TRACE_SELECT_CGROUP (1u << 3) /* the socket's cgroup is `cgroup_id` or below it */
#define NC_TRACE_SELECT_NETNS (1u << 4)	 /* the socket's network namespace is `netns` */
#define NC_TRACE_SELECT_SRC (1u << 5)	 /* the local address is in the map `sources` */
#define NC_TRACE_SELECT_DST (1u << 6)	 /* the remote address is in the map `destinations` */

/* A constant of the programs: a tracer's selection does not change while it runs. */
struct nc_trace_selection {
	__u32 select;
	__u32 pid;
	__u32 netns;	    /* inode number */
	__u32 cgroup_level; /* of cgroup_id below the root of cgroup v2 */
	__u64 cgroup_id;
	char comm[16];
};
NC_STATIC_ASSERT(sizeof(struct nc_trace_selection) == 40, "nc_trace_selection is ABI");

/* Keys of `sources` and `destinations` (LPM_TRIE): IPv4 as ::ffff:a.b.c.d, its lengths 96 more. */
struct nc_trace_prefix {
	__u32 length;
	__u8 address[16];
};
NC_STATIC_ASSERT(sizeof(struct nc_trace_prefix) == 20, "nc_trace_prefix is ABI");
#define NC_TRACE_PREFIXES 256
#define NC_TRACE_PORTS 65536

/* Of a connection; IPv4 addresses are the first four bytes. */
struct nc_trace_ends {
	__u8 local[16];
	__u8 remote[16];
	__u16 local_port; /* 0: not chosen yet */
	__u16 remote_port;
	__u8 family; /* 4 or 6 */
	__u8 reserved[3];
};
NC_STATIC_ASSERT(sizeof(struct nc_trace_ends) == 40, "nc_trace_ends is ABI");

/* A per-CPU array of one, `counters`. */
struct nc_trace_counters {
	__u64 seen;	 /* events on TCP sockets */
	__u64 sent;	 /* records put into the ring, or samples that were counted */
	__u64 lost;	 /* records that found it full */
	__u64 no_memory; /* sockets that could not be remembered */
};
NC_STATIC_ASSERT(sizeof(struct nc_trace_counters) == 32, "nc_trace_counters is ABI");

/* Whose socket it is: who asked for the connection, listens, or closed it. */
struct nc_trace_owner {
	__u32 pid;     /* thread group; 0: not known */
	char comm[16]; /* of the thread group's leader */
};
NC_STATIC_ASSERT(sizeof(struct nc_trace_owner) == 20, "nc_trace_owner is ABI");

#endif
