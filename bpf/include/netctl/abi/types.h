/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What every shared header needs: fixed-width types, and a compile-time check of layouts.
 * Headers in this folder are read by BPF programs, by userspace and by other tools (they are
 * installed). Each struct has its padding named and its byte order said; host order where nothing
 * is said. Names of network-order members are of type __be16 or __be32, or say so.
 */
#ifndef NETCTL_ABI_TYPES_H
#define NETCTL_ABI_TYPES_H

#ifndef __bpf__ /* BPF programs have these types from vmlinux.h */
#include <linux/types.h>
#endif

/* Raised when a pinned map changes its meaning; a root with another version is refused. */
#define NC_ABI_VERSION 5

#ifdef __cplusplus
#define NC_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define NC_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* A function that returns a struct: clang compiles none for BPF that it does not inline. */
#define NC_INLINE static inline __attribute__((always_inline))

/* Pinned as <root>/meta, an array of one. */
struct nc_meta {
	__u32 abi_version; /* NC_ABI_VERSION of the netctl that made the root */
	__u32 reserved;
	__u64 generation; /* raised by every commit of any feature under this root */
};
NC_STATIC_ASSERT(sizeof(struct nc_meta) == 16, "nc_meta is ABI");

#endif
