// SPDX-License-Identifier: GPL-2.0-only
/*
 * The maps of one set, without a program: netctl creates a set by loading this object with the maps
 * that its type has, sized as asked for. Made from an object, they have BTF, so that bpftool prints
 * their fields.
 */
#include <netctl/lib/set_maps.h>

struct nc_map_host4 host4 SEC(".maps");
struct nc_map_host6 host6 SEC(".maps");
struct nc_map_cidr4 cidr4 SEC(".maps");
struct nc_map_cidr6 cidr6 SEC(".maps");
struct nc_map_port port SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_set_info);
} info SEC(".maps");

char LICENSE[] SEC("license") = "GPL";
