/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the crossing engine's compiler (userspace/classifier/crossing.cpp) and its lookup
 * (lib/crossing.h) agree on. Private to one build of netctl: tables are made anew with each
 * program. The structure is told in lib/crossing.h.
 */
#ifndef NETCTL_ABI_CROSSING_H
#define NETCTL_ABI_CROSSING_H

#include "keys.h"
#include "types.h"

/*
 * What a packet's class is made of besides its addresses. Each input maps a value, or its absence,
 * to a number that is already multiplied by the input's place value; adding up those of one sum
 * gives an index into the sum's product table.
 */
#define NC_INPUTS_ADDRESS(NAME) NC_INPUT_##NAME, /* which long or negated lists hold it: by class */
#define NC_INPUTS_U8(NAME) NC_INPUT_##NAME,
#define NC_INPUTS_U16(NAME) NC_INPUT_##NAME,
#define NC_INPUTS_U32(NAME) NC_INPUT_##NAME,
#define NC_INPUTS_MAC(NAME) NC_INPUT_##NAME,
/* Four inputs: its bytes, the least significant one first. */
#define NC_INPUTS_MASK32(NAME)                                                                     \
	NC_INPUT_##NAME, NC_INPUT_##NAME##_1, NC_INPUT_##NAME##_2, NC_INPUT_##NAME##_3,
#define NC_KEY_INPUT(NAME, name, text, kind, ...) NC_INPUTS_##kind(NAME)
enum nc_input {
	NC_INPUT_FAMILY, /* 0 neither, 1 IPv4, 2 IPv6 */
	NC_PACKET_KEYS(NC_KEY_INPUT)
	/* Eight inputs: the bytes of set_bits, the least significant one first. */
	NC_INPUT_SETS,
	NC_INPUTS = NC_INPUT_SETS + 8,
};
NC_STATIC_ASSERT(NC_INPUTS <= 64, "masks of inputs have 64 bits");

/* Sum 0 is the index of the last product; the others are products before it. */
#define NC_SUMS 4

/* Path tries, all in the table nc_paths. */
#define NC_PATHS_ADDRESS(NAME)
#define NC_PATHS_U8(NAME)
#define NC_PATHS_U16(NAME)
#define NC_PATHS_U32(NAME) NC_PATH_##NAME,
#define NC_PATHS_MAC(NAME) NC_PATH_##NAME,
#define NC_PATHS_MASK32(NAME)
#define NC_KEY_PATH(NAME, name, text, kind, ...) NC_PATHS_##kind(NAME)
enum nc_path {
	NC_PATH_SRC4, /* where the multibit trie would be big */
	NC_PATH_DST4,
	NC_PATH_SRC6,
	NC_PATH_DST6,
	NC_PACKET_KEYS(NC_KEY_PATH) NC_PATHS,
};

/*
 * Entry of a path trie: a leaf with its value, of 56 bits, or a node. A node looks at
 * NC_NODE_COUNT bits of the key's high or low half, NC_NODE_SHIFT bits above its end, and has
 * its entries from index NC_NODE_BASE on. If it skips bits in which keys may differ, its
 * NC_NODE_CHECK words stand in front of the entries: the value and the mask of the key's high half,
 * the value and the mask of its low half, and the leaf that other keys get.
 */
#define NC_NODE_LEAF (1ull << 63)
#define NC_NODE_SKIPS (1ull << 62)
#define NC_NODE_LOW (1ull << 61)
#define NC_NODE_BASE(entry) ((__u32)(entry))
#define NC_NODE_SHIFT(entry) ((entry) >> 32 & 63)
#define NC_NODE_COUNT(entry) ((entry) >> 40 & 31)
#define NC_NODE_CHECK 5

#define NC_NODE_FLAGS (7ull << 61)

/*
 * The same in 32 bits, for IPv4 alone, in the table nc_paths4: half as large where most entries are leaves. In
 * front of the entries stand the value and the mask of the bits that are skipped, and the leaf that other keys get.
 */
#define NC_NODE4_LEAF (1u << 31)
#define NC_NODE4_SKIPS (1u << 30)
#define NC_NODE4_BASE(entry) ((entry) & (NC_NODE4_MAX - 1))
#define NC_NODE4_SHIFT(entry) ((entry) >> 21 & 31)
#define NC_NODE4_COUNT(entry) ((entry) >> 26 & 15)
#define NC_NODE4_CHECK 3
#define NC_NODE4_MAX (1u << 21) /* entries */

/*
 * What an input's value maps to: the number for the packet class, and if there are rules apart the
 * index of a row for them above it.
 */
#define NC_NUMBER(entry) ((entry) & ~(0xffffffull << 32))
#define NC_ROW(entry) ((__u32)((entry) >> 32))
#define NC_ROW_SHIFT 32
#define NC_ROW_MAX (1u << 24) /* words in rows */

/*
 * Rules apart. The table nc_rows has, for each value of an input, a row with one bit a rule. 64 bits are a
 * word, 64 words a group. Of each group a row has a block, equal ones once for all: a summary, one bit a
 * word that is not zero, followed by these words, or by all of them where nc_apart_plain says so. With one
 * group a row is its block. With more it is a summary of the groups whose blocks are not empty, followed by
 * the index of each group's block.
 */
#define NC_APART_GROUPS 64

/* How deep tries may be. */
#define NC_LEVELS4 3
#define NC_LEVELS_PATH 16
#define NC_LEVELS_CROSS 4

#endif
