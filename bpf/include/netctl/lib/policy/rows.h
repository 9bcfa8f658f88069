/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Rows of bits, one a rule, as they are stored: summaries, and the words that are not zero.
 */
#ifndef NETCTL_LIB_POLICY_ROWS_H
#define NETCTL_LIB_POLICY_ROWS_H

#include <netctl/lib/bits.h>
#include <netctl/lib/policy/subject.h>

struct nc_policy_rows {
	__u32 row[NC_SUBJECTS]; /* of the inputs that rules look at */
	__u64 least;		/* no rule before this one matches: the first one of some row */
	__u64 all;		/* AND of the rows: which summaries are to be looked at */
	/* Bit i: question i about a set. */
	__u64 known;
	__u64 held;
};

/* In the place of the bits below one that is looked at: the summary itself is. */
#define NC_SUMMARY (~0ull)

/* The bits below the lowest one. */
static __always_inline __u64 nc_below(__u64 bits)
{
	return (bits & -bits) - 1;
}

/* How many of the bits `below` are set. Mostly that is none; counting takes longer. */
static __always_inline __u32 nc_count_below(__u64 word, __u64 below)
{
	word &= below;
	return word ? nc_count_bits(word) : 0;
}

/* A summary, or the word for its bit above `below`; `at` is where the summary stands. */
static __always_inline __u64 nc_row_word_of(const struct nc_policy_segment *first, __u32 row,
					    __u32 at, __u64 below, bool near)
{
	__u64 word = nc_word(first, row + at, near);

	if (below == NC_SUMMARY)
		return word;
	row += nc_word(first, row + at + 1, near);
	return nc_word(first, row + nc_count_below(word, below), near);
}

__noinline __u64 nc_far_row_word(const struct nc_policy_segment *first, __u32 row, __u32 at,
				 __u64 below)
{
	return first ? nc_row_word_of(first, row, at, below, false) : 0;
}

static __always_inline __u64 nc_row_word(const struct nc_policy_segment *first, __u32 row, __u32 at,
					 __u64 below, bool near)
{
	return near ? nc_row_word_of(first, row, at, below, true) :
		      nc_far_row_word(first, row, at, below);
}

/* Word number `word` of the rules that summary `at` is about, or 0. */
static __always_inline __u64 nc_row_word_if(const struct nc_policy_segment *first, __u32 row,
					    __u32 at, __u32 word)
{
	__u64 summary = nc_word(first, row + at, true), bit = 1ull << word;

	if (!(summary & bit))
		return 0;
	row += nc_word(first, row + at + 1, true);
	return nc_word(first, row + nc_count_below(summary, bit - 1), true);
}

static __always_inline void nc_add_row(struct nc_policy_rows *rows, __u32 input, __u64 row)
{
	rows->row[input] = NC_ROW_PLACE(row);
	rows->all &= row;
	if (NC_ROW_FIRST(row) > rows->least)
		rows->least = NC_ROW_FIRST(row);
}

#endif
