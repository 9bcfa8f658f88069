/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What is kept of the ends of a connection: shared by redirect.bpf.c and redirect_ioctl.bpf.c, whose
 * maps of these names are the same.
 */
#ifndef NETCTL_REDIRECT_ENDS_H
#define NETCTL_REDIRECT_ENDS_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

/* Private to one socket. */
struct rd_mine {
	__u64 key;	    /* of the pair that it joined, or 0 */
	__u64 announced_ns; /* when the joiner was told */
	__u32 index;	    /* in rd_socks: 2 * slot + side */
	__u32 waited;	    /* callbacks since then */
	__u32 refused;	    /* rd_join did, for good */
	__u32 foreign;	    /* another netctl observes it: its flags are that one's */
	__u32 taken_back; /* it was in the map for a moment: its psock may still be on its way out */
	__u32 reserved;
};
#define NOT_JOINED 0xffffffffu

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_SLOTS);
	__type(key, __u32);
	__type(value, struct nc_rd_pair);
} rd_pairs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct rd_mine);
} rd_mine SEC(".maps");

#define READ(destination, pointer)                                                                 \
	bpf_probe_read_kernel(&(destination), sizeof(destination), pointer)

/* Closed meanwhile: the socket's psock is no longer the one that joined. */
static __always_inline bool gone(__u64 socket, __u64 psock)
{
	struct sock *sk = (void *)socket;
	__u64 user_data = 0;

	READ(user_data, &sk->sk_user_data);
	return (user_data & ~7ULL) != psock;
}

#endif
