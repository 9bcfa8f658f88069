/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lookup in the compiled part of a big cidr set. abi/set_base.h tells its layout. For most addresses that
 * are in no element this is one load, of the filter; for others two or three more, and seldom the steps of a
 * binary search. There is no call in it.
 *
 * The search has no branch but for its end: the verifier would follow each way that it can take. Nor has it
 * anything on the stack but keys of maps: the programs around it need most of it.
 */
#ifndef NETCTL_LIB_SET_BASE_H
#define NETCTL_LIB_SET_BASE_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/set_base.h>
#include <netctl/lib/bits.h>
#include <netctl/lib/templates.h>

/* As many halve what NC_BASE_FIRST starts leave. */
#define NC_BASE_STEPS 25

struct nc_map_base_refs base_refs SEC(".maps");
struct nc_map_base_segments base_segments SEC(".maps");

/* What is in force of set number `number`. */
static __always_inline __u64 nc_set_word_of(__u32 number)
{
	const struct nc_set_word *word = bpf_map_lookup_elem(&base_refs, &number);

	return word ? *(const volatile __u64 *)&word->word :
		      0; /* a new one may be written meanwhile */
}

/* The base of a family (0: IPv4, 1: IPv6) of set number `number`. `first` is 0 if there is none. */
static __always_inline struct nc_base_ref nc_base_of(__u32 number, __u32 family)
{
	return nc_base_ref_of(nc_set_word_of(number), family);
}

/* Line `number` of the base whose segments begin at slot `base`. */
static __always_inline struct nc_base_line *nc_base_line(__u32 base, __u32 number)
{
	__u32 segment_of = nc_base_divide(number, NC_BASE_SEGMENT);
	__u32 slot = base + segment_of, place = number - segment_of * NC_BASE_SEGMENT;
	void *segment = bpf_map_lookup_elem(&base_segments, &slot);

	return segment ? bpf_map_lookup_elem(segment, &place) : NULL;
}

/* The place in its line of number `i`, where a line has `per_line`: for the verifier, which does not
 * know what a remainder is, below a power of two. */
static __always_inline __u32 nc_base_place(__u32 i, __u32 per_line)
{
	__u32 place = i - nc_base_divide(i, per_line) * per_line;

	nc_opaque(place);
	return place & (per_line > 4 ? 7 : 3);
}

/*
 * The number of the last start at or before an address among `left` of them from `first` on, plus one;
 * `first` itself if there is none. BEYOND(line, at) is 1 if start number `at` of the line is behind it.
 */
#define nc_base_search(base, part, first, left, per_line, beyond)                                  \
	({                                                                                         \
		__u64 position_ = first, left_ = left;                                             \
		int step_;                                                                         \
                                                                                                   \
		for (step_ = 0; step_ < NC_BASE_STEPS; step_++) {                                  \
			__u64 half_ = left_ >> 1, fits_;                                           \
			__u32 middle_ = position_ + half_, at_;                                    \
			const struct nc_base_line *line_;                                          \
                                                                                                   \
			if (!left_)                                                                \
				break;                                                             \
			line_ = nc_base_line(base, (part) + nc_base_divide(middle_, per_line));    \
			if (!line_)                                                                \
				break;                                                             \
			at_ = nc_base_place(middle_, per_line);                                    \
			fits_ = beyond(line_, at_) ^ 1;                                            \
			nc_opaque(fits_);                                                          \
			position_ += -fits_ & (half_ + 1);                                         \
			left_ = half_ - (fits_ & ~left_ & 1);                                      \
			nc_opaque(left_);                                                          \
		}                                                                                  \
		position_;                                                                         \
	})

static __always_inline const struct nc_base_head *nc_base_head(struct nc_base_ref ref)
{
	return (const void *)nc_base_line(ref.first, 0);
}

/* ---- IPv4 ---- */

/* The line of the filter with the address's bucket, whose bit is number `bit` of word `at`. */
static __always_inline const struct nc_base_line *
nc_base_filter4(struct nc_base_ref ref, __u32 address, __u32 *at, __u32 *bit)
{
	__u32 bucket = address >> (ref.filter_shift & 31), word = bucket >> 6;
	__u32 number = nc_base_filter_line(word);

	*at = word - number * NC_BASE_WORDS4;
	*bit = bucket & 63;
	return nc_base_line(ref.first, NC_BASE_FILTER + number);
}

static __always_inline __u64 nc_base_word4(const struct nc_base_line *line, __u64 at)
{
	nc_opaque(at);
	return line->word[at & 7];
}

/* Whether any element may cover the address. */
static __always_inline bool nc_base_may_hold4(struct nc_base_ref ref, __u32 address)
{
	__u32 at, bit;
	const struct nc_base_line *line = nc_base_filter4(ref, address, &at, &bit);

	return line && nc_base_word4(line, at) >> bit & 1;
}

