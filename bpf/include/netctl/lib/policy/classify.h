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
 *   tries  path tries as in lib/crossing.h, whose leaves are rows: where they begin, which of their
 *          summaries are not zero, so that these need not be read, and their first rule
 *
 * Calls are what costs: a return takes a dozen ns where the kernel defends itself against speculation.
 * So the way of almost all connections is inline: a row for each input, and one AND of words, those with
 * the last of the rows' first rules; no rule before that one can match. If there is no candidate, the
 * summaries tell in which word to look. What that does not settle (tables of several segments,
 * candidates whose summaries met by chance, lists of users, rules that ask about sets) is searched by
 * functions.
 *
 * What costs more is asked later, and only if a rule that is otherwise fulfilled looks at it: first
 * where the connection goes to, then who makes it, then the sets, one by one. Who a rule is about is
 * compared with what its action says; the search by functions has rows for it instead. As answers can
 * only take candidates away, the first one that asks for nothing further is the first match.
 *
 * Loops run over inputs and look at memory for whether there is one: with a count of rows the
 * verifier would follow each count to the end of the program.
 */
#ifndef NETCTL_LIB_POLICY_CLASSIFY_H
#define NETCTL_LIB_POLICY_CLASSIFY_H

#include <netctl/lib/policy/search.h>

/* Row of a path trie; few are deeper. */
#define NC_LEVELS_INLINE 3

static __always_inline void nc_add_walk(const struct nc_policy_segment *first,
					struct nc_policy_rows *rows, __u32 input, __u64 entry,
					__u64 high, __u64 low, bool wide)
{
	entry = nc_walk_trie(first, entry, high, low, wide, NC_LEVELS_INLINE, true);
	if (unlikely(!(entry & NC_NODE_LEAF)))
		entry = nc_walk_on(first, entry, high, low);
	nc_add_row(rows, input, entry);
}

/* Entry of a node for eight bits, unless it is a leaf already. */
static __always_inline __u64 nc_step(const struct nc_policy_segment *first, __u64 entry, __u32 byte)
{
	if (entry & NC_NODE_LEAF)
		return entry;
	return nc_word(first, nc_head(first)->tries + NC_NODE_BASE(entry) + byte, true);
}

static __always_inline __u64 nc_lookup_entry(const struct nc_policy_head *head,
					     enum nc_policy_input input, const struct nc_subject *s)
{
	return head->lookup[input].entry[s->has >> input & 1];
}

static __always_inline void nc_add_port(const struct nc_policy_segment *first,
					struct nc_policy_rows *rows, const struct nc_subject *s,
					enum nc_policy_input input, __u16 port)
{
	__u64 entry = nc_step(first, nc_lookup_entry(nc_head(first), input, s), port >> 8);

	nc_add_row(rows, input, nc_step(first, entry, port & 0xff));
}

static __always_inline void nc_add_service(const struct nc_policy_segment *first,
					   struct nc_policy_rows *rows, const struct nc_subject *s)
{
	const struct nc_policy_head *head = nc_head(first);
	__u64 service = s->word[NC_WORD_SERVICE];

	if (head->asks & 1 << NC_SUBJECT_DST)
		nc_add_walk(first, rows, NC_SUBJECT_DST, nc_lookup_entry(head, NC_SUBJECT_DST, s),
			    s->word[NC_WORD_DST], s->word[NC_WORD_DST + 1],
			    !(s->has & 1 << NC_SUBJECT_DST));
	if (head->asks & 1 << NC_SUBJECT_SPORT)
		nc_add_port(first, rows, s, NC_SUBJECT_SPORT, service >> 32);
	if (head->asks & 1 << NC_SUBJECT_DPORT)
		nc_add_port(first, rows, s, NC_SUBJECT_DPORT, service >> 48);
	if (head->asks & 1 << NC_SUBJECT_PROTO)
		nc_add_row(rows, NC_SUBJECT_PROTO,
			   nc_step(first, head->lookup[NC_SUBJECT_PROTO].entry[0],
				   service >> 24 & 0xff));
}

/* AND of the rows for what the connection is to. */
static __always_inline __u64 nc_and_service(const struct nc_policy_segment *first,
					    const struct nc_policy_rows *rows, __u32 at,
					    __u64 below)
{
	__u64 bits = ~0ull;
	__u32 i;

#pragma unroll
	for (i = 0; i <= NC_SUBJECT_PROTO; i++)
		if (nc_head(first)->asks >> i & 1)
			bits &= nc_row_word(first, rows->row[i], at, below, true);
	return bits;
}

/*
 * Whether a rule that is otherwise fulfilled is so in what it asks about who asks: `asks`, none of which
 * is NC_SUBJECT_CGROUP. The action begins at word `at`.
 */
