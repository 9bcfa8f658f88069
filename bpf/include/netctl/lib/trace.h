/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What instruments on sockets share: the selection, counters and the ring. Include vmlinux.h and
 * bpf_helpers.h before.
 */
#ifndef NETCTL_LIB_TRACE_H
#define NETCTL_LIB_TRACE_H

#ifndef __bpf__
#error "netctl/lib/ is for BPF programs; userspace shares netctl/abi/ with them"
#endif

#include <netctl/abi/trace.h>

#define AF_INET 2
#define AF_INET6 10
#define PF_KTHREAD 0x00200000

const volatile struct nc_trace_selection selection;

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

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_trace_counters);
} counters SEC(".maps");

/* Written with BPF_RB_NO_WAKEUP: waking the reader costs more than all the rest, so it looks by itself
 * each few milliseconds. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 * 1024 * 1024);
} events SEC(".maps");

static __always_inline struct nc_trace_counters *nc_trace_count(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counters, &zero);
}

static __always_inline bool nc_trace_port(__u32 port)
{
	__u8 *selected = bpf_map_lookup_elem(&ports, &port);

	return selected && *selected;
}

/* The port that a socket keeps when it has given it back. */
static __always_inline __u16 nc_local_port(const struct sock *sk)
{
	const struct inet_sock *inet = (const void *)sk;

	return bpf_ntohs(BPF_CORE_READ(inet, inet_sport));
}

static __always_inline void nc_local_address(const struct sock *sk, void *address)
{
	if (sk->__sk_common.skc_family == AF_INET6) {
		BPF_CORE_READ_INTO((struct in6_addr *)address, sk, __sk_common.skc_v6_rcv_saddr);
	} else {
		__u32 ip = sk->__sk_common.skc_rcv_saddr;

		__builtin_memcpy(address, &ip, 4);
	}
}

static __always_inline void nc_remote_address(const struct sock *sk, void *address)
{
	if (sk->__sk_common.skc_family == AF_INET6) {
		BPF_CORE_READ_INTO((struct in6_addr *)address, sk, __sk_common.skc_v6_daddr);
	} else {
		__u32 ip = sk->__sk_common.skc_daddr;

		__builtin_memcpy(address, &ip, 4);
	}
}

/* For the tries: IPv4 in the place that it has within IPv6. */
static __always_inline void nc_trace_key(const struct sock *sk, struct nc_trace_prefix *key,
					 bool remote)
{
	void *at = key->address;

	key->length = 128;
	if (sk->__sk_common.skc_family != AF_INET6) {
		key->address[10] = key->address[11] = 0xff;
		at = key->address + 12;
	}
	if (remote)
		nc_remote_address(sk, at);
	else
		nc_local_address(sk, at);
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

/* Whether a socket is selected, whoever owns it. */
static __always_inline bool nc_socket_selected(const struct sock *sk)
{
	if (selection.select & NC_TRACE_SELECT_NETNS &&
	    sk->__sk_common.skc_net.net->ns.inum != selection.netns)
		return false;
	if (selection.select & NC_TRACE_SELECT_PORT && !nc_trace_port(nc_local_port(sk)) &&
	    !nc_trace_port(bpf_ntohs(sk->__sk_common.skc_dport)))
		return false;
	if (selection.select & NC_TRACE_SELECT_SRC) {
		struct nc_trace_prefix key = {};

		nc_trace_key(sk, &key, false);
		if (!bpf_map_lookup_elem(&sources, &key))
			return false;
	}
	if (selection.select & NC_TRACE_SELECT_DST) {
		struct nc_trace_prefix key = {};

		nc_trace_key(sk, &key, true);
		if (!bpf_map_lookup_elem(&destinations, &key))
			return false;
	}
	if (selection.select & NC_TRACE_SELECT_CGROUP && !nc_below_cgroup(sk))
		return false;
	return true;
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
