/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Redirection: its settings, its maps, and its counters. This and the other headers of the name are
 * parts of redirect.bpf.c.
 */
#ifndef NETCTL_REDIRECT_STATE_H
#define NETCTL_REDIRECT_STATE_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#define AF_INET 2
#define AF_INET6 10
#define O_NONBLOCK 04000
#define ENOENT 2
#define ENOMEM 12

#define SOL_SOCKET 1
#define SOL_IP 0
#define SOL_TCP 6
#define SOL_IPV6 41

#define SECOND 1000000000ULL

/* Set once, before loading; in bytes, messages and nanoseconds. */
const volatile __u32 rd_turns = 16;	     /* segments that prove request and response */
const volatile __u32 rd_max_message = 16384; /* larger ones are streams */
const volatile __u32 rd_max_run = 8;	     /* messages one way without one the other way */
const volatile __u32 rd_max_ahead = 1 << 20; /* redirected and unread */
const volatile __u64 rd_grace_ns = 0;	     /* from joining to the first redirected message */
const volatile __u32 rd_allow_blocking = 0;
const volatile __u32 rd_looks = 2048; /* at a connection that is not at rest, without a pause */

struct {
	__uint(type, BPF_MAP_TYPE_SOCKMAP);
	__uint(max_entries, 2 * NC_RD_SLOTS);
	__type(key, __u32);
	__type(value, __u64);
} rd_socks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 18);
} rd_events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_REQUESTS);
	__type(key, __u32);
	__type(value, struct nc_rd_request);
} rd_request SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rd_stats);
} rd_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_BANKS *NC_RD_RULES);
	__type(key, __u32);
	__type(value, struct nc_rd_rule);
} rd_rules SEC(".maps");

/* The rules' texts, by the same index; the programs do not read it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, NC_RD_BANKS *NC_RD_RULES);
	__type(key, __u32);
	__type(value, char[256]);
} rd_rule_text SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct nc_rd_conf);
} rd_conf SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, struct nc_rd_event);
	__type(value, struct nc_rd_recent);
} rd_recent SEC(".maps");

#define RD_CGROUP_DEPTH 16

/* Of each end, from its own cgroup upwards; 0 behind the root. */
struct rd_cgroups {
	__u64 ids[2][RD_CGROUP_DEPTH];
};

/* Working space of rd_join: too large for the stack. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct rd_cgroups);
} rd_scratch SEC(".maps");

/* Entries of a socket's wait queue with this function are threads asleep in recv or send. */
extern const void woken_wake_function __ksym;

static __always_inline struct nc_rd_stats *stats(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rd_stats, &zero);
}

#define COUNT(member)                                                                              \
	({                                                                                         \
		struct nc_rd_stats *stats_ = stats();                                              \
		if (stats_)                                                                        \
			stats_->member++;                                                          \
	})

static __always_inline void count_on_tcp(__u32 reason)
{
	struct nc_rd_stats *s = stats();

	if (s && reason < NC_RD_REASONS)
		s->on_tcp[reason]++;
}

static __always_inline struct nc_rd_conf *conf(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&rd_conf, &zero);
}

/* Not inlined, here and below, where a large value would take the caller's stack. */
static __noinline void remember(const struct nc_rd_event *connection, __u32 reason)
{
	struct nc_rd_recent recent = { .reason = reason };

	bpf_map_update_elem(&rd_recent, connection, &recent, BPF_ANY);
}

#endif
