/* SPDX-License-Identifier: GPL-2.0-only */
/* What bpf/bench/ shares with the prog suite and with scripts/bench. No part of the product. */
#ifndef NETCTL_ABI_BENCH_H
#define NETCTL_ABI_BENCH_H

#include "packet.h"
#include "types.h"

#define NC_BENCH_PACKETS 4096
#define NC_BENCH_HEADERS (1 << 17)

/* By how much a packet's fields differ (xor) from those of the frame that is run. */
struct nc_bench_header {
	__be32 src[4];
	__be32 dst[4];
	__u16 sport;
	__u16 dport;
	__u8 proto;
	__u8 reserved[3];
};
NC_STATIC_ASSERT(sizeof(struct nc_bench_header) == 40, "nc_bench_header has no hidden padding");

struct nc_bench_walk {
	__u32 next;
	__u32 count; /* of headers in use */
};

#endif
