/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What instruments on sockets share: the selection by connections and their owners. Include vmlinux.h and
 * bpf_helpers.h before.
 */
#ifndef NETCTL_LIB_TRACE_H
#define NETCTL_LIB_TRACE_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

#include <netctl/lib/trace_ring.h>

#define AF_INET 2
#define AF_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_TRACE_PORTS);
	__type(key, __u32);
	__type(value, __u8);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, NC_TRACE_PREFIXES);
	__type(key, struct nc_trace_prefix);
	__type(value, __u8);
} sources SEC(".maps"), destinations SEC(".maps");

static __always_inline bool nc_trace_port(__u32 port)
{
	__u8 *selected = bpf_map_lookup_elem(&ports, &port);

	return selected && *selected;
}

/* Of sockets, and of what is no full one: requests and those in TIME_WAIT. */
static __always_inline void nc_ends_of(const struct sock_common *common, struct nc_trace_ends *ends)
{
	ends->family = common->skc_family == AF_INET6 ? 6 : 4;
	ends->local_port = common->skc_num;
	ends->remote_port = bpf_ntohs(common->skc_dport);
	if (ends->family == 6) {
		BPF_CORE_READ_INTO((struct in6_addr *)ends->local, common, skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO((struct in6_addr *)ends->remote, common, skc_v6_daddr);
	} else {
		__u32 local = common->skc_rcv_saddr, remote = common->skc_daddr;

		__builtin_memcpy(ends->local, &local, 4);
		__builtin_memcpy(ends->remote, &remote, 4);
	}
}

/* A full socket's: it keeps its port there when it has given it back. */
static __always_inline void nc_ends_of_full(const struct sock *sk, struct nc_trace_ends *ends)
{
	const struct inet_sock *inet = (const void *)sk;

	nc_ends_of(&sk->__sk_common, ends);
	ends->local_port = bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
}

/* For the tries: IPv4 in the place that it has within IPv6. */
static __always_inline void nc_trace_key(struct nc_trace_prefix *key, const __u8 *address,
					 __u8 family)
{
	key->length = 128;
	if (family == 6) {
		__builtin_memcpy(key->address, address, 16);
	} else {
		key->address[10] = key->address[11] = 0xff;
		__builtin_memcpy(key->address + 12, address, 4);
	}
}

static __always_inline __u64 nc_cgroup_of(const struct sock *sk)
{
	return sk->sk_cgrp_data.cgroup->kn->id;
}

static __always_inline bool nc_below_cgroup(const struct sock *sk)
{
	struct cgroup *cgroup = sk->sk_cgrp_data.cgroup, *ancestor = NULL;

	if (cgroup->level < (int)selection.cgroup_level)
		return false;
	bpf_probe_read_kernel(&ancestor, sizeof(ancestor),
			      (void *)cgroup + bpf_core_field_offset(cgroup->ancestors) +
				      selection.cgroup_level * sizeof(void *));
	return ancestor && BPF_CORE_READ(ancestor, kn, id) == selection.cgroup_id;
}

/* Whether a connection is selected, whoever owns it. */
static __always_inline bool nc_ends_selected(const struct nc_trace_ends *ends, __u32 netns)
{
	if (selection.select & NC_TRACE_SELECT_NETNS && netns != selection.netns)
		return false;
	if (selection.select & NC_TRACE_SELECT_PORT && !nc_trace_port(ends->local_port) &&
	    !nc_trace_port(ends->remote_port))
		return false;
	if (selection.select & NC_TRACE_SELECT_SRC) {
		struct nc_trace_prefix key = {};

		nc_trace_key(&key, ends->local, ends->family);
		if (!bpf_map_lookup_elem(&sources, &key))
			return false;
	}
	if (selection.select & NC_TRACE_SELECT_DST) {
		struct nc_trace_prefix key = {};

		nc_trace_key(&key, ends->remote, ends->family);
		if (!bpf_map_lookup_elem(&destinations, &key))
			return false;
	}
	return true;
}

static __always_inline bool nc_cgroup_selected(const struct sock *sk)
{
	return !(selection.select & NC_TRACE_SELECT_CGROUP) || nc_below_cgroup(sk);
}

/* Whether what has no socket is out of question. */
static __always_inline bool nc_needs_socket(void)
{
	return selection.select &
	       (NC_TRACE_SELECT_PID | NC_TRACE_SELECT_COMM | NC_TRACE_SELECT_CGROUP);
}

static __always_inline bool nc_owner_selected(const struct nc_trace_owner *owner)
{
	if (selection.select & NC_TRACE_SELECT_PID && owner->pid != selection.pid)
		return false;
	if (selection.select & NC_TRACE_SELECT_COMM)
		for (int i = 0; i < 16; i++) {
			if (owner->comm[i] != selection.comm[i])
				return false;
			if (!owner->comm[i])
				break;
		}
	return true;
}

static __always_inline void nc_owner_is(struct nc_trace_owner *owner,
					const struct task_struct *task)
{
	owner->pid = task->tgid;
	bpf_probe_read_kernel_str(owner->comm, sizeof(owner->comm), task->group_leader->comm);
}

#endif
