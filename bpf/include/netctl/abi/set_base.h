/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The compiled part of a big cidr set: what userspace/datapath/set_base.cpp makes and lib/set_base.h
 * looks up. Private to netctl: other tools see the elements with `netctl set list`, and write what
 * they want different into the set's live map, which goes before this.
 *
 * An array of 64-byte lines, cut into segments: array maps of one size, so that the JIT makes a lookup of a
 * line a few instructions without a call; small enough for memory that the kernel maps in large pages. The
 * segments of all bases hang in one map of maps, those of a base side by side, and nc_base_ref tells which
 * they are. Line 0 is the head, then the parts follow. All numbers are in host order.
 *
 * A start is where elements begin, or, if a wide one covers several buckets, where each of these begins. To
 * each start belongs the number of the set of lengths of all elements that cover it. The elements that
 * cover an address are those that cover the last start before it in its bucket and are no longer than what
 * the two have in common, since each begins at or before that start: two loads and a mask tell all of them,
 * nested or not.
 *
 * IPv4: an address's leading bits name its bucket, of which there are 4 to 32 an element.
 *
 *   filter  one bit a bucket: whether it has a start. Each line also tells how many are set before it and
 *           before each of its words, so that the line that ends the way for most addresses in no element
 *           tells the others where their bucket's entry is.
 *   index   entry for each bucket that has starts: its only start, or which slice of the list has them.
 *   list    starts of the other buckets.
 *   lengths sets of lengths, as bits.
 *
 * IPv6: the first `granule` bits of an address, hashed, are its key.
 *
 *   filter  bit key >> filter_shift: whether any element covers such a key.
 *   index   entry key >> index_shift: which slice of the list has the starts with such a key.
 *   list    starts, in order of address within each slice.
 *   lengths as above.
 *
 * Prefixes longer than 64 bits have an index and a list of their own, by the whole first half of the
 * address.
 */
#ifndef NETCTL_ABI_SET_BASE_H
#define NETCTL_ABI_SET_BASE_H

#include "types.h"

/* An entry of the index: count << 24 | number of the first start in the list. */
#define NC_BASE_FIRST 0x00ffffffu
#define NC_BASE_MANY 255u /* count: the slice ends where the next entry's begins */

/* IPv4: the same with NC_BASE_SLICE, or the only start: what follows its bucket's bits << 18 | number of its
 * set of lengths << 6 | the shortest of them. */
#define NC_BASE_SLICE (1u << 31)
#define NC_BASE_MANY4 127u   /* count: it stands in the place of the first start, and they follow */
#define NC_BASE_ONLY_BITS 12 /* that may follow the bucket's bits */
#define NC_BASE_ONLY_LENGTHS 4096 /* sets of lengths that a number has room for */

/* First line of the filter. */
#define NC_BASE_FILTER 1

/* Lines of a segment: with the kernel's own header just below 32 KiB, what it still takes from the pages that
 * it has at hand (PAGE_ALLOC_COSTLY_ORDER). */
#define NC_BASE_SEGMENT 500
/* Slots for segments, of all bases of a root: 1 GiB. */
#define NC_BASE_SEGMENTS 32768

/* Elements of a family that a base takes at most, and sets of lengths. */
#define NC_BASE_MAX (1u << 23)
#define NC_BASE_LENGTHS_MAX 65536

/*
 * What is in force of a set, by nc_set_info::number: where its bases are, and which turn it has come to
 * (nc_set_flags). One word, so that one write puts new bases of both families in force, together with all
 * that its live elements have been told to become.
 *
 *   bits  0-14  slot of the first segment of the IPv4 base, 0: there is none
 *        15-20  its filter_shift
 *        21-35  slot of the first segment of the IPv6 base, 0: there is none
 *        36-41  its filter_shift
 *        42-47  its granule, less one
 *        48-63  the turn
 */
