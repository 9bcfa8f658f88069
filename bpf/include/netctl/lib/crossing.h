/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The crossing engine: first match among many rules at a cost that does not depend on how many.
 *
 *   addresses -> address classes a (source) and b (destination), by tries
 *   everything else that rules look at -> packet class c, by tables and their products
 *   cross1[row1[a]] walked by the digits of b, and cross2[row2[b]] by those of a -> a rule list each
 *   firsts[list's profile][c] -> the position in the list of the first rule that matches
 *   wild[c] -> first match among the rules that look at no address
 *
 * and the lowest rule of the three. There is no loop. Shapes of tables are constants of the
 * program, so the verifier removes what a rule set does not use. An index beyond a table can only
 * come from a defect of the compiler; it yields NC_FAULT, which is beyond every table itself.
 *
 * Rules that would make these tables explode stand apart: each input has, besides its number for
 * the packet class, a row with one bit for each such rule, and the rows' conjunction tells which of
 * them match (the bit vectors of Lakshman and Stiliadis, 1998). Rows begin with summaries, one bit a
 * word, whose conjunction tells which words are worth a look (Baboescu and Varghese, 2001). Bits
 * are not in the order of the rules but stand so that few words are: rules that no packet has in
 * common are in different words. abi/crossing.h has the layout.
 */
#ifndef NETCTL_LIB_CROSSING_H
#define NETCTL_LIB_CROSSING_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/crossing.h>
#include <netctl/abi/packet.h>
#include <netctl/abi/rule.h>
#include <netctl/lib/bits.h>

#define NC_FAULT (1ull << 56) /* above NC_NUMBER and NC_ROW, below the flags of path tries */
#define NC_FAMILIES (NC_HAS_IPV4 | NC_HAS_IPV6)

/*
 * NC_FAULT and 0, which the verifier cannot know. It follows up what it knows: each way on which a
 * number is a constant would be looked at apart from the others, and there are too many of them.
 * What a callback of bpf_loop() changes begins as nc_zero, never as a constant: kernels before 6.7 (and 6.6.8) look
 * at a callback once, with what is known before the first turn, and take out as dead what that turn does not reach.
 */
volatile __u64 nc_fault SEC(".data.nc_fault") = NC_FAULT;
volatile __u32 nc_zero SEC(".bss.nc_zero");

/* Tables get their size when they are filled, before the program is loaded: NAME_n entries, of
 * 1 << NAME_w bytes where the width is not said here. */
#define NC_TABLE(name)                                                                             \
	__u8 name[8] SEC(".bss." #name);                                                           \
	const volatile __u32 name##_n
#define NC_TABLE_W(name)                                                                           \
	NC_TABLE(name);                                                                            \
	const volatile __u32 name##_w

NC_TABLE_W(nc_src4); /* IPv4 address -> class */
NC_TABLE_W(nc_dst4);
NC_TABLE(nc_paths);	/* u64: path tries */
NC_TABLE(nc_paths4);	/* u32: those of IPv4, unless there are too many entries */
NC_TABLE(nc_family);	/* u32: class of a family without a trie; source and destination of each */
NC_TABLE_W(nc_direct);	/* inputs with few values */
NC_TABLE(nc_index);	/* u16: inputs of 16 bits, value >> 6 -> block */
NC_TABLE_W(nc_block);	/* block, value & 63 -> the input's number; or see nc_block_runs */
NC_TABLE(nc_early);	/* u32: products before the last one */
NC_TABLE_W(nc_product); /* last product -> packet class */
NC_TABLE_W(nc_wild);	/* packet class -> rule; the highest number: none */
NC_TABLE_W(nc_row1);
NC_TABLE_W(nc_row2);
NC_TABLE_W(nc_cross1);
NC_TABLE_W(nc_cross2);
NC_TABLE_W(nc_lists);  /* {profile, rule, rule, ...} */
NC_TABLE_W(nc_blocks); /* profile, class >> bits -> block of nc_firsts */
NC_TABLE_W(nc_firsts); /* position in the list; the highest number: none */

/* Rules apart: absent without them. */
NC_TABLE(nc_rows);   /* u64: rows and blocks */
NC_TABLE(nc_aparts); /* u32: bit -> rule; the highest number: none */
NC_TABLE(nc_least);  /* u32: word -> its lowest rule */

/* Address classes. */
const volatile __u32 nc_stride4[NC_LEVELS4]; /* 0: no such level */
const volatile __u32 nc_src4_base[NC_LEVELS4], nc_dst4_base[NC_LEVELS4];
const volatile __u32 nc_path_root[NC_PATHS * 2]; /* low half, high half of the first entry */
const volatile __u32 nc_path_levels[NC_PATHS];

/* Packet class. */
const volatile __u32 nc_input_sum[NC_INPUTS]; /* 0: not looked at; else 1 + the sum it goes into */
const volatile __u32 nc_input_base[NC_INPUTS];
const volatile __u32 nc_input_absent[NC_INPUTS]; /* where the number of an absent field stands */
/*
 * 1: an index is that of a word in nc_block, of which bit `value & 63` says whether the number is another one than that of
 * the value before. So does bit 0. The different numbers follow.
 */
const volatile __u32 nc_block_runs;
const volatile __u32 nc_early_used[NC_SUMS], nc_early_base[NC_SUMS];

/* Crossing. */
const volatile __u32 nc_cross1_levels, nc_cross2_levels;
const volatile __u32 nc_cross1_bits[NC_LEVELS_CROSS], nc_cross2_bits[NC_LEVELS_CROSS];
const volatile __u32 nc_cross1_shift[NC_LEVELS_CROSS], nc_cross2_shift[NC_LEVELS_CROSS];
const volatile __u32 nc_cross1_base[NC_LEVELS_CROSS], nc_cross2_base[NC_LEVELS_CROSS];

/* Last stage. */
const volatile __u32 nc_classes;    /* 1: lists are not needed, crossings yield rules */
const volatile __u32 nc_block_bits; /* 0: nc_firsts is a plain matrix, without nc_blocks */

/* Rules apart. */
const volatile __u32 nc_apart_words;		/* in which they have bits; 0: there are none */
const volatile __u32 nc_apart_groups;		/* of words */
const volatile __u32 nc_apart_first;		/* the lowest of them */
const volatile __u32 nc_apart_input[NC_INPUTS]; /* whether they look at it */
const volatile __u32 nc_apart_plain[NC_INPUTS]; /* whether its blocks have all their words */

/* Entry `i` of a table of `n` entries, 1 << `width` bytes each. */
static __always_inline __u64 nc_entry(const void *table, __u64 n, __u32 width, __u64 i)
{
	nc_opaque(table); /* the compiler knows only the 8 bytes that the table is declared with */
	nc_opaque(i);
	if (unlikely(i >= n))
		return nc_fault;
	if (width == 0)
		return ((const __u8 *)table)[i];
	if (width == 1)
		return ((const __u16 *)table)[i];
	if (width == 2)
		return ((const __u32 *)table)[i];
	return ((const __u64 *)table)[i];
}

#define NC_ENTRY(name, width, i) nc_entry(name, name##_n, width, i)
#define NC_ENTRY_W(name, i) nc_entry(name, name##_n, name##_w, i)

/* ---- address classes ---- */

/* Multibit trie with the same strides on all paths. The top bit of an entry marks a class. */
static __always_inline __u64 nc_walk4(const void *table, __u32 n, __u32 width,
				      const volatile __u32 *base, __be32 address)
{
	__u32 left = bpf_ntohl(address), stride = nc_stride4[0];
	__u64 leaf = width == 1 ? 1ull << 15 : 1ull << 31;
	__u64 entry = nc_entry(table, n, width, left >> (32 - stride));
	__u32 level;

#pragma unroll
	for (level = 1; level < NC_LEVELS4; level++) {
		if (!nc_stride4[level] || entry & leaf)
			break;
		left <<= stride;
		stride = nc_stride4[level];
		entry = nc_entry(table, n, width,
				 base[level] + (entry << stride) + (left >> (32 - stride)));
	}
	return entry & ~leaf;
}

/* Trie whose nodes say which bits they look at; skipped bits are compared. `low` is looked at if
 * keys are `wide`, longer than 64 bits. */
static __always_inline __u64 nc_walk_path(enum nc_path path, bool wide, __u64 high, __u64 low)
{
	__u64 entry = (__u64)nc_path_root[path * 2 + 1] << 32 | nc_path_root[path * 2];
	__u32 level;

#pragma unroll
	for (level = 0; level < NC_LEVELS_PATH; level++) {
		__u64 base = NC_NODE_BASE(entry), half;

		if (level >= nc_path_levels[path] || entry & NC_NODE_LEAF)
			break;
		if (entry & NC_NODE_SKIPS) {
			__u64 differs = (high ^ NC_ENTRY(nc_paths, 3, base - 5)) &
					NC_ENTRY(nc_paths, 3, base - 4);

			if (wide)
				differs |= (low ^ NC_ENTRY(nc_paths, 3, base - 3)) &
					   NC_ENTRY(nc_paths, 3, base - 2);
			if (differs) {
				entry = NC_ENTRY(nc_paths, 3, base - 1);
				break;
			}
		}
		half = wide && entry & NC_NODE_LOW ? low : high;
		base += half >> NC_NODE_SHIFT(entry) & ~(~0ull << NC_NODE_COUNT(entry));
		entry = NC_ENTRY(nc_paths, 3, base);
	}
	return entry & NC_NODE_LEAF ? entry & ~NC_NODE_FLAGS : nc_fault;
}

/* The same in nc_paths4. */
static __always_inline __u64 nc_walk_path4(enum nc_path path, __be32 address)
{
	__u64 entry = nc_path_root[path * 2];
	__u32 key = bpf_ntohl(address), level;

#pragma unroll
	for (level = 0; level < NC_LEVELS_PATH; level++) {
		__u64 base = NC_NODE4_BASE(entry);

		if (level >= nc_path_levels[path] || entry & NC_NODE4_LEAF)
			break;
		if (entry & NC_NODE4_SKIPS &&
		    (key ^ NC_ENTRY(nc_paths4, 2, base - 3)) & NC_ENTRY(nc_paths4, 2, base - 2)) {
			entry = NC_ENTRY(nc_paths4, 2, base - 1);
			break;
		}
		base += key >> NC_NODE4_SHIFT(entry) & ~(~0u << NC_NODE4_COUNT(entry));
		entry = NC_ENTRY(nc_paths4, 2, base);
	}
	return entry & NC_NODE4_LEAF ? entry & ~(__u64)NC_NODE4_LEAF : nc_fault;
}

static __always_inline __u64 nc_path4_class(enum nc_path path, __be32 address)
{
	return nc_paths4_n ? nc_walk_path4(path, address) :
			     nc_walk_path(path, false, (__u64)bpf_ntohl(address) << 32, 0);
}

static __always_inline __u64 nc_half(const __be32 *words)
{
	return (__u64)bpf_ntohl(words[0]) << 32 | bpf_ntohl(words[1]);
}

static __always_inline __u64 nc_source_class(const struct nc_packet *p, __u32 has)
{
	if (nc_src4_n && has & NC_HAS_IPV4)
		return nc_walk4(nc_src4, nc_src4_n, nc_src4_w, nc_src4_base, p->src[0]);
	if (nc_path_levels[NC_PATH_SRC4] && has & NC_HAS_IPV4)
		return nc_path4_class(NC_PATH_SRC4, p->src[0]);
	if (nc_path_levels[NC_PATH_SRC6] && has & NC_HAS_IPV6)
		return nc_walk_path(NC_PATH_SRC6, true, nc_half(p->src), nc_half(p->src + 2));
	return nc_family_n ? NC_ENTRY(nc_family, 2, (has & NC_FAMILIES) * 2) : 0;
}

static __always_inline __u64 nc_destination_class(const struct nc_packet *p, __u32 has)
{
	if (nc_dst4_n && has & NC_HAS_IPV4)
		return nc_walk4(nc_dst4, nc_dst4_n, nc_dst4_w, nc_dst4_base, p->dst[0]);
	if (nc_path_levels[NC_PATH_DST4] && has & NC_HAS_IPV4)
		return nc_path4_class(NC_PATH_DST4, p->dst[0]);
	if (nc_path_levels[NC_PATH_DST6] && has & NC_HAS_IPV6)
		return nc_walk_path(NC_PATH_DST6, true, nc_half(p->dst), nc_half(p->dst + 2));
	return nc_family_n ? NC_ENTRY(nc_family, 2, (has & NC_FAMILIES) * 2 + 1) : 0;
}

/* ---- packet class ---- */

/*
 * The number of an absent field comes from the table, too, not from a constant: what the verifier
 * knows about the outcome is then the same with and without the field, and it need not look at all
 * combinations.
 */
static __always_inline __u64 nc_direct_input(enum nc_input input, bool present, __u32 value)
{
	__u64 at = present ? nc_input_base[input] + value : nc_input_absent[input];

	return NC_ENTRY_W(nc_direct, at);
}

static __always_inline __u64 nc_16bit_input(enum nc_input input, bool present, __u32 value)
{
	__u64 at = present ? nc_input_base[input] + (value >> 6) : nc_input_absent[input];
	__u64 block = NC_ENTRY(nc_index, 1, at);

	if (nc_block_runs)
		return NC_ENTRY(nc_block, 3,
				block + nc_count_bits(NC_ENTRY(nc_block, 3, block) &
						      ~0ull >> (63 - (value & 63))));
	return NC_ENTRY_W(nc_block, (block << 6) + (value & 63));
}

static __always_inline __u64 nc_path_input(enum nc_input input, enum nc_path path, bool present,
					   __u64 key)
{
	return present ? nc_walk_path(path, false, key, 0) :
			 NC_ENTRY_W(nc_direct, nc_input_absent[input]);
}

/* A MAC address as a number, most significant byte first. */
static __always_inline __u64 nc_mac(const __u8 *mac)
{
	return (__u64)mac[0] << 40 | (__u64)mac[1] << 32 | (__u64)mac[2] << 24 | mac[3] << 16 |
	       mac[4] << 8 | mac[5];
}

/* The search among the rules apart. */
struct nc_apart {
	__u64 first;  /* of all rules that match, as far as is known */
	__u64 groups; /* that are still to be looked at, one bit each */
	__u64 words;  /* likewise, of the present group */
	__u32 group;
	__u32 rows[NC_INPUTS]; /* where they begin */
};

/* Adds an input's number to its sum, and remembers its row, if the rule set looks at it. */
#define NC_ADD(input, expression)                                                                  \
	do {                                                                                       \
		if (nc_input_sum[input] || nc_apart_input[input]) {                                \
			__u64 add_ = (expression);                                                 \
                                                                                                   \
			if (nc_apart_input[input])                                                 \
				apart->rows[input] = NC_ROW(add_);                                 \
			if (nc_apart_words)                                                        \
				add_ = NC_NUMBER(add_);                                            \
			if (nc_input_sum[input] == 1)                                              \
				sums[0] += add_;                                                   \
			else if (nc_input_sum[input] == 2)                                         \
				sums[1] += add_;                                                   \
			else if (nc_input_sum[input] == 3)                                         \
				sums[2] += add_;                                                   \
			else if (nc_input_sum[input] == 4)                                         \
				sums[3] += add_;                                                   \
		}                                                                                  \
	} while (0)
#define NC_ADD_DIRECT(input, present, value) NC_ADD(input, nc_direct_input(input, present, value))
#define NC_ADD_16BIT(input, present, value) NC_ADD(input, nc_16bit_input(input, present, value))
#define NC_ADD_PATH(input, path, present, key)                                                     \
	NC_ADD(input, nc_path_input(input, path, present, key))

/* Whether a packet has the part that a key looks at. */
#define NC_HAS_PART(part) (!(part) || has & (part))
#define NC_ADD_KEY_ADDRESS(NAME, name, part) NC_ADD_DIRECT(NC_INPUT_##NAME, true, name##_class);
#define NC_ADD_KEY_U8(NAME, name, part) NC_ADD_DIRECT(NC_INPUT_##NAME, NC_HAS_PART(part), p->name);
#define NC_ADD_KEY_U16(NAME, name, part) NC_ADD_16BIT(NC_INPUT_##NAME, NC_HAS_PART(part), p->name);
#define NC_ADD_KEY_U32(NAME, name, part)                                                           \
	NC_ADD_PATH(NC_INPUT_##NAME, NC_PATH_##NAME, NC_HAS_PART(part), (__u64)p->name << 32);
#define NC_ADD_KEY_MAC(NAME, name, part)                                                           \
	NC_ADD_PATH(NC_INPUT_##NAME, NC_PATH_##NAME, NC_HAS_PART(part), nc_mac(p->name) << 16);
#define NC_ADD_KEY_MASK32(NAME, name, part)                                                        \
	NC_ADD_DIRECT(NC_INPUT_##NAME, NC_HAS_PART(part), p->name & 0xff);                         \
	NC_ADD_DIRECT(NC_INPUT_##NAME##_1, NC_HAS_PART(part), p->name >> 8 & 0xff);                \
	NC_ADD_DIRECT(NC_INPUT_##NAME##_2, NC_HAS_PART(part), p->name >> 16 & 0xff);               \
	NC_ADD_DIRECT(NC_INPUT_##NAME##_3, NC_HAS_PART(part), p->name >> 24);
#define NC_KEY_ADD(NAME, name, text, kind, part, ...) NC_ADD_KEY_##kind(NAME, name, part)

static __always_inline __u64 nc_packet_class(const struct nc_packet *p, __u32 has, __u64 set_bits,
					     __u64 src_class, __u64 dst_class,
					     struct nc_apart *apart)
{
	__u64 sums[NC_SUMS] = {};
	int i;

	NC_ADD_DIRECT(NC_INPUT_FAMILY, true, has & NC_FAMILIES);
	NC_PACKET_KEYS(NC_KEY_ADD)
#pragma unroll
	for (i = 0; i < 8; i++)
		NC_ADD_DIRECT(NC_INPUT_SETS + i, true, set_bits >> (8 * i) & 0xff);
#pragma unroll
	for (i = 1; i < NC_SUMS; i++)
		if (nc_early_used[i])
			sums[0] += NC_ENTRY(nc_early, 2, nc_early_base[i] + sums[i]);
	return nc_product_n ? NC_ENTRY_W(nc_product, sums[0]) : sums[0];
}

/* ---- crossing ---- */

static __always_inline __u64 nc_walk_cross(const void *table, __u32 n, __u32 width, __u32 levels,
					   const volatile __u32 *bits, const volatile __u32 *shift,
					   const volatile __u32 *base, __u64 node, __u64 class)
{
	__u32 level;

#pragma clang loop unroll(full)
	for (level = 0; level < NC_LEVELS_CROSS; level++)
		if (level < levels)
			node = nc_entry(
				table, n, width,
				base[level] + (node << bits[level]) +
					(class >> shift[level] & ((1u << bits[level]) - 1)));
	return node;
}

#define NC_CROSS(name, node, class)                                                                \
	nc_walk_cross(name, name##_n, name##_w, name##_levels, name##_bits, name##_shift,          \
		      name##_base, node, class)

/* The number that stands for "none" in a table: all bits of an entry set. */
static __always_inline bool nc_is_none(__u64 value, __u32 width)
{
	return value == (width == 0 ? 0xffu : width == 1 ? 0xffffu : 0xffffffffu);
}

/* First rule of a list that matches packets of a class. */
static __always_inline __u64 nc_first(__u64 list, __u64 class, __u32 width)
{
	__u64 profile, position;

	if (nc_classes == 1)
		return nc_is_none(list, width) ? NC_NO_RULE : list;
	profile = NC_ENTRY_W(nc_lists, list);
	if (nc_block_bits) {
		__u64 block = NC_ENTRY_W(nc_blocks, profile * ((nc_classes >> nc_block_bits) + 1) +
							    (class >> nc_block_bits));

		position = NC_ENTRY_W(nc_firsts, (block << nc_block_bits) +
							 (class & ((1u << nc_block_bits) - 1)));
	} else {
		position = NC_ENTRY_W(nc_firsts, profile * nc_classes + class);
	}
	if (nc_is_none(position, nc_firsts_w))
		return NC_NO_RULE;
	return NC_ENTRY_W(nc_lists, list + 1 + position);
}

/* ---- rules apart ---- */

/* How many bits of a block's summary are set below bit `word`. */
static __always_inline __u32 nc_rank(__u64 summary, __u32 word)
{
	return nc_count_bits(summary & ((1ull << (word & 63)) - 1));
}

/* A word of nc_rows; what is beyond it is a fault, which ends the search. Nothing is known of what is
 * returned then, either: the verifier need not look at the rest once for each word that may be beyond. */
static __always_inline __u64 nc_apart_row_word(struct nc_apart *apart, __u64 at)
{
	const __u64 *rows = (const __u64 *)nc_rows;

	nc_opaque(rows);
	nc_opaque(at);
	if (unlikely(at >= nc_rows_n)) {
		apart->first = nc_fault;
		return nc_fault;
	}
	return rows[at];
}

/* Where an input's block of the present group begins. */
static __always_inline __u64 nc_apart_block(struct nc_apart *apart, __u32 input)
{
	return nc_apart_groups == 1 ?
		       apart->rows[input] :
		       nc_apart_row_word(apart, (__u64)apart->rows[input] + 1 + apart->group);
}

/* What the first words of the inputs' blocks, or of their rows, have in common. */
static __always_inline __u64 nc_apart_common(struct nc_apart *apart, bool blocks)
{
	__u64 common = ~0ull;
	__u32 input;

#pragma clang loop unroll(full)
	for (input = 0; input < NC_INPUTS; input++)
		if (nc_apart_input[input])
			common &= nc_apart_row_word(apart, blocks ? nc_apart_block(apart, input) :
								    apart->rows[input]);
	return common;
}

/* Looks into one word: 64 rules. Lower bits are lower rules. */
static __always_inline void nc_apart_word(struct nc_apart *apart)
{
	__u32 word = nc_lowest_bit(apart->words), input;
	__u64 bits = ~0ull, number = (__u64)apart->group << 6 | word, rule;

	apart->words &= apart->words - 1;
	rule = NC_ENTRY(nc_least, 2, number);
	if (rule >= apart->first) {
		if (unlikely(rule >= NC_FAULT))
			apart->first = rule;
		return;
	}
#pragma clang loop unroll(full)
	for (input = 0; input < NC_INPUTS; input++)
		if (nc_apart_input[input]) {
			__u64 block = nc_apart_block(apart, input);
			__u64 at = nc_apart_plain[input] ?
					   word :
					   nc_rank(nc_apart_row_word(apart, block), word);

			bits &= nc_apart_row_word(apart, block + 1 + at);
		}
	if (!bits || unlikely(apart->first >= NC_FAULT))
		return;
	rule = NC_ENTRY(nc_aparts, 2, (number << 6) + nc_lowest_bit(bits));
	if (rule < apart->first || rule >= NC_FAULT)
		apart->first = rule;
}

/* Goes on by a word, or to the next group. Returns 1 when the search is over. */
static __always_inline long nc_apart_next(struct nc_apart *apart)
{
	if (apart->first >= NC_FAULT)
		return 1;
	if (apart->words) {
		nc_apart_word(apart);
		return 0;
	}
	if (nc_apart_groups == 1 || !apart->groups)
		return 1;
	apart->group = nc_lowest_bit(apart->groups);
	apart->groups &= apart->groups - 1;
	apart->words = nc_apart_common(apart, true);
	return 0;
}

static long nc_apart_step(__u32 turn, struct nc_apart *apart)
{
	return nc_apart_next(apart);
}

/* Leaves in `first` the lowest rule apart that matches, if it is lower. */
static __always_inline void nc_apart_search(struct nc_apart *apart)
{
	apart->group = nc_zero;
	apart->groups = nc_zero;
	apart->words = nc_zero;
	if (nc_apart_groups == 1)
		apart->words = nc_apart_common(apart, true);
	else
		apart->groups = nc_apart_common(apart, false);
	/* A step for each group and each word of it, and one that sees the end. Steps in place of the loop's first
	 * would save its call, but rules on all keys take the verifier beyond its million instructions then. */
	if (apart->words || apart->groups)
		bpf_loop(nc_apart_words + nc_apart_groups + 1, nc_apart_step, apart, 0);
}

/* Position of the first rule that matches, NC_NO_RULE, or a number from NC_FAULT on. */
static __always_inline __u64 nc_cross_classify(const struct nc_packet *p, __u64 set_bits)
{
	__u64 a, b, c, first = NC_NO_RULE, rule;
	struct nc_apart apart;
	/* The verifier knows which parts a packet has on each way through the parser, and would
	 * look at the rest once for each. */
	__u32 has = p->has ^ nc_zero;

	a = nc_source_class(p, has);
	b = nc_destination_class(p, has);
	c = nc_packet_class(p, has, set_bits, a, b, &apart);
	if (unlikely((a | b | c) >= NC_FAULT))
		return NC_FAULT;
	if (nc_wild_n) {
		rule = NC_ENTRY_W(nc_wild, c);
		if (unlikely(rule >= NC_FAULT))
			return rule;
		if (!nc_is_none(rule, nc_wild_w))
			first = rule;
	}
	if (nc_row1_n) {
		rule = nc_first(NC_CROSS(nc_cross1, NC_ENTRY_W(nc_row1, a), b), c,
				nc_cross1_levels ? nc_cross1_w : nc_row1_w);
		if (unlikely(rule >= NC_FAULT))
			return rule;
		if (rule < first)
			first = rule;
	}
	if (nc_row2_n) {
		rule = nc_first(NC_CROSS(nc_cross2, NC_ENTRY_W(nc_row2, b), a), c,
				nc_cross2_levels ? nc_cross2_w : nc_row2_w);
		if (unlikely(rule >= NC_FAULT))
			return rule;
		if (rule < first)
			first = rule;
	}
	if (nc_apart_words && first > nc_apart_first) {
		/* As unknown as a fault, see nc_apart_row_word(). */
		apart.first = first ^ (nc_fault - NC_FAULT);
		nc_apart_search(&apart);
		first = apart.first;
	}
	return first;
}

#endif
