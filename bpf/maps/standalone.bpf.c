// SPDX-License-Identifier: GPL-2.0-only
/*
 * Templates of the maps that belong to no program. Userspace makes one of them at a time, sized as
 * it needs; being declared here gives them BTF.
 */
#include "vmlinux.h"

#include <bpf/bpf_helpers.h>

#include "netctl/abi/rule.h"
#include "netctl/abi/types.h"

char LICENSE[] SEC("license") = "GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_meta);
} meta SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_set_info);
} set_info SEC(".maps");

/* Without preallocation: an element costs memory when it is added, not before. */
#define SET_MAP(name, map_type, key_type)                  \
	struct {                                           \
		__uint(type, map_type);                    \
		__uint(map_flags, BPF_F_NO_PREALLOC);      \
		__uint(max_entries, 1);                    \
		__type(key, key_type);                     \
		__type(value, struct nc_set_value);        \
	} name SEC(".maps")

SET_MAP(set_host4, BPF_MAP_TYPE_HASH, struct nc_set_host4);
SET_MAP(set_host6, BPF_MAP_TYPE_HASH, struct nc_set_host6);
SET_MAP(set_cidr4, BPF_MAP_TYPE_LPM_TRIE, struct nc_set_cidr4);
SET_MAP(set_cidr6, BPF_MAP_TYPE_LPM_TRIE, struct nc_set_cidr6);
SET_MAP(set_ports, BPF_MAP_TYPE_HASH, struct nc_set_port);

/* One chunk of a point's `counters`. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NC_COUNTER_CHUNK);
	__type(key, __u32);
	__type(value, struct nc_counter);
} counter_chunk SEC(".maps");
