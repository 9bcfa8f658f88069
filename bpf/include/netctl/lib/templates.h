/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Maps that filters reach through an outer map: the elements of sets, and chunks of counters. They
 * are made one at a time from bpf/maps/standalone.bpf.c. The kernel wants kind, key size, value size
 * and flags to be those of the outer map's template, hence one declaration for both; the number of
 * entries is the maker's choice, but for counters.
 *
 * Sets are not preallocated: an element costs memory when it is added, not before.
 */
#ifndef NETCTL_LIB_TEMPLATES_H
#define NETCTL_LIB_TEMPLATES_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/rule.h>
#include <netctl/abi/set_base.h>

NC_BTF(nc_set_host4);
NC_BTF(nc_set_host6);
NC_BTF(nc_set_cidr4);
NC_BTF(nc_set_cidr6);
NC_BTF(nc_set_port);
NC_BTF(nc_set_value);
NC_BTF(nc_counter);
NC_BTF(nc_base_line);

struct nc_map_host4 {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct nc_set_host4);
	__type(value, struct nc_set_value);
};

struct nc_map_host6 {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct nc_set_host6);
	__type(value, struct nc_set_value);
};

struct nc_map_cidr4 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct nc_set_cidr4);
	__type(value, struct nc_set_value);
};

struct nc_map_cidr6 {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct nc_set_cidr6);
	__type(value, struct nc_set_value);
};

struct nc_map_port {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1);
	__type(key, struct nc_set_port);
	__type(value, struct nc_set_value);
};

/* The compiled part of a cidr set. Its size is its own: BPF_F_INNER_MAP. */
struct nc_map_base {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE | BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_base_line);
};

/* By nc_set_info::base: the bases of all cidr sets under a root, one map a family, pinned, and shared by
 * all programs, so that one write puts a new base in force everywhere. */
struct nc_map_bases {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct nc_map_base);
};

struct nc_map_counters {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NC_COUNTER_CHUNK);
	__type(key, __u32);
	__type(value, struct nc_counter);
};

#endif
