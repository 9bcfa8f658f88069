/* SPDX-License-Identifier: GPL-2.0-only */
/* Redirection: connections that are plain TCP, and may become candidates. */
#ifndef NETCTL_REDIRECT_OBSERVE_H
#define NETCTL_REDIRECT_OBSERVE_H

#include "vmlinux.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "netctl/abi/redirect.h"

#include "redirect_ends.h"
#include "redirect_leave.h"
#include "redirect_rules.h"
#include "redirect_state.h"

/*
 * Ours among the callback flags, which all sock_ops programs of a socket share: also another
 * netctl's, as the self-test's in a cgroup below ours. The one that set them first has the
 * connection. Retransmissions cost nothing and tell us from others who ask for RTT callbacks.
 */
#define OBSERVE (BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG)
#define PASSIVE BPF_SOCK_OPS_RTO_CB_FLAG /* costs nothing, and tells rd_join who connected */
#define JOINED (BPF_SOCK_OPS_STATE_CB_FLAG | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)

/* Keeps clang from merging accesses to the context, which the verifier refuses. */
#define FIELD(member)                                                                              \
	({                                                                                         \
		__u32 value_ = ctx->member;                                                        \
		barrier_var(value_);                                                               \
		value_;                                                                            \
	})

static __always_inline void set_flags(struct bpf_sock_ops *ctx, __u32 flags)
{
	__u32 others = FIELD(bpf_sock_ops_cb_flags) & ~(OBSERVE | PASSIVE | JOINED);

	bpf_sock_ops_cb_flags_set(ctx, others | flags);
}

static __always_inline void fill_end(struct bpf_sock_ops *ctx, struct nc_rd_end *e)
{
	__u32 family = FIELD(family);

	e->local_port = FIELD(local_port);
	e->remote_port = bpf_ntohl(FIELD(remote_port));
	e->local[1] = e->local[2] = e->local[3] = 0;
	e->remote[1] = e->remote[2] = e->remote[3] = 0;
	if (family == AF_INET) {
		e->family = 4;
		e->local[0] = FIELD(local_ip4);
		e->remote[0] = FIELD(remote_ip4);
		return;
	}
	e->family = 6;
	e->local[0] = FIELD(local_ip6[0]);
	e->local[1] = FIELD(local_ip6[1]);
	e->local[2] = FIELD(local_ip6[2]);
	e->local[3] = FIELD(local_ip6[3]);
	e->remote[0] = FIELD(remote_ip6[0]);
	e->remote[1] = FIELD(remote_ip6[1]);
	e->remote[2] = FIELD(remote_ip6[2]);
	e->remote[3] = FIELD(remote_ip6[3]);
	if (!e->remote[0] && !e->remote[1] && e->remote[2] == bpf_htonl(0xffff)) {
		e->family = 4;
		e->local[0] = e->local[3];
		e->remote[0] = e->remote[3];
		e->local[2] = e->local[3] = e->remote[2] = e->remote[3] = 0;
	}
}

/*
 * Loopback, or the same address at both ends. Others may be local too: in another namespace, which
 * is asked for with NC_RD_CROSS_NETNS; else those stay on TCP.
 */
