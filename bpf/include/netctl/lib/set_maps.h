/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The maps that hold a set's elements. The sets themselves are made from bpf/maps/set.bpf.c; the
 * filters reach them through outer maps with these as templates. Kind, sizes and flags must agree,
 * the number of entries need not.
 */
#ifndef NETCTL_LIB_SET_MAPS_H
#define NETCTL_LIB_SET_MAPS_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/rule.h>

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

#endif
