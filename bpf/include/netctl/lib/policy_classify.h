/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The first rule of a connect policy that matches, at a cost that hardly depends on how many there
 * are, out of tables that are data: the programs stay when the rules change, so that one write puts
 * new rules in force in all hooks.
 *
 * Each field that rules look at is looked up by itself and yields a row of bits: bit i is set if the
 * field's value leaves rule i possible. The rules that match are the AND of the rows. As almost all of
 * it is zero, a row is stored by its summary, in which one bit stands for a word of 64 rules, and the
 * words that are not zero; only words whose bits survive the AND of the summaries are looked at. This
 * is the aggregated bit vector scheme of Baboescu and Varghese ("Scalable Packet Classification",
 * SIGCOMM 2001), with rows shared by all values that rules do not tell apart.
 *
 *   row    {summary, base} for each 4,096 rules, then the words; base counts from the row's start to
 *          the first word of this summary
 *   tries  path tries as in lib/crossing.h, whose leaves are rows
 */
#ifndef NETCTL_LIB_POLICY_CLASSIFY_H
#define NETCTL_LIB_POLICY_CLASSIFY_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/crossing.h>
#include <netctl/abi/policy_tables.h>
#include <netctl/lib/policy_templates.h>
#include <netctl/lib/sets.h>

/* In the place of a position: a table that leads nowhere. */
#define NC_POLICY_FAULT 0xfffffffeu
#define NC_ROW_FAULT 0xffffffffu

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

/* Of both as well. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 2 * NC_POLICY_MAX_RULES);
	__type(key, struct nc_policy_exe);
	__type(value, __u32);
} exes SEC(".maps");

static __always_inline const struct nc_policy_head *nc_head(const struct nc_policy_segment *first)
{
	return (const void *)first;
}

/*
 * What follows is cut into global functions: the verifier looks at each of them once, and takes their
 * results for unknown, so that ways through one do not multiply those through the others.
 */

/* Of tables that take more than one segment; the first one hangs in `segments`, too. */
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
	index %= NC_SEGMENT_WORDS;
	nc_opaque(index);
	return first->words[index % NC_SEGMENT_WORDS];
}

static __always_inline __u32 nc_walk_trie(const struct nc_policy_segment *first, __u64 entry,
					  __u64 high, __u64 low, bool near)
{
	__u32 tries = nc_head(first)->tries, level;

	for (level = 0; level < NC_LEVELS_PATH; level++) {
		__u32 base = tries + NC_NODE_BASE(entry);

		if (entry & NC_NODE_LEAF)
			break;
		if (entry & NC_NODE_SKIPS &&
		    ((high ^ nc_word(first, base - 5, near)) & nc_word(first, base - 4, near) ||
		     (low ^ nc_word(first, base - 3, near)) & nc_word(first, base - 2, near))) {
			entry = nc_word(first, base - 1, near);
			break;
		}
		base += (entry & NC_NODE_LOW ? low : high) >> NC_NODE_SHIFT(entry) &
			~(~0ull << NC_NODE_COUNT(entry));
		entry = nc_word(first, base, near);
	}
	return entry & NC_NODE_LEAF ? (__u32)entry : NC_ROW_FAULT;
}

/* Row of a key; `low` is looked at only by the trie of IPv6 addresses. */
__noinline __u32 nc_row_of(const struct nc_policy_segment *first, __u64 entry, __u64 high,
			   __u64 low)
{
	if (!first)
		return NC_ROW_FAULT;
	return nc_head(first)->near ? nc_walk_trie(first, entry, high, low, true) :
				      nc_walk_trie(first, entry, high, low, false);
}

#define NC_POLICY_ROWS (NC_SUBJECTS + NC_POLICY_SET_USES)

struct nc_policy_rows {
	__u32 count;
	__u32 row[NC_POLICY_ROWS];
};

