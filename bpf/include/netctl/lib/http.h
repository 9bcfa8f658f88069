/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What both HTTP sources share: configuration, counters, the ring, and the look at first bytes.
 * Include vmlinux.h and bpf_helpers.h before.
 */
#ifndef NETCTL_LIB_HTTP_H
#define NETCTL_LIB_HTTP_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

#include <netctl/abi/http.h>

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_http_config);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_HTTP_PORTS);
	__type(key, __u32);
	__type(value, __u8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_http_counters);
} counters SEC(".maps");

/* Written with BPF_RB_NO_WAKEUP: waking the reader costs more than all the rest, so it looks by itself
 * each few milliseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} events SEC(".maps");

static __always_inline bool nc_http_port(__u32 port)
{
	__u8 *selected = bpf_map_lookup_elem(&ports, &port);

	return selected && *selected;
}

enum nc_http_start {
	NC_HTTP_START_NO,
	NC_HTTP_START_MAYBE,
	NC_HTTP_START_REQUEST,
	NC_HTTP_START_RESPONSE
};

#define NC_FOUR(a, b, c, d) ((__u32)(a) | (__u32)(b) << 8 | (__u32)(c) << 16 | (__u32)(d) << 24)

/* What the first four bytes of a call or packet look like; `first` as it lies in memory, on a little
 * endian machine. Fewer bytes than four may be anything that begins with capitals: userspace looks
 * again. */
static __always_inline enum nc_http_start nc_http_first_bytes(__u32 first, __u32 length)
{
	if (length < 4) {
		if ((first & 0xff) < 'A' || (first & 0xff) > 'Z')
			return NC_HTTP_START_NO;
		if (length > 1 && ((first >> 8 & 0xff) < 'A' || (first >> 8 & 0xff) > 'Z'))
			return NC_HTTP_START_NO;
		if (length > 2 && ((first >> 16 & 0xff) < 'A' || (first >> 16 & 0xff) > 'Z'))
			return NC_HTTP_START_NO;
		return NC_HTTP_START_MAYBE;
	}
	switch (first) {
	case NC_FOUR('H', 'T', 'T', 'P'):
		return NC_HTTP_START_RESPONSE;
	case NC_FOUR('G', 'E', 'T', ' '):
	case NC_FOUR('P', 'O', 'S', 'T'):
	case NC_FOUR('P', 'U', 'T', ' '):
	case NC_FOUR('H', 'E', 'A', 'D'):
	case NC_FOUR('D', 'E', 'L', 'E'):
	case NC_FOUR('O', 'P', 'T', 'I'):
	case NC_FOUR('P', 'A', 'T', 'C'):
	case NC_FOUR('C', 'O', 'N', 'N'):
	case NC_FOUR('T', 'R', 'A', 'C'):
	case NC_FOUR('P', 'R', 'O', 'P'):
	case NC_FOUR('M', 'K', 'C', 'O'):
	case NC_FOUR('M', 'K', 'A', 'C'):
	case NC_FOUR('M', 'K', 'C', 'A'):
	case NC_FOUR('M', 'K', 'R', 'E'):
	case NC_FOUR('M', 'K', 'W', 'O'):
	case NC_FOUR('C', 'O', 'P', 'Y'):
	case NC_FOUR('M', 'O', 'V', 'E'):
	case NC_FOUR('L', 'O', 'C', 'K'):
	case NC_FOUR('U', 'N', 'L', 'O'):
	case NC_FOUR('A', 'C', 'L', ' '):
	case NC_FOUR('B', 'A', 'S', 'E'):
	case NC_FOUR('B', 'I', 'N', 'D'):
	case NC_FOUR('C', 'H', 'E', 'C'):
	case NC_FOUR('L', 'A', 'B', 'E'):
	case NC_FOUR('L', 'I', 'N', 'K'):
	case NC_FOUR('M', 'E', 'R', 'G'):
	case NC_FOUR('O', 'R', 'D', 'E'):
	case NC_FOUR('Q', 'U', 'E', 'R'):
	case NC_FOUR('R', 'E', 'B', 'I'):
	case NC_FOUR('R', 'E', 'P', 'O'):
	case NC_FOUR('S', 'E', 'A', 'R'):
	case NC_FOUR('S', 'O', 'U', 'R'):
	case NC_FOUR('U', 'N', 'B', 'I'):
	case NC_FOUR('U', 'N', 'C', 'H'):
	case NC_FOUR('U', 'N', 'L', 'I'):
	case NC_FOUR('U', 'P', 'D', 'A'):
	case NC_FOUR('V', 'E', 'R', 'S'):
	case NC_FOUR('P', 'U', 'R', 'G'):
	case NC_FOUR('P', 'R', 'I', ' '):
	case NC_FOUR('M', '-', 'S', 'E'):
	case NC_FOUR('N', 'O', 'T', 'I'):
	case NC_FOUR('S', 'U', 'B', 'S'):
	case NC_FOUR('U', 'N', 'S', 'U'):
		return NC_HTTP_START_REQUEST;
	}
	/* An empty line may come before a request (RFC 9112 2.2). */
	if ((first & 0xffff) == ('\r' | '\n' << 8) && (first >> 16 & 0xff) >= 'A' &&
	    (first >> 16 & 0xff) <= 'Z')
		return NC_HTTP_START_MAYBE;
	return NC_HTTP_START_NO;
}

/* Whether a connection whose first bytes are these may be of HTTP/2, and older than the tracer; of more than nine
 * bytes, nc_http2_first_bytes() says so then. */
static __always_inline bool nc_http2_maybe(__u32 first)
{
	return !(first & 0xff) &&
	       1u << (first >> 24 & 31) & (1u << 1 | 1u << 4 | 1u << 6 | 1u << 8) &&
	       first >> 24 < 9;
}

/* What a call or packet begins with that is of HTTP/2: a head, which tells whose it is by the field that it begins
 * with, or one of the frames that often stand before one. `first` are its first eight bytes, `rest` two more. */
static __always_inline enum nc_http_start nc_http2_first_bytes(__u64 first, __u32 rest)
{
	__u32 length = (first >> 8 & 0xff) << 8 | (first >> 16 & 0xff), type = first >> 24 & 0xff;
	__u32 flags = first >> 32 & 0xff, field = rest >> 8 & 0xff;
	__u64 stream = first >> 40 | (__u64)(rest & 0xff) << 24; /* its bytes, the highest first */

	if (first & 0xff || length > 16384 || stream & 0x80)
		return NC_HTTP_START_NO;
	if (type == 8) /* WINDOW_UPDATE */
		return length == 4 && !flags ? NC_HTTP_START_MAYBE : NC_HTTP_START_NO;
	if (stream == 0) /* PING; SETTINGS, but only that it was heeded */
		return (type == 6 && length == 8 && flags <= 1) ||
				       (type == 4 && length == 0 && flags == 1) ?
			       NC_HTTP_START_MAYBE :
			       NC_HTTP_START_NO;
	/* HEADERS of a stream that a client began, whole. */
	if (type != 1 || !length || flags & ~0x2du || !(flags & 4) || !(rest & 1))
		return NC_HTTP_START_NO;
	if (flags & 0x28)
		return NC_HTTP_START_MAYBE;
	if (field >= 0x82 && field <= 0x87)
		return NC_HTTP_START_REQUEST;
	if (field >= 0x88 && field <= 0x8e)
		return NC_HTTP_START_RESPONSE;
	return field >= 0x80 || (field & 0xe0) == 0x20 || (field & 0x3f) <= 14 ?
		       NC_HTTP_START_MAYBE :
		       NC_HTTP_START_NO;
}

#endif
