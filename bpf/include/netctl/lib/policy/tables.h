/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The tables of a connect policy: words in segments, and the walk through path tries. Their structure is
 * told in classify.h.
 */
#ifndef NETCTL_LIB_POLICY_TABLES_H
#define NETCTL_LIB_POLICY_TABLES_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/crossing.h>
#include <netctl/abi/policy_tables.h>
#include <netctl/lib/policy/templates.h>

/* In the place of a position: a table that leads nowhere. */
#define NC_POLICY_FAULT 0xfffffffeu

/* The rules in force: the first segment of their tables. Its slot is written last by each commit. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct nc_map_segment);
} root SEC(".maps");

/* What does not fit into it, of the rules in force and of those to come. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 2 * NC_MAX_SEGMENTS);
	__type(key, __u32);
	__array(values, struct nc_map_segment);
} segments SEC(".maps");

static __always_inline const struct nc_policy_head *nc_head(const struct nc_policy_segment *first)
{
	return (const void *)first;
}

/* Of tables that take more than one segment; the first one hangs in `segments`, too. Global, as are the
 * other functions here: the verifier looks at each of them once, and takes their results for unknown,
 * so that ways through one do not multiply those through the others. */
__noinline __u64 nc_far_word(__u32 base, __u32 at)
{
	__u32 index = base + at / NC_SEGMENT_WORDS, zero = 0;
	struct nc_policy_segment *segment;
	void *map;

	map = bpf_map_lookup_elem(&segments, &index);
	if (!map)
		return 0;
	segment = bpf_map_lookup_elem(map, &zero);
	return segment ? segment->words[at % NC_SEGMENT_WORDS] : 0;
}

/*
 * Word `at` of the tables. `near`: all of them are in the first segment; the mask changes nothing but
 * tells the verifier so, without a branch.
 */
static __always_inline __u64 nc_word(const struct nc_policy_segment *first, __u32 at, bool near)
{
	__u64 index = at;

	if (!near)
		return nc_far_word(nc_head(first)->segment_base, at);
	nc_opaque(index);
	return first->words[index % NC_SEGMENT_WORDS];
}

/* The entry for a key that `levels` nodes lead to, or less. What is no leaf then leads nowhere, or
 * further. `wide`: the key goes on in `low`. */
static __always_inline __u64 nc_walk_trie(const struct nc_policy_segment *first, __u64 entry,
					  __u64 high, __u64 low, bool wide, __u32 levels, bool near)
{
	__u32 tries = nc_head(first)->tries, level;

	for (level = 0; level < levels; level++) {
		__u32 base = tries + NC_NODE_BASE(entry);

		if (entry & NC_NODE_LEAF)
			break;
		if (entry & NC_NODE_SKIPS &&
		    ((high ^ nc_word(first, base - 5, near)) & nc_word(first, base - 4, near) ||
		     (wide &&
		      (low ^ nc_word(first, base - 3, near)) & nc_word(first, base - 2, near)))) {
			entry = nc_word(first, base - 1, near);
			break;
		}
		base += (entry & NC_NODE_LOW ? low : high) >> NC_NODE_SHIFT(entry) &
			~(~0ull << NC_NODE_COUNT(entry));
		entry = nc_word(first, base, near);
	}
	return entry;
}

/* The leaf for a key. */
__noinline __u64 nc_walk_on(const struct nc_policy_segment *first, __u64 entry, __u64 high,
			    __u64 low)
{
	if (!first)
		return 0;
	return nc_head(first)->near ?
		       nc_walk_trie(first, entry, high, low, true, NC_LEVELS_PATH, true) :
		       nc_walk_trie(first, entry, high, low, true, NC_LEVELS_PATH, false);
}

/* Word `at` of the tables, wherever they are. */
static __always_inline __u64 nc_any_word(const struct nc_policy_segment *first, __u32 at)
{
	return nc_head(first)->near ? nc_word(first, at, true) : nc_word(first, at, false);
}

/*
 * 0, which the verifier cannot know: it would look at the rest once for each way to it. Besides, before
 * Linux 6.7 it goes through the function of a loop only once, and takes for granted that a global function
 * leaves the caller's stack as it is: what these change must be unknown from the start, or it removes code
 * as never used.
 */
volatile __u64 nc_unknown SEC(".bss.nc_unknown");

#endif