/* The entry of the address's bucket; 0 if it has no start, and no entry is 0. */
static __always_inline __u32 nc_base_entry4(struct nc_base_ref ref, __u32 address)
{
	__u32 at, bit, entry;
	const struct nc_base_line *line = nc_base_filter4(ref, address, &at, &bit);
	const struct nc_base_head *head = nc_base_head(ref);
	__u64 word, place = at;

	if (!line || !head)
		return 0;
	nc_opaque(place);
	place &= 7;
	word = line->word[place];
	if (!(word >> bit & 1))
		return 0;
	entry = line->filter4.first + line->filter4.before[place] +
		nc_count_bits(word & ((1ull << bit) - 1));
	line = nc_base_line(ref.first, head->index + (entry >> 4));
	return line ? line->half[entry & 15] : 0;
}

/* A start that covers addresses behind it. */
struct nc_base_start4 {
	__u32 start;
	__u32 lengths;	/* number of its set */
	__u32 shortest; /* of them */
};

/* The last start at or before the address in its bucket. False if there is none. */
static __always_inline bool nc_base_start4(struct nc_base_ref ref, __u32 address,
					   struct nc_base_start4 *s)
{
	const struct nc_base_head *head;
	const struct nc_base_line *line;
	__u32 entry, first, count, at;

	entry = nc_base_entry4(ref, address);
	if (likely(!entry))
		return false;
	if (!(entry & NC_BASE_SLICE)) {
		__u32 shift = ref.filter_shift & 31;

		s->start = address >> shift << shift | entry >> 18;
		s->lengths = entry >> 6 & (NC_BASE_ONLY_LENGTHS - 1);
		s->shortest = entry & 63;
		return s->start <= address;
	}
	head = nc_base_head(ref);
	if (!head)
		return false;
	first = entry & NC_BASE_FIRST;
	count = entry >> 24 & NC_BASE_MANY4;
	if (unlikely(count == NC_BASE_MANY4)) {
		line = nc_base_line(ref.first, head->list + first / NC_BASE_STARTS4);
		if (!line)
			return false;
		count = line->starts4.start[nc_base_place(first, NC_BASE_STARTS4)];
		first++;
	}
#define NC_BEYOND4(line, at) nc_less(address, (line)->starts4.start[at])
	at = nc_base_search(ref.first, head->list, first, count, NC_BASE_STARTS4, NC_BEYOND4);
#undef NC_BEYOND4
	if (at == first)
		return false;
	line = nc_base_line(ref.first, head->list + (at - 1) / NC_BASE_STARTS4);
	if (!line)
		return false;
	at = nc_base_place(at - 1, NC_BASE_STARTS4);
	s->start = line->starts4.start[at];
	s->lengths = line->starts4.lengths[at];
	s->shortest = line->starts4.shortest[at];
	return true;
}

/* Whether any element covers an address, in host order. */
static __always_inline bool nc_base_holds4(struct nc_base_ref ref, __u32 address)
{
	struct nc_base_start4 s;

	return nc_base_start4(ref, address, &s) &&
	       !((__u64)(s.start ^ address) << (s.shortest & 63) >> 32);
}

/* ---- IPv6 ---- */

/* Whether any element may cover an address with this first half. */
static __always_inline bool nc_base_may_hold6(struct nc_base_ref ref, __u64 high)
{
	__u32 bit = nc_base_hash(high, ref.granule & 127) >> (ref.filter_shift & 63);
	const struct nc_base_line *line = nc_base_line(ref.first, NC_BASE_FILTER + (bit >> 9));

	return line && line->word[bit >> 6 & 7] >> (bit & 63) & 1;
}

/* Entry number `entry` of an index of IPv6: first start in the list, and how many in `count`. */
static __always_inline __u32 nc_base_slice(__u32 base, __u32 index, __u32 entry, __u32 *count)
{
	const struct nc_base_line *line = nc_base_line(base, index + (entry >> 4));
	__u32 found;

	*count = 0;
	if (!line)
		return 0;
	found = line->half[entry & 15];
	*count = found >> 24;
	found &= NC_BASE_FIRST;
	if (likely(*count != NC_BASE_MANY))
		return found;
	entry++;
	line = nc_base_line(base, index + (entry >> 4));
	*count = line ? (line->half[entry & 15] & NC_BASE_FIRST) - found : 0;
	return found;
}

/* How many bits from the left are zero; 64 for 0. */
static __always_inline __u32 nc_leading_zeroes(__u64 number)
{
	__u32 zeroes = 0;

	if (!number)
		return 64;
	zeroes += number >> 32 ? 0 : 32;
	zeroes += number << zeroes >> 48 ? 0 : 16;
	zeroes += number << zeroes >> 56 ? 0 : 8;
	zeroes += number << zeroes >> 60 ? 0 : 4;
	zeroes += number << zeroes >> 62 ? 0 : 2;
	zeroes += number << zeroes >> 63 ? 0 : 1;
	return zeroes;
}

/* The lengths of all elements that cover an address, as bits. */
struct nc_base_found {
	__u64 bits0, bits1, bits2;
};

