/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Maps that filters reach through an outer map: the elements of sets, chunks of counters, and changes
 * to rules. They
 * are made one at a time from bpf/maps/standalone.bpf.c. The kernel wants kind, key size, value size
 * and flags to be those of the outer map's template, hence one declaration for both; the number of
 * entries is the maker's choice, but for counters.
 *
 * Sets are not preallocated: an element costs memory when it is added, not before.
 */
#ifndef NETCTL_LIB_TEMPLATES_H
#define NETCTL_LIB_TEMPLATES_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/changes.h>
#include <netctl/abi/rule.h>
#include <netctl/abi/set_base.h>

NC_BTF(nc_set_host4);
NC_BTF(nc_set_host6);
NC_BTF(nc_set_cidr4);
NC_BTF(nc_set_cidr6);
NC_BTF(nc_set_port);
NC_BTF(nc_set_value);
NC_BTF(nc_counter);
NC_BTF(nc_changes);
NC_BTF(nc_base_line);
NC_BTF(nc_set_word);

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

/* A segment of the compiled part of a cidr set. */
struct nc_map_base_segment {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_BASE_SEGMENT);
	__type(key, __u32);
	__type(value, struct nc_base_line);
};

/* The bases of all cidr sets under a root, pinned, and shared by all programs, so that one write puts a new
 * base in force everywhere. */
struct nc_map_base_segments {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1); /* NC_BASE_SEGMENTS where there are sets */
	__type(key, __u32);
	__array(values, struct nc_map_base_segment);
};

struct nc_map_base_refs {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct nc_set_word);
};

struct nc_map_counters {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NC_COUNTER_CHUNK);
	__type(key, __u32);
	__type(value, struct nc_counter);
};

struct nc_map_changes {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_changes);
};

#endif
