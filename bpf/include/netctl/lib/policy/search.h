/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The search by functions, for what the usual way does not settle: tables of several segments, candidates
 * whose summaries met by chance, lists of users, rules that ask about sets.
 */
#ifndef NETCTL_LIB_POLICY_SEARCH_H
#define NETCTL_LIB_POLICY_SEARCH_H

#include <netctl/lib/policy/rows.h>
#include <netctl/lib/policy/who.h>
#include <netctl/lib/sets.h>

/* AND of all rows, of the answers about sets as well. */
static __always_inline __u64 nc_and_all(const struct nc_policy_segment *first,
					const struct nc_policy_rows *rows, __u32 at, __u64 below,
					bool near)
{
	__u64 bits = nc_unknown - 1, left = rows->known;
	__u32 i;

	for (i = 0; i < NC_SUBJECTS; i++)
		if (nc_head(first)->asks >> i & 1)
			bits &= nc_row_word(first, rows->row[i], at, below, near);
	for (i = 0; i < NC_POLICY_SET_USES; i++) {
		__u32 use = nc_lowest_bit(left);

		if (!left)
			break;
		left &= left - 1;
		bits &= nc_row_word(first,
				    nc_head(first)
					    ->set_use[use % NC_POLICY_SET_USES]
					    .row[rows->held >> use & 1],
				    at, below, near);
	}
	return bits;
}

__noinline __u64 nc_search_and(const struct nc_policy_segment *first,
			       const struct nc_policy_rows *rows, __u32 at, __u64 below)
{
	if (!first || !rows)
		return 0;
	if (!nc_head(first)->near)
		return nc_and_all(first, rows, at, below, false);
	if (below == NC_SUMMARY)
		return nc_and_all(first, rows, at, NC_SUMMARY, true);
	return nc_and_all(first, rows, at, below, true);
}

/* Answers question number `use` about a set: whether a value of the subject is in it. */
__noinline int nc_subject_in_set(const struct nc_policy_segment *first, const struct nc_subject *s,
				 __u32 use)
{
	const struct nc_policy_set_use *asked;
	struct nc_base_found lengths = {};
	struct nc_packet p = {};

	if (!first || !s || use >= NC_POLICY_SET_USES)
		return 0;
	asked = &nc_head(first)->set_use[use];
	if (s->has & 1 << NC_SUBJECT_DST) {
		p.has = NC_HAS_IPV4;
		p.dst[0] = bpf_htonl(s->word[NC_WORD_DST] >> 32);
	} else {
		p.has = NC_HAS_IPV6;
		p.dst[0] = bpf_htonl(s->word[NC_WORD_DST] >> 32);
		p.dst[1] = bpf_htonl(s->word[NC_WORD_DST]);
		p.dst[2] = bpf_htonl(s->word[NC_WORD_DST + 1] >> 32);
		p.dst[3] = bpf_htonl(s->word[NC_WORD_DST + 1]);
	}
	if (s->has & 1 << NC_SUBJECT_DPORT)
		p.has |= NC_HAS_PORTS;
	p.dport = s->word[NC_WORD_SERVICE] >> 48;
	p.sport = s->word[NC_WORD_SERVICE] >> 32;
	if (asked->type != NC_SET_CIDR)
		return nc_in_hash(&p, asked->slot, asked->field, asked->type, asked->number);
	nc_base_lengths(&p, asked->field, asked->number, &lengths);
	return nc_cidr_holds(&p, asked->slot, asked->field, asked->number, &lengths);
}

struct nc_policy_search {
	const struct nc_policy_segment *first;
	const struct nc_policy_rows *rows;
	__u64 pending;	 /* bits of the present summary that are still to be looked at */
	__u32 summaries; /* that are still to be looked at */
	__u32 at;	 /* the present one */
	__u32 position;
};

