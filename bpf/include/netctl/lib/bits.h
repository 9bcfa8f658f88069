/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Bits and comparisons, for which there are no instructions or which must have no branch.
 */
#ifndef NETCTL_LIB_BITS_H
#define NETCTL_LIB_BITS_H

#include <netctl/lib/bpf.h>

/* Bits that are set. There is no instruction for it. */
static __always_inline __u32 nc_count_bits(__u64 x)
{
	x -= x >> 1 & 0x5555555555555555ull;
	x = (x & 0x3333333333333333ull) + (x >> 2 & 0x3333333333333333ull);
	x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0full;
	return x * 0x0101010101010101ull >> 56;
}

/* By what is left of this sequence when it is multiplied by a power of two; each six bits of it are
 * others (Leiserson, Prokop, Randall, "Using de Bruijn Sequences to Index a 1 in a Computer Word",
 * 1998). */
#define NC_SEQUENCE 0x03f79d71b4cb0a89ull

static const __u8 nc_bit_of_sequence[64] = {
	0,  1,	48, 2,	57, 49, 28, 3,	61, 58, 50, 42, 38, 29, 17, 4,	62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,	13, 8,	7,  6,
};

/* The number of the lowest bit that is set; there must be one. */
static __always_inline __u32 nc_lowest_bit(__u64 x)
{
	return nc_bit_of_sequence[(x & -x) * NC_SEQUENCE >> 58];
}

/* 1 if a < b, else 0. Without a branch: the verifier would follow each outcome apart (Hacker's Delight,
 * section 2-12). */
static __always_inline __u64 nc_less(__u64 a, __u64 b)
{
	__u64 less = ((~a & b) | ((~a | b) & (a - b))) >> 63;

	nc_opaque(less);
	return less;
}

#endif
