/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Lookup in the compiled part of a big cidr set. abi/set_base.h tells its layout. For most addresses that
 * are in no element this is two loads, of the head and of the filter; for others one or two more, and
 * seldom the steps of a binary search.
 *
 * The search has no branch but for its end: the verifier would follow each way that it can take. Nor has it
 * anything on the stack, of which the programs around it need most.
 */
#ifndef NETCTL_LIB_SET_BASE_H
#define NETCTL_LIB_SET_BASE_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/set_base.h>

/* As many halve what NC_BASE_FIRST starts leave. */
#define NC_BASE_STEPS 25

static __always_inline void *nc_base_line(void *base, __u32 number)
{
	return bpf_map_lookup_elem(base, &number);
}

/* The place in its line of number `i`, where a line has `per_line`: for the verifier, which does not
 * know what a remainder is, below a power of two. */
static __always_inline __u32 nc_base_place(__u32 i, __u32 per_line)
{
	__u32 place = i % per_line;

	nc_opaque(place);
	return place & (per_line > 4 ? 7 : 3);
}

/* 1 if a < b, else 0. */
static __always_inline __u64 nc_less(__u64 a, __u64 b)
{
	__u64 less = ((~a & b) | ((~a | b) & (a - b))) >> 63;

	nc_opaque(less);
	return less;
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
			line_ = nc_base_line(base, (part) + middle_ / (per_line));                 \
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

/* ---- IPv4 ---- */

/* The entry of the address's bucket; 0 if it has no start, and no entry is 0. */
static __always_inline __u32 nc_base_entry4(void *base, const struct nc_base_head *head,
					    __u32 address)
{
	__u32 bucket = address >> (head->filter_shift & 31), word = bucket >> 6;
	__u32 number = nc_base_filter_line(word);
	const struct nc_base_line *line = nc_base_line(base, head->filter + number);
	__u64 bits, at = word - number * NC_BASE_WORDS4;
	__u32 entry;

	if (!line)
		return 0;
	nc_opaque(at);
	at &= 7;
	bits = line->word[at] >> (bucket & 63);
	if (likely(!(bits & 1)))
		return 0;
	bits = line->word[at] & ((1ull << (bucket & 63)) - 1);
	entry = line->filter4.first + line->filter4.before[at] + nc_count_bits(bits);
	line = nc_base_line(base, head->index + (entry >> 4));
	return line ? line->half[entry & 15] : 0;
}

/* A start that covers addresses behind it. */
struct nc_base_start4 {
	__u32 start;
	__u32 lengths;	/* number of its set */
	__u32 shortest; /* of them */
};

/* The last start at or before the address in its bucket. False if there is none. */
static __always_inline bool nc_base_start4(void *base, __u32 address, struct nc_base_start4 *s)
{
	const struct nc_base_head *head = nc_base_line(base, 0);
	const struct nc_base_line *line;
	__u32 entry, first, count, at;

	if (!head)
		return false;
	entry = nc_base_entry4(base, head, address);
	if (likely(!entry))
		return false;
	if (!(entry & NC_BASE_SLICE)) {
		__u32 shift = head->filter_shift & 31;

		s->start = address >> shift << shift | entry >> 18;
		s->lengths = entry >> 6 & (NC_BASE_ONLY_LENGTHS - 1);
		s->shortest = entry & 63;
		return s->start <= address;
	}
	first = entry & NC_BASE_FIRST;
	count = entry >> 24 & NC_BASE_MANY4;
	if (unlikely(count == NC_BASE_MANY4)) {
		line = nc_base_line(base, head->list + first / NC_BASE_STARTS4);
		if (!line)
			return false;
		count = line->starts4.start[nc_base_place(first, NC_BASE_STARTS4)];
		first++;
	}
#define NC_BEYOND4(line, at) nc_less(address, (line)->starts4.start[at])
	at = nc_base_search(base, head->list, first, count, NC_BASE_STARTS4, NC_BEYOND4);
#undef NC_BEYOND4
	if (at == first)
		return false;
	line = nc_base_line(base, head->list + (at - 1) / NC_BASE_STARTS4);
	if (!line)
		return false;
	at = nc_base_place(at - 1, NC_BASE_STARTS4);
	s->start = line->starts4.start[at];
	s->lengths = line->starts4.lengths[at];
	s->shortest = line->starts4.shortest[at];
	return true;
}

/* Whether any element covers an address, in host order. */
static __always_inline bool nc_base_holds4(void *base, __u32 address)
{
	struct nc_base_start4 s;

	return nc_base_start4(base, address, &s) &&
	       !((__u64)(s.start ^ address) << (s.shortest & 63) >> 32);
}

/* ---- IPv6 ---- */

/* Whether any element covers such a key. */
static __always_inline bool nc_base_may_hold6(void *base, const struct nc_base_head *head,
					      __u64 key)
{
	__u32 bit = key >> (head->filter_shift & 63);
	const struct nc_base_line *line = nc_base_line(base, head->filter + (bit >> 9));

	return line && line->word[bit >> 6 & 7] >> (bit & 63) & 1;
}

/* Entry number `entry` of an index of IPv6: first start in the list, and how many in `count`. */
static __always_inline __u32 nc_base_slice(void *base, __u32 index, __u32 entry, __u32 *count)
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
static __always_inline void nc_base_add(void *base, __u32 part, __u32 lengths, __u32 common,
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
static __always_inline void nc_base_find4(void *base, __u32 address, struct nc_base_found *found)
{
	const struct nc_base_head *head = nc_base_line(base, 0);
	struct nc_base_start4 s;

	if (head && nc_base_start4(base, address, &s))
		nc_base_add(base, head->lengths, s.lengths,
			    nc_leading_zeroes((__u64)(s.start ^ address) << 32 | 0x80000000),
			    found);
}

/* Both halves of the address in host order. */
static __always_inline void nc_base_find6(void *base, __u64 high, __u64 low,
					  struct nc_base_found *found)
{
	const struct nc_base_head *head = nc_base_line(base, 0);
	const struct nc_base_line *line;
	__u32 first, count, at;
	__u64 key;

	if (!head)
		return;
	key = nc_base_hash(high, head->granule & 127);
	if (likely(!nc_base_may_hold6(base, head, key)))
		return;
	first = nc_base_slice(base, head->index, key >> (head->index_shift & 63), &count);
#define NC_BEYOND6(line, at) nc_less(high, (line)->shorts.start[at])
	at = nc_base_search(base, head->list, first, count, NC_BASE_SHORTS, NC_BEYOND6);
#undef NC_BEYOND6
	line = at == first ? NULL : nc_base_line(base, head->list + (at - 1) / NC_BASE_SHORTS);
	if (line) {
		at = nc_base_place(at - 1, NC_BASE_SHORTS);
		nc_base_add(base, head->lengths, line->shorts.lengths[at],
			    nc_leading_zeroes(line->shorts.start[at] ^ high), found);
	}
	if (likely(!head->long_list_count))
		return;
	key = nc_base_hash(high, 64);
	first = nc_base_slice(base, head->long_index, key >> (head->long_index_shift & 63), &count);
#define NC_BEYOND6(line, at)                                                                       \
	(nc_less(high, (line)->longs.start[at][0]) |                                               \
	 (((line)->longs.start[at][0] == high) & nc_less(low, (line)->longs.start[at][1])))
	at = nc_base_search(base, head->long_list, first, count, NC_BASE_LONGS, NC_BEYOND6);
#undef NC_BEYOND6
	line = at == first ? NULL : nc_base_line(base, head->long_list + (at - 1) / NC_BASE_LONGS);
	if (line) {
		__u64 differ;

		at = nc_base_place(at - 1, NC_BASE_LONGS);
		differ = line->longs.start[at][0] ^ high;
		nc_base_add(base, head->lengths, line->longs.lengths[at],
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
static __always_inline bool nc_base_holds6(void *base, __u64 high, __u64 low)
{
	struct nc_base_found found = {};

	nc_base_find6(base, high, low, &found);
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