static __always_inline bool local_only(const struct nc_rd_end *e)
{
	if (e->family == 4)
		return (e->remote[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) ||
		       e->remote[0] == e->local[0];
	return e->remote[0] == e->local[0] && e->remote[1] == e->local[1] &&
	       e->remote[2] == e->local[2] && e->remote[3] == e->local[3];
}

static __always_inline bool observed(struct bpf_sock_ops *ctx)
{
	return (FIELD(bpf_sock_ops_cb_flags) & OBSERVE) == OBSERVE;
}

/* Whether the rules allow it, or may once executables and cgroups are known. */
static __always_inline bool wanted(struct bpf_sock_ops *ctx, struct nc_rd_conf *c, bool passive)
{
	struct rd_question q = {};
	struct nc_rd_end end;

	fill_end(ctx, &end);
	if (!local_only(&end) && !(c->flags & NC_RD_CROSS_NETNS))
		return false;
	q.bank = c->bank & 1;
	q.family = end.family;
	__builtin_memcpy(q.dst, passive ? end.local : end.remote, sizeof(q.dst));
	q.dport = passive ? end.local_port : end.remote_port;
	return ask_rules(&q);
}

/* Leaves a connection, and the flags, to the other netctl that observes it. */
static __always_inline void hands_off(struct bpf_sock_ops *ctx, struct bpf_sock *sk)
{
	struct rd_mine *mine = bpf_sk_storage_get(&rd_mine, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);

	if (!mine) {
		COUNT(helper_failed);
		return;
	}
	mine->index = NOT_JOINED;
	mine->refused = 1;
	mine->foreign = 1;
}

static __always_inline void stays(struct bpf_sock_ops *ctx, __u32 reason)
{
	struct nc_rd_event key = {};

	count_on_tcp(reason);
	key.netns = bpf_get_netns_cookie(ctx);
	fill_end(ctx, &key.end);
	remember(&key, reason);
}

static __always_inline void on_established(struct bpf_sock_ops *ctx, bool passive)
{
	struct nc_rd_conf *c = conf();
	struct bpf_sock *sk;

	if (!c || c->flags & NC_RD_DRAINING)
		return;
	if (observed(ctx)) {
		sk = ctx->sk;
		if (sk)
			hands_off(ctx, sk);
		if (!passive && wanted(ctx, c, passive))
			stays(ctx, NC_RD_REASON_ULP);
		return;
	}
	if (wanted(ctx, c, passive))
		set_flags(ctx, passive ? OBSERVE | PASSIVE : OBSERVE);
}

/* The kernel's own counters are all there is to a connection that is being observed. */
static __always_inline void observe(struct bpf_sock_ops *ctx, struct bpf_sock *sk,
				    struct rd_mine *mine, __u32 out, __u32 in)
{
	struct nc_rd_conf *c = conf();
	struct nc_rd_event *event;

	if (!c || (mine && mine->foreign))
		return;

	/* Who connected counts its SYN among the acknowledged bytes. */
	if (out > 2 * in + 8 || in > 2 * out + 8 ||
	    ctx->bytes_acked > (__u64)out * rd_max_message + 1 ||
	    ctx->bytes_received > (__u64)in * rd_max_message) {
		set_flags(ctx, 0);
		stays(ctx, NC_RD_REASON_STREAM);
		return;
	}
	if (mine) { /* announced, and not joined yet: the joiner may be waiting for a CPU */
		if (mine->refused || (!(++mine->waited % 256) &&
				      bpf_ktime_get_ns() - mine->announced_ns > 10 * SECOND))
			set_flags(ctx, 0);
		return;
	}
	if (!wanted(ctx, c, FIELD(bpf_sock_ops_cb_flags) & PASSIVE)) {
		hands_off(ctx, sk);
		return;
	}
	mine = bpf_sk_storage_get(&rd_mine, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!mine) {
		COUNT(helper_failed);
		return;
	}
	mine->index = NOT_JOINED;
	mine->announced_ns = bpf_ktime_get_ns();
	/* Both ends must have these before they join: the first message may make them leave. */
	set_flags(ctx, FIELD(bpf_sock_ops_cb_flags) & PASSIVE ? OBSERVE | PASSIVE | JOINED :
								OBSERVE | JOINED);
	event = bpf_ringbuf_reserve(&rd_events, sizeof(*event), 0);
	if (!event) {
		set_flags(ctx, 0);
		stays(ctx, NC_RD_REASON_LOST);
		return;
	}
	event->netns = bpf_get_netns_cookie(ctx);
	fill_end(ctx, &event->end);
	COUNT(announced);
	bpf_ringbuf_submit(event, 0);
}

#endif