static __always_inline __u64 nc_and(const struct nc_policy_segment *first,
				    const struct nc_policy_rows *rows, __u32 at, __u64 below,
				    bool summaries, bool near)
{
	__u64 bits = ~0ull;
	__u32 i;

	for (i = 0; i < NC_POLICY_ROWS; i++) {
		__u32 row = rows->row[i];
		__u64 word;

		if (i >= rows->count)
			break;
		word = nc_word(first, row + at, near);
		if (!summaries)
			word = nc_word(first,
				       row + (__u32)nc_word(first, row + at + 1, near) +
					       nc_count_bits(word & below),
				       near);
		bits &= word;
	}
	return bits;
}

/* AND of the rows' summaries number `at` / 2. */
__noinline __u64 nc_and_summaries(const struct nc_policy_segment *first,
				  const struct nc_policy_rows *rows, __u32 at)
{
	if (!first || !rows)
		return 0;
	return nc_head(first)->near ? nc_and(first, rows, at, 0, true, true) :
				      nc_and(first, rows, at, 0, true, false);
}

/* AND of the rows' words that the bit above `below` of that summary stands for. */
static __always_inline __u64 nc_and_words(const struct nc_policy_segment *first,
					  const struct nc_policy_rows *rows, __u32 at, __u64 below)
{
	return nc_head(first)->near ? nc_and(first, rows, at, below, false, true) :
				      nc_and(first, rows, at, below, false, false);
}

struct nc_policy_walk {
	const struct nc_policy_segment *first;
	const struct nc_policy_rows *rows;
	__u64 pending; /* bits of the present summary that are still to be looked at */
	__u32 next;    /* summary */
	__u32 position;
};

/* Looks at one word of 64 rules, or finds out that a summary leaves none. Returns 1 at the end. */
static long nc_policy_turn(__u32 turn, struct nc_policy_walk *walk)
{
	__u64 bits, below;
	__u32 at;

	if (!walk->pending) {
		if (walk->next >= nc_head(walk->first)->summaries)
			return 1;
		walk->pending = nc_and_summaries(walk->first, walk->rows, 2 * walk->next);
		walk->next++;
		if (!walk->pending)
			return 0;
	}
	at = walk->next - 1;
	below = (walk->pending & -walk->pending) - 1;
	walk->pending &= walk->pending - 1;
	bits = nc_and_words(walk->first, walk->rows, 2 * at, below);
	if (!bits)
		return 0;
	walk->position = (at * 64 + nc_count_bits(below)) * 64 + nc_count_bits((bits & -bits) - 1);
	return 1;
}

struct nc_subject {
	struct nc_packet packet; /* destination, ports, protocol */
	__u64 exe_inode;
	__u32 exe_dev;
	__u32 uid;
	__u32 gid;
	__u32 cgroup_row;
};

/* 0, which the verifier cannot know: it would look at the rest once for each number of rows, and for
 * each kind of address. */
volatile __u32 nc_unknown SEC(".bss.nc_unknown");

static __always_inline void nc_add_row(struct nc_policy_rows *rows, __u32 *count, __u32 row)
{
	rows->row[*count % NC_POLICY_ROWS] = row;
	*count += 1;
}

static __always_inline void nc_add_number(const struct nc_policy_segment *first,
					  struct nc_policy_rows *rows, __u32 *count,
					  enum nc_policy_input input, bool present, __u64 key)
{
	const struct nc_policy_head *head = nc_head(first);

	if (head->roots[input])
		nc_add_row(rows, count,
			   present ? nc_row_of(first, head->roots[input], key, 0) :
				     head->absent[input]);
}

static __always_inline void nc_add_destination(const struct nc_policy_segment *first,
					       struct nc_policy_rows *rows, __u32 *count,
					       const struct nc_packet *p)
{
	__u64 root = nc_head(first)->root4, high = (__u64)bpf_ntohl(p->dst[0]) << 32, low = 0;

	if (!root)
		return;
	if (!(p->has & NC_HAS_IPV4)) {
		root = nc_head(first)->root6;
		high |= bpf_ntohl(p->dst[1]);
		low = (__u64)bpf_ntohl(p->dst[2]) << 32 | bpf_ntohl(p->dst[3]);
	}
	nc_add_row(rows, count, nc_row_of(first, root, high, low));
}