struct nc_set_word {
	__u64 word;
};
#define NC_SET_WORD_FIRST4 0
#define NC_SET_WORD_SHIFT4 15
#define NC_SET_WORD_FIRST6 21
#define NC_SET_WORD_SHIFT6 36
#define NC_SET_WORD_GRANULE6 42
#define NC_SET_WORD_TURN 48

/* Where a base is, as the word has it. */
struct nc_base_ref {
	__u16 first; /* slot of its first segment; 0: there is no base */
	__u8 filter_shift;
	__u8 granule;
};

NC_INLINE struct nc_base_ref nc_base_ref_of(__u64 word, __u32 ipv6)
{
	struct nc_base_ref ref = {};

	if (ipv6) {
		ref.first = word >> NC_SET_WORD_FIRST6 & (NC_BASE_SEGMENTS - 1);
		ref.filter_shift = word >> NC_SET_WORD_SHIFT6 & 63;
		ref.granule = (word >> NC_SET_WORD_GRANULE6 & 63) + 1;
	} else {
		ref.first = word >> NC_SET_WORD_FIRST4 & (NC_BASE_SEGMENTS - 1);
		ref.filter_shift = word >> NC_SET_WORD_SHIFT4 & 63;
	}
	return ref;
}

/* Line 0. */
struct nc_base_head {
	__u32 elements;
	__u32 index; /* first line of each part */
	__u32 list;
	__u32 lengths;
	__u32 long_index;
	__u32 long_list;
	__u32 list_count; /* starts; IPv4: with counts in their place */
	__u32 long_list_count;
	__u8 filter_shift;
	__u8 index_shift;
	__u8 long_index_shift;
	__u8 granule; /* IPv6: bits of the address that make the key, 1 to 64 */
	__u8 family;  /* 4 or 6 */
	__u8 reserved[27];
};
NC_STATIC_ASSERT(sizeof(struct nc_base_head) == 64, "nc_base_head is a line");

#define NC_BASE_WORDS4 6
#define NC_BASE_STARTS4 8
#define NC_BASE_SHORTS 6
#define NC_BASE_LONGS 3

struct nc_base_line {
	union {
		__u64 word
			[8]; /* filter of IPv6; lengths: two sets of four words, bit l for length l */
		struct {
			__u64 bits[NC_BASE_WORDS4];
			__u16 before[NC_BASE_WORDS4]; /* bits that are set before this word */
			__u32 first;		      /* in all lines before this one */
		} filter4;
		__u32 half[16]; /* index */
		struct {
			__u32 start[NC_BASE_STARTS4];
			__u16 lengths[NC_BASE_STARTS4];
			__u16 shortest[NC_BASE_STARTS4]; /* of these lengths */
		} starts4;
		struct {
			__u64 start[NC_BASE_SHORTS]; /* first half of the address */
			__u16 lengths[8];
		} shorts;
		struct {
			__u64 start[NC_BASE_LONGS][2]; /* both halves */
			__u16 lengths[8];
		} longs;
	};
};
NC_STATIC_ASSERT(sizeof(struct nc_base_line) == 64, "nc_base_line is a cache line");

/* number / by, for less than 2^25 lines or things in them: as a multiplication, since a program's division is one
 * of the processor's, which takes longer than all the rest of a line's lookup. Exact as long as
 * number * by < 2^40 (Granlund and Montgomery, 1994). */
static inline __u32 nc_base_divide(__u32 number, __u32 by)
{
	return number * ((1ull << 40) / by + 1) >> 40;
}

/* Which line of an IPv4 filter has word `word`. */
static inline __u32 nc_base_filter_line(__u32 word)
{
	return nc_base_divide(word, NC_BASE_WORDS4);
}

/* Spreads the leading bits of IPv6 addresses, which differ little, over 64 bits (Fibonacci hashing). */
static inline __u64 nc_base_hash(__u64 high, __u32 granule)
{
	return (high >> (64 - granule)) * 0x9e3779b97f4a7c15ull;
}

#endif