/* Adds those of set number `lengths` that are not longer than `common`. */
static __always_inline void nc_base_add(__u32 base, __u32 part, __u32 lengths, __u32 common,
					struct nc_base_found *found)
{
	const struct nc_base_line *line = nc_base_line(base, part + (lengths >> 1));
	__u32 at = (lengths & 1) * 4;
	__u64 upto = ~0ull >> (63 - (common & 63)); /* bits 0 to common, of its word */

	if (!line)
		return;
	if (common < 64) {
		found->bits0 |= line->word[at] & upto;
		return;
	}
	found->bits0 |= line->word[at];
	if (common < 128) {
		found->bits1 |= line->word[at + 1] & upto;
		return;
	}
	found->bits1 |= line->word[at + 1];
	found->bits2 |= line->word[at + 2] & 1;
}

/* `address` in host order. */
static __always_inline void nc_base_find4(struct nc_base_ref ref, __u32 address,
					  struct nc_base_found *found)
{
	const struct nc_base_head *head;
	struct nc_base_start4 s;

	if (!nc_base_start4(ref, address, &s))
		return;
	head = nc_base_head(ref);
	if (head)
		nc_base_add(ref.first, head->lengths, s.lengths,
			    nc_leading_zeroes((__u64)(s.start ^ address) << 32 | 0x80000000),
			    found);
}

/* Both halves of the address in host order. */
static __always_inline void nc_base_find6(struct nc_base_ref ref, __u64 high, __u64 low,
					  struct nc_base_found *found)
{
	const struct nc_base_head *head;
	const struct nc_base_line *line;
	__u32 first, count, at;
	__u64 key;

	if (!nc_base_may_hold6(ref, high))
		return;
	head = nc_base_head(ref);
	if (!head)
		return;
	key = nc_base_hash(high, ref.granule & 127);
	first = nc_base_slice(ref.first, head->index, key >> (head->index_shift & 63), &count);
#define NC_BEYOND6(line, at) nc_less(high, (line)->shorts.start[at])
	at = nc_base_search(ref.first, head->list, first, count, NC_BASE_SHORTS, NC_BEYOND6);
#undef NC_BEYOND6
	line = at == first ?
		       NULL :
		       nc_base_line(ref.first, head->list + nc_base_divide(at - 1, NC_BASE_SHORTS));
	if (line) {
		at = nc_base_place(at - 1, NC_BASE_SHORTS);
		nc_base_add(ref.first, head->lengths, line->shorts.lengths[at],
			    nc_leading_zeroes(line->shorts.start[at] ^ high), found);
	}
	if (likely(!head->long_list_count))
		return;
	key = nc_base_hash(high, 64);
	first = nc_base_slice(ref.first, head->long_index, key >> (head->long_index_shift & 63),
			      &count);
#define NC_BEYOND6(line, at)                                                                       \
	(nc_less(high, (line)->longs.start[at][0]) |                                               \
	 (((line)->longs.start[at][0] == high) & nc_less(low, (line)->longs.start[at][1])))
	at = nc_base_search(ref.first, head->long_list, first, count, NC_BASE_LONGS, NC_BEYOND6);
#undef NC_BEYOND6
	line = at == first ? NULL :
			     nc_base_line(ref.first,
					  head->long_list + nc_base_divide(at - 1, NC_BASE_LONGS));
	if (line) {
		__u64 differ;

		at = nc_base_place(at - 1, NC_BASE_LONGS);
		differ = line->longs.start[at][0] ^ high;
		nc_base_add(ref.first, head->lengths, line->longs.lengths[at],
			    differ ? nc_leading_zeroes(differ) :
				     64 + nc_leading_zeroes(line->longs.start[at][1] ^ low),
			    found);
	}
}

static __always_inline bool nc_base_has_any(const struct nc_base_found *found)
{
	return found->bits0 | found->bits1 | found->bits2;
}

/* Whether any element covers the address. */
static __always_inline bool nc_base_holds6(struct nc_base_ref ref, __u64 high, __u64 low)
{
	struct nc_base_found found = {};

	nc_base_find6(ref, high, low, &found);
	return nc_base_has_any(&found);
}

static __always_inline bool nc_base_has_length(const struct nc_base_found *found, __u32 length)
{
	__u64 word = length < 64 ? found->bits0 : length < 128 ? found->bits1 : found->bits2;

	return word >> (length & 63) & 1;
}

/* Whether there is an element shorter than `length`. */
static __always_inline bool nc_base_has_shorter(const struct nc_base_found *found, __u32 length)
{
	__u64 below = (1ull << (length & 63)) - 1;

	if (length >= 128)
		return found->bits0 | found->bits1 | (found->bits2 & below);
	if (length >= 64)
		return found->bits0 | (found->bits1 & below);
	return found->bits0 & below;
}

/* The longest length; 0 also if there is none. */
static __always_inline __u32 nc_base_longest(const struct nc_base_found *found)
{
	if (found->bits2)
		return 128;
	if (found->bits1)
		return 127 - nc_leading_zeroes(found->bits1);
	return found->bits0 ? 63 - nc_leading_zeroes(found->bits0) : 0;
}

#endif
