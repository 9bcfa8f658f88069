/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What `xdp|tc capture` hands out of the kernel. Nothing of it is pinned. Host byte order, but for what is of the
 * frame.
 */
#ifndef NETCTL_ABI_CAPTURE_H
#define NETCTL_ABI_CAPTURE_H

#include "types.h"

/* Most bytes kept of a frame: more than any has. */
#define NC_CAPTURE_MOST (1u << 18)

/* A record of the ring buffer `captured`; the start of the frame follows. */
struct nc_captured {
	__u64 time_ns;	   /* CLOCK_BOOTTIME */
	__u32 len;	   /* of the frame */
	__u32 bytes;	   /* that follow; the record may be longer */
	__u16 vlan_tci;	   /* a tag that the kernel has taken out of the frame */
	__be16 vlan_proto; /* its Ethernet type; 0: there is none */
	__s32 answer; /* of the hook's program (enum xdp_action); NC_CAPTURE_NO_ANSWER: not known */
};
#define NC_CAPTURE_NO_ANSWER 0x7fffffff
NC_STATIC_ASSERT(sizeof(struct nc_captured) == 24, "nc_captured has no padding");

/* Map `capture_counts`, per CPU. */
struct nc_capture_counts {
	__u64 looked_at; /* packets that came by */
	__u64 unparsed;	 /* of these: what no rule is asked about */
	__u64 matched;
	__u64 lost;   /* of these: the ring buffer was full, or the frame could not be read */
	__u64 unseen; /* packets that came by besides, while nobody looked on */
	__u64 begun;  /* whether seen_until tells */
	__u64 seen_until; /* the filter's count of packets (nc_stats) up to which they are seen or unseen */
};

/* Most bytes that are kept of a frame in XDP, of its first buffer. */
#define NC_CAPTURE_HELD (1u << 14)

/* Map `held`, per CPU: the packet that the filter is at. */
struct nc_capture_held {
	__u64 time_ns;
	__u32 len;   /* of the frame */
	__u32 bytes; /* that are held of it */
	__u32 matches;
	__u32 entered; /* 1 while the filter is at it */
	__u8 bytes_held[NC_CAPTURE_HELD];
};

#endif
