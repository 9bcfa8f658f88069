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

#include <netctl/lib/bpf.h>

#include <netctl/abi/crossing.h>
#include <netctl/abi/policy_tables.h>
#include <netctl/lib/policy_templates.h>
#include <netctl/lib/sets.h>

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

/* By what is left of this sequence when it is multiplied by a power of two; each six bits of it are
 * others (Leiserson, Prokop, Randall, "Using de Bruijn Sequences to Index a 1 in a Computer Word",
 * 1998). */
#define NC_SEQUENCE 0x03f79d71b4cb0a89ull

static const __u8 nc_bit_of_sequence[64] = {
	0,  1,	48, 2,	57, 49, 28, 3,	61, 58, 50, 42, 38, 29, 17, 4,	62, 55, 59, 36, 53, 51,
	43, 22, 45, 39, 33, 30, 24, 18, 12, 5,	63, 47, 56, 27, 60, 41, 37, 16, 54, 35, 52, 21,
	44, 32, 23, 11, 46, 26, 40, 15, 34, 20, 31, 10, 25, 14, 19, 9,	13, 8,	7,  6,
};

/* Number of the lowest bit; there must be one. */
static __always_inline __u32 nc_lowest_bit(__u64 x)
{
	return nc_bit_of_sequence[(x & -x) * NC_SEQUENCE >> 58];
}

/* Who asks for what. Small, like all that is on the stack: sets need most of it. */
struct nc_subject {
	union {
		__u64 word[NC_SUBJECT_WORDS]; /* enum nc_policy_word */
		struct {
			__u64 words[NC_SUBJECT_WORDS - 1];
			__u64 has; /* 1 << enum nc_policy_input; for DST: it is IPv4 */
		};
	};
};

/* In `has`: who asks stands in the subject already. */
#define NC_SUBJECT_IS_KNOWN (1 << NC_SUBJECTS)

struct nc_policy_rows {
	__u32 row[NC_SUBJECTS]; /* of the inputs that rules look at */
	__u64 least;		/* no rule before this one matches: the first one of some row */
	__u64 all;		/* AND of the rows: which summaries are to be looked at */
	/* Bit i: question i about a set. */
	__u64 known;
	__u64 held;
};

/*
 * 0, which the verifier cannot know: it would look at the rest once for each way to it. Besides, before
 * Linux 6.7 it goes through the function of a loop only once, and takes for granted that a global function
 * leaves the caller's stack as it is: what these change must be unknown from the start, or it removes code
 * as never used.
 */
volatile __u64 nc_unknown SEC(".bss.nc_unknown");

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

/* ---- what is not settled at once ---- */

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
		return nc_in_hash(&p, asked->slot, asked->field, asked->type);
	nc_base_lengths(&p, asked->field, asked->base, &lengths);
	return nc_cidr_holds(&p, asked->slot, asked->field, &lengths);
}

struct nc_policy_search {
	const struct nc_policy_segment *first;
	const struct nc_policy_rows *rows;
	__u64 pending;	 /* bits of the present summary that are still to be looked at */
	__u32 summaries; /* that are still to be looked at */
	__u32 at;	 /* the present one */
	__u32 position;
};

/* Word `at` of the tables, wherever they are. */
static __always_inline __u64 nc_any_word(const struct nc_policy_segment *first, __u32 at)
{
	return nc_head(first)->near ? nc_word(first, at, true) : nc_word(first, at, false);
}

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

/* ---- the way of most connections ---- */

static __always_inline void nc_add_row(struct nc_policy_rows *rows, __u32 input, __u64 row)
{
	rows->row[input] = NC_ROW_PLACE(row);
	rows->all &= row;
	if (NC_ROW_FIRST(row) > rows->least)
		rows->least = NC_ROW_FIRST(row);
}

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

static __always_inline __u64 nc_entry(const struct nc_policy_head *head, enum nc_policy_input input,
				      const struct nc_subject *s)
{
	return head->lookup[input].entry[s->has >> input & 1];
}

static __always_inline void nc_add_port(const struct nc_policy_segment *first,
					struct nc_policy_rows *rows, const struct nc_subject *s,
					enum nc_policy_input input, __u16 port)
{
	__u64 entry = nc_step(first, nc_entry(nc_head(first), input, s), port >> 8);

	nc_add_row(rows, input, nc_step(first, entry, port & 0xff));
}

static __always_inline void nc_add_service(const struct nc_policy_segment *first,
					   struct nc_policy_rows *rows, const struct nc_subject *s)
{
	const struct nc_policy_head *head = nc_head(first);
	__u64 service = s->word[NC_WORD_SERVICE];

	if (head->asks & 1 << NC_SUBJECT_DST)
		nc_add_walk(first, rows, NC_SUBJECT_DST, nc_entry(head, NC_SUBJECT_DST, s),
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

/* Fills in those of `kinds` (NC_ASKS_WHO) that are about who asks: lib/policy.h. */
static __always_inline void nc_ask_who(const struct nc_policy_segment *first, struct nc_subject *s,
				       __u32 kinds);

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
