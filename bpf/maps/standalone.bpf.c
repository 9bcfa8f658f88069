// SPDX-License-Identifier: GPL-2.0-only
/*
 * Templates of the maps that belong to no program. Userspace makes one of them at a time, sized as
 * it needs; being declared here gives them BTF.
 */
#include <netctl/lib/policy/templates.h>
#include <netctl/lib/templates.h>

#include <netctl/abi/journal.h>

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
	__type(value, struct nc_journal);
} journal SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_set_info);
} set_info SEC(".maps");

struct nc_map_host4 set_host4 SEC(".maps");
struct nc_map_host6 set_host6 SEC(".maps");
struct nc_map_cidr4 set_cidr4 SEC(".maps");
struct nc_map_cidr6 set_cidr6 SEC(".maps");
struct nc_map_port set_ports SEC(".maps");
struct nc_map_base_segment base_segment SEC(".maps");
struct nc_map_base_segments base_segments SEC(".maps");
struct nc_map_base_refs base_refs SEC(".maps");

/* One chunk of a point's `counters`. */
struct nc_map_counters counter_chunk SEC(".maps");

/* What hangs in a point's `changes`. */
struct nc_map_changes change_block SEC(".maps");

/* Of the connect policy: tables and texts of a generation, one chunk of its `counters`. */
struct nc_map_segment policy_segment SEC(".maps");
struct nc_map_texts policy_texts SEC(".maps");
struct nc_map_policy_counters policy_counters SEC(".maps");
