/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Slots of histograms, as userspace/features/trace/histogram.hpp has them: values below 8 have one each, and each power
 * of two above has 8. Include vmlinux.h and bpf_helpers.h before.
 */
#ifndef NETCTL_LIB_SLOTS_H
#define NETCTL_LIB_SLOTS_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

#define NC_SLOT_BITS 3

/* Values of 2^bits and more have the last slot below it. */
static __always_inline __u32 nc_slot_of(__u64 value, __u32 bits)
{
	__u64 rest = value >> NC_SLOT_BITS;
	__u32 power = NC_SLOT_BITS;

	if (value < 1 << NC_SLOT_BITS)
		return value;
	if (value >> bits)
		return ((bits - NC_SLOT_BITS + 1) << NC_SLOT_BITS) - 1;
	for (int shift = 32; shift; shift >>= 1)
		if (rest >> shift) {
			rest >>= shift;
			power += shift;
		}
	return ((power - NC_SLOT_BITS + 1) << NC_SLOT_BITS) +
	       (value >> (power - NC_SLOT_BITS) & ((1 << NC_SLOT_BITS) - 1));
}

#endif