static __always_inline bool nc_is_about(const struct nc_policy_segment *first,
					const struct nc_subject *s, __u32 at, __u32 asks)
{
	__u64 who = nc_word(first, at + 7, true) >> 32, range;
	__u32 wrong = 0;

	if (asks & 1 << NC_SUBJECT_UID) {
		range = nc_word(first, at + 4, true);
		if ((__u32)((s->word[NC_WORD_OWNER] >> 32) - (__u32)range) >
		    (__u32)((range >> 32) - (__u32)range))
			wrong |= 1 << NC_SUBJECT_UID;
	}
	if (asks & 1 << NC_SUBJECT_GID) {
		range = nc_word(first, at + 5, true);
		if ((__u32)(s->word[NC_WORD_OWNER] - range) > (__u32)((range >> 32) - (__u32)range))
			wrong |= 1 << NC_SUBJECT_GID;
	}
	if (asks & 1 << NC_SUBJECT_EXE) {
		__u64 inode = nc_word(first, at + 6, true);

		if (s->word[NC_WORD_EXE] != (nc_word(first, at + 7, true) << 32 | inode >> 32) ||
		    s->word[NC_WORD_EXE + 1] != inode << 32)
			wrong |= 1 << NC_SUBJECT_EXE;
	}
	return wrong == (who & NC_ASKS_WHO);
}

/* So many candidates of one word are looked at one by one. */
#define NC_CANDIDATES 4

/* Position of the first rule that matches, NC_NO_RULE, or NC_POLICY_FAULT. */
static __always_inline __u32 nc_policy_classify(const struct nc_policy_segment *first,
						struct nc_subject *s)
{
	const struct nc_policy_head *head = nc_head(first);
	struct nc_policy_rows rows = {
		.least = nc_unknown,
		.all = (NC_NODE_LEAF | (1ull << (24 + head->summaries % 32)) - 1) ^ nc_unknown,
		.known = nc_unknown,
		.held = nc_unknown,
	};
	__u32 open = head->asks & NC_ASKS_WHO, position, summaries, at, i;
	__u64 pending, bits, more;

	if (unlikely(!head->near)) {
		nc_search_rows(first, s, &rows);
		goto search;
	}
	nc_add_service(first, &rows, s);
	if (!(rows.all & NC_NODE_LEAF))
		return NC_POLICY_FAULT;
	summaries = NC_ROW_SUMMARIES(rows.all);
	if (!summaries)
		return NC_NO_RULE;
	/* The word of the first rule that may match: it is mostly there. */
	at = rows.least / 64;
	bits = ~0ull;
#pragma unroll
	for (i = 0; i <= NC_SUBJECT_PROTO; i++)
		if (head->asks >> i & 1)
			bits &= nc_row_word_if(first, rows.row[i], at / 64 * 2, at % 64);
	more = (at + 1) * 64 < head->rules;
	if (!bits && more) {
		at = nc_lowest_bit(summaries);
		pending = nc_and_service(first, &rows, 2 * at, NC_SUMMARY);
		more = (pending & (pending - 1)) | (summaries & (summaries - 1));
		if (pending)
			bits = nc_and_service(first, &rows, 2 * at, nc_below(pending));
		at = at * 64 + nc_lowest_bit(pending);
	}
	for (i = 0; i < NC_CANDIDATES; i++) {
		__u32 action, asks;
		__u64 does;

		if (!bits) {
			if (!more)
				return NC_NO_RULE;
			break;
		}
		position = at * 64 + nc_lowest_bit(bits);
		action = head->actions + position * NC_ACTION_WORDS;
		does = nc_word(first, action + 1, true);
		asks = NC_ACTION_FLAGS(does) & NC_ASKS_WHO;
		if (asks) {
			if (nc_word(first, action + 7, true) >> 32 & NC_WHO_LISTS)
				break;
			if (open & asks && !(s->has & NC_SUBJECT_IS_KNOWN))
				nc_ask_who(first, s, open & asks);
			open &= ~asks;
			if (!nc_is_about(first, s, action, asks)) {
				bits &= bits - 1;
				continue;
			}
			if (asks & 1 << NC_SUBJECT_CGROUP) {
				__u64 row = s->word[NC_WORD_CGROUP];

				if (!(row & NC_NODE_LEAF))
					return NC_POLICY_FAULT;
				if (!(nc_row_word_if(first, NC_ROW_PLACE(row), at / 64 * 2,
						     at % 64) &
				      bits & -bits)) {
					bits &= bits - 1;
					continue;
				}
			}
		}
		if (NC_ACTION_SETS(does) == NC_ACTION_NO_SETS)
			return position;
		break;
	}
	if (head->asks & NC_ASKS_WHO)
		nc_search_askers(first, s, &rows);
search:
	if (!(rows.all & NC_NODE_LEAF))
		return NC_POLICY_FAULT;
	for (i = 0; i <= NC_POLICY_SET_USES; i++) {
		__u32 question;

		position = nc_search(first, &rows);
		if (position >= head->rules)
			return position;
		question = nc_open_question(first, &rows, position);
		if (question == NC_POLICY_NO_SET)
			return position;
		rows.known |= 1ull << question;
		if (nc_subject_in_set(first, s, question))
			rows.held |= 1ull << question;
	}
	return NC_POLICY_FAULT;
}

#endif
