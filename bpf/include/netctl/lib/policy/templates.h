/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Maps of the connect policy that its programs reach through an outer map; see lib/templates.h.
 */
#ifndef NETCTL_LIB_POLICY_TEMPLATES_H
#define NETCTL_LIB_POLICY_TEMPLATES_H

#include <netctl/lib/bpf.h>

#include <netctl/abi/policy_tables.h>

NC_BTF(nc_rule_text);
NC_BTF(nc_policy_segment);
NC_BTF(nc_policy_counter);

/* Its tables: lib/policy/classify.h. */
struct nc_map_segment {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_policy_segment);
};

/* The texts of its rules; as many as there are. */
struct nc_map_texts {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_INNER_MAP);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rule_text);
};

struct nc_map_policy_counters {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, NC_COUNTER_CHUNK);
	__type(key, __u32);
	__type(value, struct nc_policy_counter);
};

#endif