/* Looks for a summary, or at one word of 64 rules. Returns 1 at the end. */
static long nc_search_turn(__u32 turn, struct nc_policy_search *search)
{
	__u64 bits, below;

	if (!search->pending) {
		if (!search->summaries)
			return 1;
		search->at = nc_lowest_bit(search->summaries);
		search->summaries &= search->summaries - 1;
		search->pending =
			nc_search_and(search->first, search->rows, 2 * search->at, NC_SUMMARY);
		return 0;
	}
	below = nc_below(search->pending);
	bits = nc_search_and(search->first, search->rows, 2 * search->at, below);
	if (!bits) {
		search->pending &= search->pending - 1;
		return 0;
	}
	search->position =
		(search->at * 64 + nc_lowest_bit(search->pending)) * 64 + nc_lowest_bit(bits);
	return 1;
}

/* The first candidate. */
__noinline __u32 nc_search(const struct nc_policy_segment *first, const struct nc_policy_rows *rows)
{
	struct nc_policy_search search = {
		.first = first,
		.rows = rows,
		.pending = nc_unknown,
		.at = nc_unknown,
		.position = NC_NO_RULE ^ nc_unknown,
	};

	if (!first || !rows)
		return NC_NO_RULE;
	search.summaries = NC_ROW_SUMMARIES(rows->all);
	bpf_loop(NC_MAX_SUMMARIES * 65, nc_search_turn, &search, 0);
	return search.position;
}

/* A question about a set that a candidate depends on and that has no answer yet. */
__noinline __u32 nc_open_question(const struct nc_policy_segment *first,
				  const struct nc_policy_rows *rows, __u32 position)
{
	__u32 asks, i;

	if (!first || !rows)
		return NC_POLICY_NO_SET;
	asks = NC_ACTION_SETS(
		nc_any_word(first, nc_head(first)->actions + position * NC_ACTION_WORDS + 1));
	for (i = 0; i < 4; i++) {
		__u32 question = asks >> 8 * i & 0xff;

		if (question != NC_POLICY_NO_SET &&
		    !(rows->known & 1ull << question % NC_POLICY_SET_USES))
			return question % NC_POLICY_SET_USES;
	}
	return NC_POLICY_NO_SET;
}

/* Adds the rows for who asks. */
__noinline int nc_search_askers(const struct nc_policy_segment *first, struct nc_subject *s,
				struct nc_policy_rows *rows)
{
	__u32 i;

	if (!first || !s || !rows)
		return 0;
	if (!(s->has & NC_SUBJECT_IS_KNOWN))
		nc_ask_who(first, s, nc_head(first)->asks);
	for (i = NC_SUBJECT_UID; i <= NC_SUBJECT_EXE; i++) {
		const struct nc_policy_lookup *lookup = &nc_head(first)->lookup[i];
		__u32 word = i == NC_SUBJECT_EXE ? NC_WORD_EXE : NC_WORD_OWNER;

		if (nc_head(first)->asks & 1 << i)
			nc_add_row(rows, i,
				   nc_walk_on(first, lookup->entry[0],
					      s->word[word] << lookup->shift % 64,
					      s->word[word + 1]));
	}
	if (nc_head(first)->asks & 1 << NC_SUBJECT_CGROUP)
		nc_add_row(rows, NC_SUBJECT_CGROUP, s->word[NC_WORD_CGROUP]);
	return 0;
}

/* The rows of all inputs, by the general way: tables of several segments. */
__noinline int nc_search_rows(const struct nc_policy_segment *first, struct nc_subject *s,
			      struct nc_policy_rows *rows)
{
	__u32 i;

	if (!first || !s || !rows)
		return 0;
	for (i = 0; i < NC_SUBJECT_UID; i++) {
		const struct nc_policy_lookup *lookup = &nc_head(first)->lookup[i];
		__u32 word = lookup->word % NC_SUBJECT_WORDS;

		if (nc_head(first)->asks & 1 << i)
			nc_add_row(rows, i,
				   nc_walk_on(first, lookup->entry[s->has >> i & 1],
					      s->word[word] << lookup->shift % 64,
					      s->word[(word + 1) % NC_SUBJECT_WORDS]));
	}
	return nc_search_askers(first, s, rows);
}

#endif
