/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The HTTP tracers: what they are told (pinned while one runs, at <root>/trace/PID/), what they
 * count, and the records they put into the ring buffer. All in host byte order but for addresses
 * and what is marked __be.
 */
#ifndef NETCTL_ABI_HTTP_H
#define NETCTL_ABI_HTTP_H

#include "types.h"

/* Bits of nc_http_config.select: which selectors count. What passes must pass all of them. */
#define NC_HTTP_SELECT_PORT (1u << 0)	/* local or remote port is in the map `ports` */
#define NC_HTTP_SELECT_PID (1u << 1)	/* the process is in the map `pids`; system calls only */
#define NC_HTTP_SELECT_CGROUP (1u << 2) /* the process is below cgroup_id; system calls only */
#define NC_HTTP_SELECT_COMM (1u << 3)	/* the process's name is comm; system calls only */
#define NC_HTTP_SELECT_NETNS (1u << 4)	/* the socket's namespace; system calls only */

/* Bits of nc_http_config.flags. */
#define NC_HTTP_BOTH_SIDES (1u << 0)  /* a loopback client's own view is wanted, too */
#define NC_HTTP_PAUSED (1u << 1)      /* tell nothing */
#define NC_HTTP_WHOLE_FLOWS (1u << 2) /* packets: also those without payload (for capture files) */

/* Pinned as `settings`, an array of one. Any tool may change it while a tracer runs; it takes effect
 * with the next system call or packet. */
struct nc_http_config {
	__u32 abi_version; /* NC_ABI_VERSION */
	__u32 select;
	__u32 flags;
	__u32 turn_bytes; /* copied at most of one side's bytes until the other side speaks; chunks and pipelines whole */
	__u32 body_bytes;   /* copied at most of a response's body that is not chunked */
	__u32 cgroup_level; /* of cgroup_id below the root of cgroup v2 */
	__u64 cgroup_id;
	__u32 netns;	/* inode number */
	__u32 loopback; /* ifindex of lo: packets that leave through it are seen as they come back */
	char comm[16];
};
NC_STATIC_ASSERT(sizeof(struct nc_http_config) == 56, "nc_http_config is ABI");

/* Pinned as `ports`: an array with an element for each port in host order, 1: selected. */
#define NC_HTTP_PORTS 65536

/* Pinned as `counters`, a per-CPU array of one. */
struct nc_http_counters {
	__u64 seen;	   /* calls on stream sockets of TCP and Unix, or packets */
	__u64 selected;	   /* of these, what the selectors left */
	__u64 other;	   /* of these, on connections that did not say anything like HTTP so far */
	__u64 sent;	   /* records put into the ring */
	__u64 lost;	   /* records that found it full */
	__u64 truncated;   /* calls or packets of which less was copied than was wanted */
	__u64 unreadable;  /* calls whose buffer could not be read, as it was not in memory */
	__u64 unsupported; /* calls whose buffer is not known: 32-bit programs */
	__u64 io_uring;	   /* calls made by io_uring, whose buffer is not known */
	__u64 lengths; /* sendfile and splice, which have no buffer, or packets within bodies: told without bytes */
	__u64 skipped;	 /* calls of local clients whose server is seen */
	__u64 no_memory; /* connections that could not be remembered */
	__u64 fragments; /* packets: IP fragments, not put together */
	__u64 damaged;	 /* packets: headers that are cut or contradict themselves */
};
NC_STATIC_ASSERT(sizeof(struct nc_http_counters) == 14 * 8, "nc_http_counters is ABI");

enum nc_http_kind {
	NC_HTTP_OPEN = 1, /* nc_http_open: a connection spoke HTTP, or went to another process */
	NC_HTTP_DATA,	  /* nc_http_record: bytes passed */
	NC_HTTP_END,	  /* nc_http_record: one direction ended */
	NC_HTTP_CLOSE,	  /* nc_http_record: the connection is gone */
	NC_HTTP_PACKET,	  /* nc_http_packet */
	NC_HTTP_SEALED, /* nc_http_open: a connection carries TLS that no hooked library has put there so far */
};

enum nc_http_direction { NC_HTTP_SENT = 0, NC_HTTP_RECEIVED = 1 };
enum nc_http_role { NC_HTTP_UNKNOWN = 0, NC_HTTP_CLIENT = 1, NC_HTTP_SERVER = 2 };