static __always_inline void nc_add_exe(const struct nc_policy_segment *first,
				       struct nc_policy_rows *rows, __u32 *count,
				       const struct nc_subject *s)
{
	struct nc_policy_exe key = {
		.epoch = nc_head(first)->epoch,
		.dev = s->exe_dev,
		.inode = s->exe_inode,
	};
	__u32 *row;

	if (!nc_head(first)->absent[NC_SUBJECT_EXE])
		return;
	row = bpf_map_lookup_elem(&exes, &key);
	nc_add_row(rows, count, row ? *row : nc_head(first)->absent[NC_SUBJECT_EXE]);
}

/* Global as well: the sets' loop. Row of set use `i`, which is none of a cidr set. */
__noinline __u32 nc_set_row(const struct nc_policy_segment *first, const struct nc_packet *p,
			    __u32 i)
{
	const struct nc_policy_set_use *use;

	if (!first || !p || i >= NC_POLICY_SET_USES)
		return NC_ROW_FAULT;
	use = &nc_head(first)->set_use[i];
	return nc_in_hash(p, use->slot, use->field, use->type) ? use->row[1] : use->row[0];
}

/* Position of the first rule that matches, NC_NO_RULE, or NC_POLICY_FAULT. */
static __noinline __u32 nc_policy_classify(const struct nc_policy_segment *first,
					   const struct nc_subject *s)
{
	const struct nc_policy_head *head = nc_head(first);
	const struct nc_packet *p = &s->packet;
	struct nc_policy_rows rows = {};
	struct nc_policy_walk walk = {
		.first = first,
		.rows = &rows,
		.position = NC_NO_RULE,
	};
	const struct nc_policy_set_use *use;
	bool ports = p->has & NC_HAS_PORTS;
	struct nc_base_found lengths;
	__u32 count = nc_unknown, i;
	int held;

	nc_add_destination(first, &rows, &count, p);
	nc_add_number(first, &rows, &count, NC_SUBJECT_SPORT, ports && p->sport,
		      (__u64)p->sport << 48);
	nc_add_number(first, &rows, &count, NC_SUBJECT_DPORT, ports, (__u64)p->dport << 48);
	nc_add_number(first, &rows, &count, NC_SUBJECT_PROTO, true, (__u64)p->proto << 56);
	nc_add_number(first, &rows, &count, NC_SUBJECT_UID, true, (__u64)s->uid << 32);
	nc_add_number(first, &rows, &count, NC_SUBJECT_GID, true, (__u64)s->gid << 32);
	if (s->cgroup_row)
		nc_add_row(&rows, &count, s->cgroup_row);
	nc_add_exe(first, &rows, &count, s);
	for (i = 0; i < NC_POLICY_SET_USES; i++) {
		if (i >= head->n_set_uses)
			break;
		use = &head->set_use[i];
		if (use->type != NC_SET_CIDR) {
			nc_add_row(&rows, &count, nc_set_row(first, p, i));
			continue;
		}
		nc_base_lengths(p, use->field, use->base, &lengths);
		held = nc_cidr_holds(p, use->slot, use->field, &lengths);
		nc_add_row(&rows, &count, held ? use->row[1] : use->row[0]);
	}
	rows.count = count;
	/* No rule looks at anything: then the first one matches, if there is one. */
	if (!count)
		return head->rules ? 0 : NC_NO_RULE;
	for (i = 0; i < NC_POLICY_ROWS; i++)
		if (rows.row[i] == NC_ROW_FAULT)
			return NC_POLICY_FAULT;
	/* Each turn takes a bit of a summary, or moves on to the next one. Mostly the first does it. */
	bpf_loop(NC_MAX_SUMMARIES * 65, nc_policy_turn, &walk, 0);
	return walk.position;
}

#endif
