// SPDX-License-Identifier: GPL-2.0-only
/*
 * Writes two words of an array, one right behind the other: a program that runs is not ended by a signal, as
 * whoever runs it may be between two writes of his own, and each of its stores is whole for all who read.
 */
#include <netctl/lib/templates.h>

char LICENSE[] SEC("license") = "GPL";

struct nc_map_base_refs words SEC(".maps");

const volatile __u32 first_place, second_place;
const volatile __u64 first_word, second_word;

/* Returns 1 if it has written both, 0 if it has written neither. */
SEC("socket")
int write_words(struct __sk_buff *skb)
{
	__u32 first = first_place, second = second_place;
	struct nc_set_word *a = bpf_map_lookup_elem(&words, &first);
	struct nc_set_word *b = bpf_map_lookup_elem(&words, &second);

	if (!a || !b)
		return 0;
	*(volatile __u64 *)&a->word = first_word;
	*(volatile __u64 *)&b->word = second_word;
	return 1;
}