/* Bits of nc_http_record.flags. */
#define NC_HTTP_SKIPPED (1u << 0)  /* OPEN: a local client; nothing but this is told of it */
#define NC_HTTP_TLS (1u << 1)	   /* OPEN: what follows was inside TLS; see NC_HTTP_STREAM */
#define NC_HTTP_UNPLACED (1u << 2) /* OPEN: whether its socket is selected is not known yet */
#define NC_HTTP_FORGET (1u << 3)   /* CLOSE: it is not selected; nothing is to be told of it */

/* In place of a socket's cookie: plaintext of a TLS library, with positions that count from the first byte that was
 * seen. Its OPEN comes again when its socket becomes known. */
#define NC_HTTP_STREAM (1ull << 63)

/* Heads each record of the system-call source. */
struct nc_http_record {
	__u8 kind;
	__u8 direction;
	__u16 flags;
	__u32 pid;     /* thread group of the caller; 0 where there is none */
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u64 cookie;  /* of the socket */
	/* Of the first byte in its direction: its low 32 bits are the sequence number that TCP gives that byte, so
	 * both ends of a connection have the same. In Unix sockets it counts from the first that was seen. */
	__u64 position;
	__u64 answered; /* position of the other direction then: what its caller had sent, or received */
	__u32 length;	/* bytes that passed */
	__u32 captured; /* of these, the first ones that follow this header */
};
NC_STATIC_ASSERT(sizeof(struct nc_http_record) == 48, "nc_http_record is ABI");

#define NC_HTTP_UNKNOWN_SOCKET 0
#define NC_HTTP_UNIX 1
#define NC_HTTP_PATH 108 /* of a Unix socket, as in sockaddr_un: an abstract name begins with 0 */

struct nc_http_open {
	struct nc_http_record record;
	__u8 role;
	__u8 family; /* 4, 6, NC_HTTP_UNIX, or NC_HTTP_UNKNOWN_SOCKET (TLS only): no addresses */
	__u16 local_port;
	__u16 remote_port;
	__u16 path_length;
	__u8 local[16]; /* IPv4: the first four bytes */
	__u8 remote[16];
	__u32 netns;
	__u32 origin_sent; /* TLS: the number of the connection's first byte, by direction, within one or two */
	__u64 cgroup_id;
	char comm[16];	/* of the thread group's leader */
	__u64 begin[2]; /* positions of the first bytes that might have been seen, by direction */
	/* Unix sockets: the cookie of the other end, 0 if it has none yet, and the path that one of them is bound to. */
	__u64 peer;
	char path[NC_HTTP_PATH];
	__u32 origin_received;
};
NC_STATIC_ASSERT(sizeof(struct nc_http_open) == 48 + 88 + 120, "nc_http_open is ABI");

/* Of `flows`, the packet source's connections, which is not pinned. The lower end comes first: addresses are
 * compared as four words in host order, then ports. IPv4 addresses are the first four bytes. */
struct nc_http_flow_key {
	__u8 low[16];
	__u8 high[16];
	__u16 low_port;
	__u16 high_port;
};
NC_STATIC_ASSERT(sizeof(struct nc_http_flow_key) == 36, "nc_http_flow_key is ABI");

/* By sender, the lower end first. Userspace says up to where a body goes on, and no byte of it is copied. */
struct nc_http_flow {
	__u32 until[2]; /* sequence numbers, at most 2^30 ahead */
	__u8 skip[2];	/* 1: `until` counts; the kernel clears it when that is reached */
	__u8 reserved[2];
};
NC_STATIC_ASSERT(sizeof(struct nc_http_flow) == 12, "nc_http_flow is ABI");

/* Of `tls_flows`, by a stream's id, which is not pinned: up to which position, by direction, userspace wants no
 * bytes. */
struct nc_http_tls_flow {
	__u64 until[2];
};
NC_STATIC_ASSERT(sizeof(struct nc_http_tls_flow) == 16, "nc_http_tls_flow is ABI");

/* A packet, from its IP header on, follows. */
struct nc_http_packet {
	__u8 kind;
	__u8 verify; /* 1: nobody vouches for the TCP checksum yet */
	__u16 vlan;  /* the tag that was in the metadata, or 0 */
	__u32 ifindex;
	__u64 time_ns; /* CLOCK_MONOTONIC */
	__u32 length;  /* from the IP header on */
	__u32 captured;
};
NC_STATIC_ASSERT(sizeof(struct nc_http_packet) == 24, "nc_http_packet is ABI");

#endif
